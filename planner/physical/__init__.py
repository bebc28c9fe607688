"""Logical relations to nodes of operator specs. Rewrites nothing logical."""
