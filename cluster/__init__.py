"""What runs plans: the runtime in process and its protocol machines. Knows no SQL text."""
