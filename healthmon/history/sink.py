"""The internal sink `results`: probes' results into their table, and the minutes marked due.

Optional and bounded: while the database is away, results wait, and what no longer fits is dropped,
counted as `backlog`.  `write` runs in the pipeline's worker threads.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from django.db import connections

from control.ports.tables import TableSpec
from healthmon.history import due
from healthmon.history.records import PROBE
from healthmon.history.table import RESULTS, minutes_of
from pipeline.record import Batch
from pipeline.settings import MIB, PipelineSettings
from sinks.base import BaseSink
from sinks.internal import InternalSink
from sinks.options import NoOptions
from sinks.recordsdb import ALIAS, RecordsDatabaseSink

NAME = "results"
MAX_RECORDS = 5_000
MAX_BYTES = 4 * MIB
WAIT_S = 1.0
BACKLOG_RECORDS = 2_000_000
BACKLOG_BYTES = 256 * MIB


class ResultsSink(RecordsDatabaseSink[NoOptions]):
    """Stores results, each once, together with the marks of their minutes."""

    label = "Results of probes"
    description = "The history of health monitoring."

    def __init__(self, options: NoOptions, *, name: str = "") -> None:
        super().__init__(options, name=name)
        self._vendor = connections[ALIAS].vendor

    def find_table(self, record_type: str) -> TableSpec | None:
        return RESULTS if record_type == PROBE else None

    def closing(self, batch: Batch) -> str:
        return due.touch_minutes(minutes_of(batch), vendor=self._vendor)


def tune(defaults: PipelineSettings) -> PipelineSettings:
    """A second's results a batch: a checker's history is not what the installation is tuned for."""
    return dataclasses.replace(
        defaults,
        max_records=MAX_RECORDS,
        max_bytes=MAX_BYTES,
        max_wait_s=WAIT_S,
        capacity_records=BACKLOG_RECORDS,
        backlog_max_bytes=BACKLOG_BYTES,
        min_workers=1,
        max_workers=2,
    )


def _make() -> BaseSink[Any]:
    return ResultsSink(NoOptions(), name=NAME)


SINK = InternalSink(name=NAME, types=frozenset({PROBE}), make=_make, required=False, tune=tune)
