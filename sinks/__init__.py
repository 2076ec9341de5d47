"""Sinks: the backends, their configuration as rows, and the service that owns the pipelines."""
