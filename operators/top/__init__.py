"""Top-N, ranks and de-duplication: the first rows of each partition in an order by values."""

from millrace.operators.top.specs import Order, TopRows, WindowTopRows, sortable

__all__ = ["Order", "TopRows", "WindowTopRows", "sortable"]
