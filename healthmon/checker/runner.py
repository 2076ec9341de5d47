"""The checker's loop: starts each target's probe when it is due, judges what comes back.

Everything here runs on the event loop and nothing in it waits but probes; no locks.  Targets come
and go by `add`, `change`, `remove` and `rebase`, called by whoever follows the rows.  A result goes
through `judge`, then to the target's memory; results and changes leave by `Outbound`.

A target has at most one probe under way.  One that is still running when the next is due takes that
one's turn: the schedule goes on at the grid's next time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from healthmon.checker.entry import Entry
from healthmon.checker.judge import Judge, blind_after_s
from healthmon.checker.limits import Limits, Place
from healthmon.checker.schedule import Schedule
from healthmon.checker.stall import StallWatch
from healthmon.probes.kind import VOID, Result
from healthmon.probes.tools import Tools
from healthmon.probes.trial import run_probe
from healthmon.targets.phase import next_on_grid, phase_of
from healthmon.targets.spec import TargetSpec
from healthmon.truth import machine
from healthmon.truth.changes import Change
from healthmon.truth.machine import Memory, Move
from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)

# Started without a pause for answers to be read.
MOST_AT_ONCE = 100
# Before its grid's first time, a target that is probed rarely is looked at once, this soon.
FIRST_WITHIN_S = 60.0
LAGS_KEPT = 10_000


@dataclass(slots=True)
class Figures:
    """Counts since the start, and how late the last probes began; read from any thread."""

    probes: int = 0
    missed_windows: int = 0
    voided: int = 0
    flips: int = 0
    in_flight_most: int = 0
    lags_s: deque[float] = field(default_factory=lambda: deque(maxlen=LAGS_KEPT))

    def lag_s(self, share: float) -> float:
        """So late began that share of the last probes, or less; 0 when there were none."""
        lags = sorted(self.lags_s.copy())
        return lags[min(int(len(lags) * share), len(lags) - 1)] if lags else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Whom the runner tells: where results and changes go, who counts, who looks on.

    `count(kind, outcome, seconds, lag_s)`, `status(target, status)`, `certificate(target_id,
    expires_us)`.
    """

    result: Callable[[int, str, int, Result], None]
    flip: Callable[[Change], None]
    count: Callable[[str, str, float, float], None] = lambda kind, outcome, seconds, lag_s: None
    status: Callable[[str, str], None] = lambda target, status: None
    certificate: Callable[[int, int], None] = lambda target_id, expires_us: None


class Runner:
    """`epoch_of(slot)` is the epoch of the lease held, None for a slot that is not ours."""

    def __init__(
        self,
        *,
        tools: Tools,
        limits: Limits,
        stalls: StallWatch,
        judge: Judge,
        heard: Heard,
        clock: Clock,
        scheduled: bool = True,
        checker: str = "",
        epoch_of: Callable[[int], int | None] = lambda slot: 0,
    ) -> None:
        self._tools = tools
        self._limits = limits
        self._stalls = stalls
        self._judge = judge
        self._heard = heard
        self._clock = clock
        self._scheduled = scheduled
        self._checker = checker
        self._epoch_of = epoch_of
        self._schedule = Schedule()
        self._entries: dict[int, Entry] = {}
        self._running: set[asyncio.Task[Result | None]] = set()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._stopping = False
        self.figures = Figures()
        # Stored times and the grid are the wall's; a step of the wall's clock moves neither.
        self._wall_ahead_s = clock.time_us() / 1e6 - clock.monotonic()

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

    def now_us(self) -> int:
        """The time that is stored: it runs on evenly, whatever is done to the wall's clock."""
        return round((self._clock.monotonic() + self._wall_ahead_s) * 1e6)

    def correct_clock(self) -> float:
        """Follow the wall's clock from now on; returns by how many seconds it had moved."""
        ahead = self._clock.time_us() / 1e6 - self._clock.monotonic()
        moved, self._wall_ahead_s = ahead - self._wall_ahead_s, ahead
        return moved

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
        now_s = self._clock.monotonic()
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
        if self._blind_s(entry) <= blind_after_s(before):
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
        """Make good what could not be said when it was due: the lease was in doubt then."""
        for entry in list(self._entries.values()):
            spec, status = entry.spec, entry.memory.status
            if spec.paused != (status == machine.PAUSED):
                self._apply_pause(entry)
            if spec.paused:
                continue
            title = title_for(spec)
            if (title is not None) != (status == machine.MAINTENANCE):
                self.in_window(spec.id, title)
            if spec.broken:
                self._broken(entry)

    def _begin(self, entry: Entry) -> None:
        """Its first probe: at once when nothing is known of it, else on the grid, yet soon."""
        spec = entry.spec
        self._apply_pause(entry)
        if not self._is_probed(entry) or not self._scheduled:
            self._schedule.remove(spec.id)
            if spec.broken:
                self._broken(entry)
            return
        now_s = self._clock.monotonic()
        due_s = self._on_grid(spec, now_s)
        if entry.memory.status == machine.NEW:
            due_s = min(due_s, now_s + phase_of(spec.id))
        elif spec.interval_s > FIRST_WITHIN_S:
            due_s = min(due_s, now_s + phase_of(spec.id) * FIRST_WITHIN_S)
        self._at(entry, due_s)

    def _broken(self, entry: Entry) -> None:
        """It cannot be probed as it is: nothing is known of it."""
        if self._is_ours(entry):
            reason = f"misconfigured: {entry.spec.broken}"
            rules, now_us = entry.spec.rules, self.now_us()
            self._moved(entry, machine.missed(entry.memory, rules, now_us, reason))

    def _apply_pause(self, entry: Entry) -> None:
        spec, memory = entry.spec, entry.memory
        if not self._is_ours(entry):
            return
        if spec.paused and memory.status != machine.PAUSED:
            self._moved(entry, machine.pause(memory, self.now_us(), "paused by an operator"))
            self._schedule.remove(spec.id)
        elif not spec.paused and memory.status == machine.PAUSED:
            self._moved(entry, machine.resume(memory, self.now_us(), "resumed by an operator"))
            entry.blind_since_s = self._clock.monotonic()
            self._begin(entry)

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

    def in_window(self, target_id: int, title: str | None) -> None:
        """It is in a maintenance window of this title, or in none."""
        entry = self._entries.get(target_id)
        if entry is None or not self._is_ours(entry):
            return
        said = title or "the maintenance window is over"
        self._moved(
            entry, machine.maintenance(entry.memory, title is not None, self.now_us(), said)
        )

    def heard_of(self, target_id: int, at_us: int, result: Result) -> bool:
        """A result that no probe of ours has found: a heartbeat's.

        Returns whether it was taken in; False while the target is not here, or its lease in doubt.
        """
        entry = self._entries.get(target_id)
        if entry is None or not self._is_ours(entry):
            return False
        if not entry.spec.paused:
            self._take_in(entry, at_us, result, lag_s=0.0)
        return True

    # --- the schedule ----------------------------------------------------------------------

    def _on_grid(self, spec: TargetSpec, after_s: float) -> float:
        wall = next_on_grid(spec.id, spec.interval_s, after_s + self._wall_ahead_s)
        return wall - self._wall_ahead_s

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
        delay = due_s - self._clock.monotonic()
        self._timer = loop.call_later(delay, self.beat) if delay > 0 else loop.call_soon(self.beat)

    def beat(self) -> None:
        """Start what is due, a limited number at a time."""
        self._timer = None
        if self._stopping:
            return
        now_s = self._clock.monotonic()
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
        began_s = self._clock.monotonic()
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
        self._note_missed(entry, place.due_s, began_s)
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
            at_us = round((began_s + self._wall_ahead_s) * 1e6)
            result = self._judge(entry.spec, result, began_s)
            self._take_in(entry, at_us, result, lag_s=lag_s)
        self._again(entry, self._clock.monotonic())

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

    def _note_missed(self, entry: Entry, due_s: float, began_s: float) -> None:
        """Whole windows in which nobody looked make the target unknown, from their beginning."""
        spec = entry.spec
        late_s = began_s - due_s
        if late_s >= spec.interval_s:
            self.figures.missed_windows += int(late_s // spec.interval_s)
        if self._blind_s(entry) > blind_after_s(spec):
            self._miss(entry, f"nobody has looked for {self._blind_s(entry):.0f} s")

    def _blind_s(self, entry: Entry) -> float:
        return self._clock.monotonic() - entry.blind_since_s

    def _is_ours(self, entry: Entry) -> bool:
        """Whether its slot's lease is held still, as it was when the target came.

        Asked before its memory is changed: a change that may not go out must not be remembered.
        """
        return self._epoch_of(entry.spec.slot) == entry.epoch

    def _miss(self, entry: Entry, reason: str) -> None:
        if not self._is_ours(entry):
            return
        blind_since_us = round((entry.blind_since_s + self._wall_ahead_s) * 1e6)
        at_us = max(blind_since_us, entry.memory.since_us) + round(entry.spec.interval_s * 1e6)
        rules = entry.spec.rules
        self._moved(entry, machine.missed(entry.memory, rules, min(at_us, self.now_us()), reason))

    # --- what was found --------------------------------------------------------------------

    def _take_in(self, entry: Entry, at_us: int, result: Result, *, lag_s: float) -> None:
        spec, memory = entry.spec, entry.memory
        if not self._is_ours(entry):
            return
        self.figures.probes += 1
        self._heard.count(spec.kind_name, result.outcome, result.total_ms / 1000, lag_s)
        self._heard.result(spec.id, spec.name, at_us, result)
        if result.cert_expires_us and result.cert_expires_us != entry.cert_expires_us:
            entry.cert_expires_us = result.cert_expires_us
            self._heard.certificate(spec.id, result.cert_expires_us)
        if result.outcome == VOID:
            self.figures.voided += 1
            # A heartbeat's is told only where a ping is missing or cannot be known of.
            if spec.passive or self._blind_s(entry) > blind_after_s(spec):
                self._miss(entry, result.error)
            return
        move = machine.observe(memory, spec.rules, result.outcome, at_us, result.error)
        if move is not None:
            self._moved(entry, move)
        entry.blind_since_s = self._clock.monotonic()

    def _moved(self, entry: Entry, move: Move | None) -> None:
        """A change goes out, under the lease by which it was found."""
        if move is None:
            return
        spec = entry.spec
        self.figures.flips += 1
        self._heard.status(spec.name, move.to_status)
        self._heard.flip(
            Change(
                target_id=spec.id,
                target=spec.name,
                seq=move.seq,
                from_status=move.from_status,
                to_status=move.to_status,
                at_us=move.at_us,
                reason=move.reason,
                flapping=move.flapping,
                slot=spec.slot,
                epoch=entry.epoch,
                checker=self._checker,
                cert_expires_us=entry.cert_expires_us,
            )
        )

    def all_now(self) -> int:
        """Probe every target now, whatever its schedule; returns how many will be."""
        now_s = self._clock.monotonic()
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
