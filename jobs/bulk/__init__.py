"""What an operator does to many jobs at once, in the background."""
