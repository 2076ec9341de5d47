"""What becomes of the records that wait for a sink when its row goes.

The admin leaves word in the transaction that deletes the row, for every living process; each acts
on it when it sees the row gone or the request, whichever is first, for what it holds itself.
Holds no state.
"""

from __future__ import annotations

from control.models import ProcessRequest
from control.processes.asking import living

DISCARD = "discard-backlog"
_LOOKED_AT = 500


def discard(key: str) -> int:
    """Have each living process drop what waits for the sink; returns how many were asked."""
    processes = living()
    ProcessRequest.objects.bulk_create(
        ProcessRequest(process=process, kind=DISCARD, args={"sink": key}) for process in processes
    )
    return len(processes)


def unwanted(keys: set[str]) -> set[str]:
    """Those sinks of which the backlog was to be discarded. Asks the database, if there are any."""
    if not keys:
        return set()
    asked = ProcessRequest.objects.filter(kind=DISCARD).order_by("-id")[:_LOOKED_AT]
    return keys & {str(args.get("sink")) for args in asked.values_list("args", flat=True)}
