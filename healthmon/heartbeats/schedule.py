"""When the next ping is due: every interval, or at the times of a cron expression.  Pure.

Times are aware datetimes; cron's are local times of its zone, so that an hour that a change of
clocks leaves out or repeats is met as cron itself meets it: once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim

from healthmon.heartbeats.kind import HeartbeatOptions


@dataclass(frozen=True, slots=True)
class Due:
    """A ping was expected at `expected`; it is missed from `missed_at` on, for the reason told."""

    expected: datetime
    missed_at: datetime
    reason: str


def expected_after(options: HeartbeatOptions, interval_s: float, at: datetime) -> datetime:
    """When a ping is expected that comes after one at `at`."""
    if not options.cron:
        return at + timedelta(seconds=interval_s)
    local = at.astimezone(options.zone)
    return next(CronSim(options.cron, local)).astimezone(UTC)


def due(
    options: HeartbeatOptions,
    interval_s: float,
    last: datetime | None,
    *,
    run_began: datetime | None = None,
) -> Due | None:
    """When the next ping is missed, after one at `last`; None when none is waited for.

    `run_began` is the start of a run that has not ended: it began, so that only its end is waited
    for, by the grace.
    """
    grace = timedelta(seconds=options.grace_s)
    if run_began is not None:
        said = f"the run that began {_said(run_began)} has not ended within {options.grace_s:g} s"
        return Due(run_began, run_began + grace, said)
    if last is None:
        return None
    expected = expected_after(options, interval_s, last)
    return Due(expected, expected + grace, f"no ping since {_said(last)}, {_late(options)}")


def next_miss(options: HeartbeatOptions, interval_s: float, missed: Due, now: datetime) -> datetime:
    """When it is told again that pings are missing, after it was at `missed`; later than `now`.

    After a long time it is not told once for each ping.
    """
    expected = expected_after(options, interval_s, max(missed.expected, now))
    return expected + timedelta(seconds=options.grace_s)


def _said(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _late(options: HeartbeatOptions) -> str:
    if options.cron:
        return f"though cron says {options.cron} ({options.time_zone}); grace {options.grace_s:g} s"
    return f"with a grace of {options.grace_s:g} s"
