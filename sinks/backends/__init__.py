"""The sinks that ship with Collector; reached by dotted path, one module each."""
