"""How this server process ended: what it lost, and why, for the list of processes in the admin.

Runs on the thread that drains the services, after they have stopped.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from django.db import DatabaseError, connections

from control.models import Process
from control.processes.heart import heart
from sinks.closing import closed

logger = logging.getLogger(__name__)


def lost_records(stats: Mapping[str, Any]) -> int:
    """Records that were acknowledged and are neither stored nor in a log on the disk.

    What is left in the log is no loss: the next start, or another process, delivers it.
    """
    lost = 0
    for row in closed(stats)["ledger"]:
        lost += row["dropped_on_shutdown"] + row["in_flight"] + max(0, row["imbalance"])
    return lost


def write_exit_reason(process_id: uuid.UUID, cause: str, *, complete: bool) -> None:
    """Say more than "stopped", where the last heartbeat could say that much."""
    if heart().database_cause("default") is not None:
        return  # trying would use up the rest of the stop deadline
    ending = "drained" if complete else "not drained before the deadline"
    try:
        Process.objects.filter(pk=process_id, stopped_at__isnull=False).update(
            exit_reason=f"{cause or 'stopped'}, {ending}"
        )
    except DatabaseError as error:
        logger.warning(
            "why this process ended was not written", extra={"error": type(error).__name__}
        )
    finally:
        connections.close_all()
