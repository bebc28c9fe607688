"""Imports every module whose functions belong to the library, so that they register themselves."""

from millrace.operators.functions import arithmetic, conditional, logic

__all__ = ["arithmetic", "conditional", "logic"]
