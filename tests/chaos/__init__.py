"""Kafka to Kafka on a Ray cluster under violence: what goes in, what is done to it, and whether all came out once."""
