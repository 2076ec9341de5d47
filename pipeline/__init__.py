"""The engine: a log that is the queue, and the pipelines that carry it to sinks.  No Django."""
