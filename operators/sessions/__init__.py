"""Session windows: the spec. Imports no kernel until an operator is built."""

from millrace.operators.sessions.spec import SessionAggregate

__all__ = ["SessionAggregate"]
