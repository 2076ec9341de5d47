"""Time, threads and the order of starting and stopping."""
