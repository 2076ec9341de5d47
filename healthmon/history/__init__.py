"""Results of probes, how they are stored, rolled up, read and forgotten."""
