"""What this room registers when Django is ready."""

from __future__ import annotations


def arm() -> None:
    """Register everything; harmless when called again."""
    from healthmon.heartbeats.index import index
    from healthmon.heartbeats.metrics import ignored, pings
    from healthmon.heartbeats.sink import register_sinks

    pings()  # both before there are two threads that could make them at once
    ignored()
    register_sinks()
    index().register()
