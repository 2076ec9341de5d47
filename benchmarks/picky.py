"""A sink that keeps nothing and names the records it refuses: what indexes cost in a benchmark."""

from __future__ import annotations

from benchmarks.rows import POISON
from pipeline.errors import PartialFailure
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.options import NoOptions


class PickySink(BaseSink[NoOptions]):
    """Refuses poison by its index, which it looks for in clean batches as well."""

    label = "Picky"
    description = "Refuses marked records, keeps none. For benchmarks."
    supports_partial_failure = True

    def write(self, batch: Batch) -> Written:
        refused = {
            index: "poison"
            for index, record in enumerate(batch.records)
            if record.payload.startswith(POISON)
        }
        if refused:
            raise PartialFailure(refused)
        return Written(stored=batch.count)
