"""The checker process: schedule, limits, the judging of results, and the flushing of both."""
