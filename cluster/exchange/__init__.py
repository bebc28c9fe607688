"""Rows on their way between partitions: where edges cross, how rows are split, framed, sent and taken in."""
