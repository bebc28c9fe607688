"""Table functions: operators that send several rows, or none, for each row that comes in."""
