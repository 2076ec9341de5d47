"""Jobs that are held again and again, by a breaker that is open or a secret that is missing.

Each time such a job is queued, claimed and put back, which would be three more events for nothing
new.  Its story keeps the first time and the last, which says how often.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from django.db.models import F

from jobs.states import QUEUED, RUNNING, SCHEDULED
from jobs.store.groups import AGAIN, WriteRow
from jobs.store.models import JobEvent
from jobs.store.texts import HELD, TIME_CAME

_HELD = re.compile(r"held (\d+) times: (.*)", re.DOTALL)
_ROUND = ((QUEUED, TIME_CAME), (RUNNING, ""))


class _Event(Protocol):
    @property
    def state(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def attempt(self) -> int: ...


class Fold(NamedTuple):
    """What the new event says, and how many go from before the last round's two."""

    text: str
    drop: int


class _Kept(NamedTuple):
    id: int
    state: str
    text: str
    attempt: int


def is_hold(row: WriteRow) -> bool:
    return row.state == AGAIN and not row.spent and row.delay_s > 0 and bool(row.text)


def fold(story: Sequence[_Event], text: str) -> Fold | None:
    """`story` ends with the claim; None: it was not held for the same just before."""
    if len(story) < 4 or not _is_round(story[-2:]):
        return None
    began, held = story[-4], story[-3]
    # A try that failed has the number of its attempt, which one that was held does not use up.
    if (began.state, held.state) != (RUNNING, SCHEDULED) or held.attempt >= began.attempt:
        return None
    said = held.text
    if said == text:
        return Fold(HELD.format(times=2, text=text), 0)
    counted = _HELD.fullmatch(said)
    if counted is None or counted[2] != text:
        return None
    drop = 3 if _is_round(story[-5:-3]) else 1
    return Fold(HELD.format(times=int(counted[1]) + 1, text=text), drop)


def _is_round(events: Sequence[_Event]) -> bool:
    return tuple((event.state, event.text) for event in events) == _ROUND


def folded(rows: Sequence[WriteRow]) -> Mapping[int, Sequence[int]]:
    """Has the rows that are holds say how often; the events that go, by row, once it is kept."""
    held = {row.id: index for index, row in enumerate(rows) if is_hold(row)}
    if not held:
        return {}
    stories: defaultdict[UUID, list[_Kept]] = defaultdict(list)
    last = JobEvent.objects.filter(job_id__in=list(held), claim__gte=F("job__claim") - 2)
    for job_id, *event in last.order_by("id").values_list(
        "job_id", "id", "state", "text", "attempt"
    ):
        stories[job_id].append(_Kept._make(event))
    gone: dict[int, Sequence[int]] = {}
    for job_id, story in stories.items():
        row = rows[held[job_id]]
        found = fold(story, row.text)
        if found is not None:
            row.text = found.text
            gone[held[job_id]] = [event.id for event in story[-2 - found.drop : -2]]
    return gone


def forget(ids: Sequence[int]) -> None:
    if ids:
        JobEvent.objects.filter(pk__in=ids).delete()
