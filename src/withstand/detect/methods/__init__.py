"""Detection methods, one in a file."""
