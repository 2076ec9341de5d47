"""What was heard of the heartbeat targets that this checker holds, as results like a probe's.

`poll` runs on the checker's thread for it, about every second: two small queries while nothing
changes.  It alone touches what the feed remembers.  A target that was never pinged has no result.
After a takeover the newest ping of each target is told of once more: it says what is true now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.db.models import Q

from healthmon.heartbeats.delivery import Delivery, read_delivery
from healthmon.heartbeats.kind import NAME, HeartbeatOptions
from healthmon.heartbeats.models import Heartbeat, Ping
from healthmon.heartbeats.pings import DEGRADED, FAIL, START, SUCCESS
from healthmon.heartbeats.stamps import Stamps
from healthmon.heartbeats.store import failure_said
from healthmon.heartbeats.watch import Ended, Plan, Watch, result_of
from healthmon.probes.kind import Result
from healthmon.targets.models import Target, slot_of
from pipeline.runtime.clock import Clock, SystemClock
from sinks.options import OptionsError, decode_options

logger = logging.getLogger(__name__)

TARGETS_EVERY_S = 2.0
DELIVERY_EVERY_S = 2.0
EVERYTHING_EVERY_S = 60.0
# Rows that are committed late, or dated by another machine's clock, are seen all the same.
OVERLAP = timedelta(seconds=15)
CHUNK = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Found(NamedTuple):
    """A result with the target it is of, and when it came about."""

    target_id: int
    at_us: int
    result: Result


class HeartbeatFeed:
    """`held` tells which slots are this checker's, and under which epochs."""

    def __init__(
        self, *, held: Callable[[], Mapping[int, int]], clock: Clock | None = None
    ) -> None:
        self._held = held
        self._epochs: dict[int, int] = {}
        self._clock = clock or SystemClock()
        self._plans: dict[int, Plan] = {}
        self._watches: dict[int, Watch] = {}
        self._paused: set[int] = set()
        # Watches whose rows have not been looked at once; those with something to be read.
        self._unread: set[int] = set()
        self._changed: set[int] = set()
        # What a poll that failed half way had found.
        self._found: list[Found] = []
        self._stamps = Stamps()
        self._newest: datetime | None = None
        self._delivery = Delivery(None, None, "")
        self._read_at: dict[str, float] = {}

    def poll(self) -> list[Found]:
        """Results since the last call.  Raises django.db.Error; nothing is lost by that."""
        now = self._now()
        if self._is_time("targets", TARGETS_EVERY_S):
            self._follow_targets(now)
            self._done("targets")
        self._follow_slots()
        self._look_for_changes()
        self._read_changed()
        if self._watches and self._is_time("delivery", DELIVERY_EVERY_S):
            self._delivery = read_delivery(now)
            self._done("delivery")
        for target_id, watch in self._watches.items():
            missed = watch.missed(self._delivery, now)
            if missed is not None:
                self._found.append(Found(target_id, _us(missed[0]), missed[1]))
        found, self._found = self._found, []
        return found

    # --- targets and slots -----------------------------------------------------------------

    def _follow_targets(self, now: datetime) -> None:
        if not self._stamps.moved():
            return
        ours = Target.objects.filter(kind=NAME)
        plans: dict[int, Plan] = {}
        paused: set[int] = set()
        for pk, interval_s, options, is_paused in ours.values_list(
            "pk", "interval_s", "options", "paused"
        ):
            if is_paused:
                paused.add(pk)
                continue
            try:
                plans[pk] = Plan(
                    options=decode_options(HeartbeatOptions, options), interval_s=interval_s
                )
            except OptionsError as error:
                # The target itself is shown as broken.
                logger.warning("a heartbeat target cannot be judged: %s", error)
        # One that goes on after a pause gets its grace before it is missed.
        resumed = (self._paused - paused) & plans.keys()
        for target_id in resumed:
            self._watches[target_id] = Watch(plans[target_id], since=now)
            self._unread.add(target_id)
        self._plans, self._paused = plans, paused
        self._stamps.taken()

    def _follow_slots(self) -> None:
        """Begin and end watches as slots and targets come and go."""
        held = dict(self._held())
        wanted = {target_id for target_id in self._plans if slot_of(target_id) in held}
        # A slot of another epoch was somebody else's meanwhile: what was told is told anew.
        kept = {slot for slot, epoch in held.items() if self._epochs.get(slot) == epoch}
        for target_id in list(self._watches):
            if target_id not in wanted or slot_of(target_id) not in kept:
                del self._watches[target_id]
        self._epochs = held
        for target_id in wanted - self._watches.keys():
            self._watches[target_id] = Watch(self._plans[target_id])
            self._unread.add(target_id)
        for target_id in wanted:
            self._watches[target_id].replan(self._plans[target_id])
        self._unread &= wanted

    # --- pings -----------------------------------------------------------------------------

    def _look_for_changes(self) -> None:
        """Note the targets of which something newer is there than was told."""
        everything = self._is_time("everything", EVERYTHING_EVERY_S)
        rows = Heartbeat.objects.all()
        if not everything:
            asked = Q(updated_at__gte=self._recent())
            rows = rows.filter(asked | Q(pk__in=self._unread) if self._unread else asked)
        for target_id, seq, updated_at in rows.values_list("target_id", "seq", "updated_at"):
            if self._newest is None or updated_at > self._newest:
                self._newest = updated_at
            watch = self._watches.get(target_id)
            if watch is not None and seq > watch.seq:
                self._changed.add(target_id)
        if everything:
            self._done("everything")
        self._unread = set()

    def _read_changed(self) -> None:
        while self._changed:
            chunk = sorted(self._changed)[:CHUNK]
            self._found += self._read([one for one in chunk if one in self._watches])
            self._changed.difference_update(chunk)

    def _recent(self) -> datetime:
        return _EPOCH if self._newest is None else self._newest - OVERLAP

    def _read(self, changed: list[int]) -> list[Found]:
        rows = list(Heartbeat.objects.filter(pk__in=changed))
        known = {row.pk: self._watches[row.pk].seq for row in rows}
        upto = {row.pk: row.seq for row in rows}
        told: dict[int, list[Ended]] = {}
        # Of one that is followed only since now, the newest alone says something.
        followed = [seq for seq in known.values() if seq]
        if followed:
            pings = Ping.objects.filter(target_id__in=changed, record_id__gt=min(followed))
            for ping in pings.exclude(kind=START).order_by("record_id").defer("body"):
                seq = known.get(ping.target_id, 0)
                # What came in since the rows were read is told of the next time.
                if seq and seq < ping.record_id <= upto[ping.target_id]:
                    error = failure_said(ping.exit_code) if ping.kind == FAIL else ""
                    one = Ended(ping.at, ping.kind, error, ping.duration_ms)
                    told.setdefault(ping.target_id, []).append(one)
        found: list[Found] = []
        for row in rows:
            watch = self._watches[row.pk]
            ended = told.get(row.pk, []) if known[row.pk] else _last(row)
            found += [Found(row.pk, _us(watch.told(one.at)), result_of(one)) for one in ended]
            ends = [at for at in (row.last_success_at, row.last_fail_at) if at is not None]
            watch.heard(
                row.seq,
                status=row.last_status,
                last_end=max(ends, default=None),
                last_start=row.last_start_at,
            )
        return found

    # --- time ------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time_us() / 1e6, UTC)

    def _is_time(self, what: str, every_s: float) -> bool:
        last = self._read_at.get(what)
        return last is None or self._clock.monotonic() - last >= every_s

    def _done(self, what: str) -> None:
        self._read_at[what] = self._clock.monotonic()


def _last(row: Heartbeat) -> list[Ended]:
    """The last ping of a row that ended something."""
    if row.last_error and row.last_fail_at is not None:
        return [Ended(row.last_fail_at, FAIL, row.last_error, row.last_duration_ms)]
    if row.last_success_at is None:
        return []
    kind = DEGRADED if row.last_status == DEGRADED else SUCCESS
    return [Ended(row.last_success_at, kind, "", row.last_duration_ms)]


def _us(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)
