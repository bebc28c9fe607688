"""Scalar expressions: their tree, and their evaluation over Arrow arrays."""
