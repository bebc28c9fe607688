"""Bytes and numbers: key index, state columns, row store, vnodes, snapshots. Knows no operator."""
