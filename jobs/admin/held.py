"""Jobs that wait because a service is not called: which service, which type's, and why.

Told by what their steps said last, of those whose turn comes first: bounded, however many wait.
Runs in request threads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from control.admin.inert import one_line
from jobs.states import SCHEDULED, STEP_RETRYING
from jobs.store.models import Job, JobStep

EXAMINED = 300
_SAID = re.compile(
    r"(?P<service>[a-z0-9][a-z0-9\-_.]{0,62}) "
    r"(?P<how>is not called now|cannot be called as it is configured): (?P<why>.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldJob:
    """`unusable`: not before somebody corrects the service, or the runners' environment."""

    type_id: int
    service: str
    unusable: bool
    why: str


def told(text: str) -> tuple[str, bool, str] | None:
    """The service, whether it cannot be called as configured, and why; None of other texts."""
    said = _SAID.match(text)
    if said is None:
        return None
    return said["service"], said["how"].startswith("cannot"), one_line(said["why"], limit=300)


def held() -> list[HeldJob]:
    """Of the jobs that wait for another try, those that a service keeps, one entry a job."""
    waiting = Job.objects.filter(state=SCHEDULED).order_by("run_at")
    rows = waiting.values_list("pk", "type_id", "claim")[:EXAMINED]
    types = {key: type_id for key, type_id, claim in rows if claim}
    if not types:
        return []
    steps = JobStep.objects.filter(job_id__in=list(types), state=STEP_RETRYING)
    found: dict[object, HeldJob] = {}
    for key, error in steps.exclude(error="").values_list("job_id", "error").order_by("pk"):
        said = told(error)
        if said is None or (key in found and found[key].unusable):
            continue
        service, unusable, why = said
        if key not in found or unusable:
            found[key] = HeldJob(type_id=types[key], service=service, unusable=unusable, why=why)
    return list(found.values())


def unusable(jobs: Sequence[HeldJob]) -> dict[str, list[HeldJob]]:
    """By service, the jobs of those that cannot be called as they are configured."""
    found: dict[str, list[HeldJob]] = {}
    for one in jobs:
        if one.unusable:
            found.setdefault(one.service, []).append(one)
    return found
