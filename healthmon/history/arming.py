"""What this room registers when Django is ready."""

from __future__ import annotations

from control.ports.tables import register_table
from healthmon.checker.housekeeping import register_task
from healthmon.history import retention, rollup
from healthmon.history.records import PROBE
from healthmon.history.sink import SINK
from healthmon.history.table import RESULTS
from sinks.internal import register_internal_sink, register_internal_type


def arm() -> None:
    """Register everything; harmless when called again."""
    register_internal_type(PROBE)
    register_table(RESULTS)
    register_internal_sink(SINK)
    register_task("roll-up", rollup.INTERVAL_S, rollup.run)
    register_task("history-retention", retention.INTERVAL_S, retention.run)
