"""The function library: names, signatures and vectorised bodies."""
