"""A whole cluster in one process under one seed: `python -m tests.simulation --seed N` replays one."""
