"""Statements to typed relations: names, types, aggregates, windows. Makes no physical decision."""
