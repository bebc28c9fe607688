"""Joins of streams: what is kept of each side, and what a change of one side means for the result."""
