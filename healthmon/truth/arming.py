"""What this room registers when Django is ready."""

from __future__ import annotations

from healthmon.truth.changes import FLIP
from sinks.internal import InternalSink, register_internal_sink, register_internal_type


def arm() -> None:
    """Register everything; harmless when called again."""
    from healthmon.truth.sink import FlipsSink

    register_internal_type(FLIP)
    register_internal_sink(
        InternalSink(name="flips", types=frozenset({FLIP}), make=FlipsSink, required=True)
    )
