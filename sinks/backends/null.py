"""A sink that forgets: to measure the way there, or to end a stream without losing count."""

from __future__ import annotations

from pipeline.record import Batch
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.options import NoOptions


class NullSink(BaseSink[NoOptions]):
    """Counts records as stored and keeps none."""

    label = "Null"
    description = "Throws records away and counts them as stored."
    supports_probe = True

    def write(self, batch: Batch) -> Written:
        return Written(stored=batch.count)

    def probe(self, batch: Batch) -> str:
        return "Nothing is kept, as configured."
