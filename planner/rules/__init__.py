"""Rewrite rules of the logical plan, one a module, and the order they run in."""
