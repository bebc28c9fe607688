"""Benchmarks: every figure is a ratio to DuckDB on one thread, over the same Arrow batches, in the same run."""
