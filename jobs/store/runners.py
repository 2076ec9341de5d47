"""Who runs jobs: joining, beating, leaving, and being declared dead.

A runner's row is deleted before its jobs are looked for.  A claim holds that row while it commits,
so that a claim is either found here or finds its runner gone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F

from control.processes.identity import plain
from jobs.states import ASKED, CANCELLED, DEAD, LOST, QUEUED, RUNNING
from jobs.store.models import Job, Runner
from jobs.store.story import Move, locked, steps_interrupted, tell
from jobs.store.texts import GIVEN_BACK, LOST_DEAD, LOST_QUEUED
from jobs.store.values import text


def join(runner: str, *, host: str, pid: int, process: str, now: datetime) -> None:
    row = {"host": text(host, 255), "pid": pid, "process": process[:36]}
    Runner.objects.get_or_create(
        pk=runner, defaults={**row, "started_at": now, "seen_at": now, "beats": 0}
    )


def beat(runner: str, figures: Mapping[str, Any], now: Any) -> bool:
    row = Runner.objects.filter(pk=runner)
    return bool(row.update(beats=F("beats") + 1, seen_at=now, figures=plain(dict(figures))))


def runners() -> dict[str, int]:
    return dict(Runner.objects.values_list("pk", "beats"))


def leave(runner: str, now: datetime) -> int:
    Runner.objects.filter(pk=runner).delete()
    return give_back(runner, (), now)


def give_back(runner: str, keep: Collection[UUID], now: datetime) -> int:
    kept = set(keep)
    held = [job for job in _held_by(runner) if job.pk not in kept]
    _free([_back(job, now, GIVEN_BACK) for job in held], now)
    return len(held)


def rescue(runner: str, *, beats: int, lost_at: Mapping[int, int], now: datetime) -> int | None:
    deleted, _ = Runner.objects.filter(pk=runner, beats=beats).delete()
    if not deleted:
        return None
    moves = []
    for job in _held_by(runner):
        spent = job.attempts + 1
        limit = lost_at.get(job.type_id)
        if limit is not None and spent >= limit and job.cancel_asked_at is None:
            said = LOST_DEAD.format(attempts=spent)
            fields = {"reason": LOST, "error": said, "finished_at": now}
            moves.append(Move(job=job, state=DEAD, text=said, fields=fields))
        else:
            moves.append(_back(job, now, LOST_QUEUED))
        moves[-1] = _with(moves[-1], attempts=spent)
    _free(moves, now)
    return len(moves)


def _held_by(runner: str) -> list[Job]:
    return list(locked(Job.objects.filter(state=RUNNING, runner=runner)))


def _back(job: Job, now: datetime, said: str) -> Move:
    """Back to the queue; but a job that was to be cancelled has nobody left to tell."""
    if job.cancel_asked_at is not None:
        fields: dict[str, Any] = {"reason": ASKED, "finished_at": now}
        return Move(job=job, state=CANCELLED, text=said, fields=fields)
    return Move(job=job, state=QUEUED, text=said, fields={"run_at": now, "reason": ""})


def _with(move: Move, **fields: Any) -> Move:
    return Move(job=move.job, state=move.state, text=move.text, fields={**move.fields, **fields})


def _free(moves: list[Move], now: datetime) -> None:
    tell([_with(move, runner="") for move in moves], now)
    steps_interrupted([move.job.pk for move in moves])
