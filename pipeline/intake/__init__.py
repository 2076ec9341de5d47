"""Admission and routing: whether a request is taken, and for which sinks."""
