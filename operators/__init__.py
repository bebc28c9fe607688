"""What computes: batches, expressions, windows, aggregates, connectors, formats. Knows no SQL and no Ray."""
