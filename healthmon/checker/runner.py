"""The checker's loop: starts each target's probe when it is due, judges what comes back.

Everything here runs on the event loop and nothing in it waits but probes; no locks.  Targets come
and go by `put`, `remove` and `rebase`, called by whoever follows the rows.  A result goes through
`judge`, then to the target's memory, by `Statuses`.

A target has at most one probe under way.  One that is still running when the next is due takes that
one's turn: the schedule goes on at the grid's next time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from healthmon.checker.entry import Entry
from healthmon.checker.evenclock import EvenClock
from healthmon.checker.figures import Figures
from healthmon.checker.judge import Judge, blind_after_s
from healthmon.checker.limits import Limits, Place
from healthmon.checker.schedule import Schedule
from healthmon.checker.statuses import Statuses
from healthmon.probes.kind import VOID, Result
from healthmon.probes.tools import Tools
from healthmon.probes.trial import run_probe
from healthmon.targets.phase import next_on_grid, phase_of
from healthmon.targets.spec import TargetSpec
from healthmon.truth import machine
from healthmon.truth.machine import Memory

logger = logging.getLogger(__name__)

# Started without a pause for answers to be read.
MOST_AT_ONCE = 100
# Before its grid's first time, a target that is probed rarely is looked at once, this soon.
FIRST_WITHIN_S = 60.0
# Times what makes a target unknown that nobody looks at.
PATIENCE = 5


class Runner:
    """Without `scheduled`, targets are probed only when `all_now` says so."""

    def __init__(
        self,
        *,
        tools: Tools,
        limits: Limits,
        judge: Judge,
        statuses: Statuses,
        time: EvenClock,
        figures: Figures,
        scheduled: bool = True,
    ) -> None:
        self._tools = tools
        self._limits = limits
        self._judge = judge
        self._statuses = statuses
        self._time = time
        self._scheduled = scheduled
        self.figures = figures
        self._schedule = Schedule()
        self._entries: dict[int, Entry] = {}
        self._running: set[asyncio.Task[Result | None]] = set()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._stopping = False

    # --- targets ---------------------------------------------------------------------------

    @property
    def entries(self) -> dict[int, Entry]:
        return self._entries

    @property
    def in_flight(self) -> int:
        return self._limits.running

    @property
    def due(self) -> int:
        """How many have a time at which they will be probed."""
        return len(self._schedule)

    @property
    def parked(self) -> int:
        return self._limits.parked

    def put(
        self,
        spec: TargetSpec,
        memory: Memory,
        *,
        epoch: int,
        blind_since_s: float | None = None,
    ) -> None:
        """A target that is new here, or whose row has changed; `memory` is for a new one.

        `blind_since_s` (monotonic) tells since when nobody has looked, where that is known.
        """
        now_s = self._time.monotonic()
        entry = self._entries.get(spec.id)
        if entry is None:
            since_s = now_s if blind_since_s is None else blind_since_s
            entry = Entry(spec, memory, epoch=epoch, blind_since_s=since_s)
            self._entries[spec.id] = entry
            if blind_since_s is not None and self._is_probed(entry):
                self._note_missed(entry, self._on_grid(spec, since_s), now_s)
            self._begin(entry)
            return
        before, entry.spec = entry.spec, spec
        entry.epoch = epoch
        if self._statuses.blind_s(entry) <= blind_after_s(before):
            # Whoever is probed more often from now on was not blind while it was not.
            entry.blind_since_s = max(entry.blind_since_s, now_s - blind_after_s(spec) / 2)
        if spec.run_requested_us > entry.asked_us:
            entry.asked_us = spec.run_requested_us
            self._at(entry, now_s)
        elif before.fingerprint != spec.fingerprint or (
            before.interval_s,
            before.broken,
        ) != (spec.interval_s, spec.broken):
            self._begin(entry)
        self._apply_pause(entry)

    def reconcile(self, title_for: Callable[[TargetSpec], str | None]) -> None:
        """Make good what could not be said when it was due: the lease was in doubt then.

        Whoever is not probed for long, be it for want of room, is unknown; one that waits and comes
        to be probed in the end is what that probe finds, or it would change with each.
        """
        for entry in list(self._entries.values()):
            spec, status = entry.spec, entry.memory.status
            if spec.paused != (status == machine.PAUSED):
                self._apply_pause(entry)
            if spec.paused:
                continue
            blind_s = self._statuses.blind_s(entry)
            if self._is_probed(entry) and blind_s > PATIENCE * blind_after_s(spec):
                why = f"no room for it: too many targets of {spec.host or 'its group'} are due"
                self._statuses.missed(
                    entry, why if entry.waits else f"nobody has looked for {blind_s:.0f} s"
                )
            title = title_for(spec)
            if (title is not None) != (status == machine.MAINTENANCE):
                self._statuses.in_window(entry, title)
            if spec.broken:
                self._statuses.broken(entry)

    def _begin(self, entry: Entry) -> None:
        """Its first probe: at once when nothing is known of it, else on the grid, yet soon."""
        spec = entry.spec
        self._apply_pause(entry)
        if not self._is_probed(entry) or not self._scheduled:
            self._schedule.remove(spec.id)
            if spec.broken:
                self._statuses.broken(entry)
            return
        now_s = self._time.monotonic()
        due_s = self._on_grid(spec, now_s)
        if entry.memory.status == machine.NEW:
            due_s = min(due_s, now_s + phase_of(spec.id))
        elif spec.interval_s > FIRST_WITHIN_S:
            due_s = min(due_s, now_s + phase_of(spec.id) * FIRST_WITHIN_S)
        self._at(entry, due_s)

    def _apply_pause(self, entry: Entry) -> None:
        paused = entry.memory.status == machine.PAUSED
        if entry.spec.paused and not paused:
            self._statuses.pause(entry)
            self._schedule.remove(entry.spec.id)
        elif paused and not entry.spec.paused and self._statuses.is_ours(entry):
            self._statuses.resume(entry)
            self._begin(entry)

    def in_window(self, target_id: int, title: str | None) -> None:
        """It is in a maintenance window of this title, or in none."""
        entry = self._entries.get(target_id)
        if entry is not None:
            self._statuses.in_window(entry, title)

    def remove(self, target_id: int) -> Entry | None:
        """The target is gone, or no longer ours: what its probe finds is let go of."""
        entry = self._entries.pop(target_id, None)
        if entry is None:
            return None
        self._schedule.remove(target_id)
        entry.removed = True
        if entry.task is not None:
            entry.task.cancel()
        return entry

    def rebase(self, target_id: int, memory: Memory) -> None:
        """Someone else has stored changes of it: go on from there."""
        entry = self._entries.get(target_id)
        if entry is not None and memory.seq > entry.memory.seq:
            entry.memory = memory
            self._apply_pause(entry)

    def heard_of(self, target_id: int, at_us: int, result: Result) -> bool:
        """A result that no probe of ours has found: a heartbeat's.

        Returns whether it was taken in; False while the target is not here, or its lease in doubt.
        """
        entry = self._entries.get(target_id)
        if entry is None or not self._statuses.is_ours(entry):
            return False
        if not entry.spec.paused and not _is_old_news(entry.memory, at_us, result):
            self._statuses.take_in(entry, at_us, result, lag_s=0.0)
        return True

    # --- the schedule ----------------------------------------------------------------------

    def _on_grid(self, spec: TargetSpec, after_s: float) -> float:
        wall = next_on_grid(spec.id, spec.interval_s, after_s + self._time.wall_ahead_s)
        return wall - self._time.wall_ahead_s

    def _at(self, entry: Entry, due_s: float) -> None:
        if self._stopping or not entry.idle:
            return  # the end of the probe under way sets the next time
        first = self._schedule.next_s()
        self._schedule.put(entry.spec.id, due_s)
        if first is None or due_s < first:
            self._wake(due_s)

    def _wake(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        delay = due_s - self._time.monotonic()
        self._timer = loop.call_later(delay, self.beat) if delay > 0 else loop.call_soon(self.beat)

    def beat(self) -> None:
        """Start what is due, a limited number at a time."""
        self._timer = None
        if self._stopping:
            return
        now_s = self._time.monotonic()
        for target_id, due_s in self._schedule.take(now_s, MOST_AT_ONCE):
            entry = self._entries.get(target_id)
            if entry is None or not entry.idle:
                continue
            place = Place(target_id, due_s, entry.spec.host, entry.spec.group)
            entry.place = place
            if self._limits.enter(place):
                self._start(entry, place)
        next_s = self._schedule.next_s()
        if next_s is not None:
            self._wake(next_s)

    def _start(self, entry: Entry, place: Place) -> None:
        began_s = self._time.monotonic()
        task = asyncio.get_running_loop().create_task(self._probe(entry, place, began_s))
        entry.task = task
        self._running.add(task)
        if len(self._running) > self.figures.in_flight_most:
            self.figures.in_flight_most = len(self._running)
        # Not at the end of the task's own code: one that is cancelled early never comes to it.
        task.add_done_callback(partial(self._ended, entry, place, began_s))

    # --- one probe -------------------------------------------------------------------------

    async def _probe(self, entry: Entry, place: Place, began_s: float) -> Result | None:
        spec = entry.spec
        if entry.removed or self._stopping or spec.kind is None or spec.request is None:
            return None
        self._note_missed(entry, place.due_s, began_s, waited=place.parked)
        result = await run_probe(spec.kind, spec.request, self._tools)
        # One that was asked for something else meanwhile says nothing of what it is now.
        return result if entry.spec.fingerprint == spec.fingerprint else None

    def _ended(
        self, entry: Entry, place: Place, began_s: float, task: asyncio.Task[Result | None]
    ) -> None:
        """Whatever became of the probe: others may run, and it has its next time."""
        self._running.discard(task)
        entry.task = entry.place = None
        self._let_in(self._limits.leave(place))
        if task.cancelled() or entry.removed:
            return
        if (error := task.exception()) is not None:
            logger.error(
                "a probe could not be made", exc_info=error, extra={"target": entry.spec.name}
            )
        elif (result := task.result()) is not None:
            lag_s = began_s - place.due_s
            self.figures.lags_s.append(lag_s)
            at_us = self._time.stored_us(began_s)
            result = self._judge(entry.spec, result, began_s)
            self._statuses.take_in(entry, at_us, result, lag_s=lag_s)
        self._again(entry, self._time.monotonic())

    def _let_in(self, places: Iterable[Place]) -> None:
        """Start who has room now; whoever was removed while waiting makes room for others."""
        waiting = deque(places)
        while waiting:
            place = waiting.popleft()
            entry = self._entries.get(place.target_id)
            if entry is None or entry.place is not place:
                waiting.extend(self._limits.leave(place))
            else:
                self._start(entry, place)

    def _again(self, entry: Entry, ended_s: float) -> None:
        spec = entry.spec
        if self._stopping or entry.removed or not self._scheduled or not self._is_probed(entry):
            return
        if spec.run_requested_us > entry.asked_us:
            entry.asked_us = spec.run_requested_us
            self._at(entry, ended_s)
            return
        if machine.confirming(entry.memory):
            self._at(entry, ended_s + spec.retry_interval_s)
        else:
            self._at(entry, self._on_grid(spec, ended_s))

    def _note_missed(
        self, entry: Entry, due_s: float, began_s: float, *, waited: bool = False
    ) -> None:
        """Whole windows in which nobody looked make the target unknown, from their beginning."""
        spec = entry.spec
        late_s = began_s - due_s
        if late_s >= spec.interval_s:
            self.figures.missed_windows += int(late_s // spec.interval_s)
        blind_s = self._statuses.blind_s(entry)
        if blind_s > blind_after_s(spec) and not waited:
            self._statuses.missed(entry, f"nobody has looked for {blind_s:.0f} s")

    def all_now(self) -> int:
        """Probe every target now, whatever its schedule; returns how many will be."""
        now_s = self._time.monotonic()
        probed = [e for e in self._entries.values() if self._is_probed(e)]
        for entry in probed:
            self._at(entry, now_s)
        return len(probed)

    @staticmethod
    def _is_probed(entry: Entry) -> bool:
        spec = entry.spec
        return not (spec.broken or spec.paused or spec.passive) and spec.kind is not None

    # --- the end ---------------------------------------------------------------------------

    async def stop(self, deadline_s: float) -> None:
        """Start nothing more; let what runs end within the deadline, and cancel the rest."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        running = set(self._running)
        if running:
            _, left = await asyncio.wait(running, timeout=deadline_s)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)


def _is_old_news(memory: Memory, at_us: int, result: Result) -> bool:
    """A ping from before the last change, told again after a takeover: the change knew of it."""
    if result.outcome == VOID or at_us > memory.since_us:
        return False
    if memory.status == machine.UNKNOWN:
        return memory.before == machine.DOWN
    return memory.status in (machine.UP, machine.DEGRADED, machine.DOWN)
