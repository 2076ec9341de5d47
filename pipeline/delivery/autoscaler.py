"""How many workers a pipeline should have: its settings, the rule, and what it remembers.

`decide` is a pure function of one look at a pipeline.  `Autoscaler` makes that look worth having:
it knows when the next is due, when the number last changed, and how busy the workers were in
between.  Guarded by the pipeline's lock; `Staffing` asks it, on the autoscaler's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Step = Literal[1, 0, -1]

# One worker less must leave the others idle for some of the time, or the next look would add it
# again.
HEADROOM = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscaleSettings:
    """When a pipeline gets a worker more or one less, between `min_workers` and `max_workers`.

    Every `interval_s`, one step at a time and none within `cooldown_s` of the last: up when what is
    held is more than the share `up` of the room that offers may fill, or when more than
    `up_batches` full batches wait for each worker (0: that does not count), and no worker is idle;
    down when less than the share `down` is held, no full batch waits, and the others can do what
    the workers did since the last look.
    """

    interval_s: float = 1.0
    up: float = 0.8
    down: float = 0.2
    up_batches: int = 2
    cooldown_s: float = 2.0

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems))

    def problems(self) -> list[str]:
        """Every broken rule, each naming its field."""
        rules = (
            (self.interval_s > 0, "autoscale interval_s must be positive"),
            (
                0 <= self.down < self.up <= 1,
                f"autoscale must satisfy 0 <= down ({self.down:g}) < up ({self.up:g}) <= 1",
            ),
            (self.up_batches >= 0, "autoscale up_batches must not be negative"),
            (self.cooldown_s >= 0, "autoscale cooldown_s must not be negative"),
        )
        return [message for holds, message in rules if not holds]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleStats:
    """One look at a pipeline.

    `usage` is what is held over the room that offers may fill, so that 1 is where refusing begins.
    `workers` are those that are to stay, `idle` those without work at this moment; `busy` is how
    many were at work on average since the last look.  `waiting_batches` are full batches that
    nobody has taken.
    """

    usage: float
    workers: int
    idle: int = 0
    busy: float = 0.0
    waiting_batches: int = 0
    draining: bool = False
    breaker_open: bool = False
    deliverable: bool = True
    since_change_s: float = float("inf")


def decide(stats: ScaleStats, settings: AutoscaleSettings, *, least: int, most: int) -> Step:
    """One worker more, one less, or as it is."""
    if stats.draining or stats.breaker_open or not stats.deliverable:
        return 0
    if stats.since_change_s < settings.cooldown_s:
        return 0
    if stats.workers < least:
        return 1
    if stats.workers > most:
        return -1
    if stats.workers < most and not stats.idle and _is_pressed(stats, settings):
        return 1
    if stats.workers > least and _is_slack(stats, settings):
        return -1
    return 0


def _is_pressed(stats: ScaleStats, settings: AutoscaleSettings) -> bool:
    return stats.usage > settings.up or (
        settings.up_batches > 0 and stats.waiting_batches > settings.up_batches * stats.workers
    )


def _is_slack(stats: ScaleStats, settings: AutoscaleSettings) -> bool:
    return (
        stats.usage < settings.down
        and not stats.waiting_batches
        and stats.busy <= HEADROOM * (stats.workers - 1)
    )


def reason(step: Step, stats: ScaleStats, settings: AutoscaleSettings) -> str:
    """Why `decide` took this step, in figures."""
    held = f"{stats.usage:.0%} of the room is held"
    workers = _workers(stats.workers)
    if step == 1 and stats.usage > settings.up:
        return f"{held}, more than {settings.up:.0%}"
    if step == 1 and _is_pressed(stats, settings):
        return f"{stats.waiting_batches} full batches wait for {workers}; {held}"
    if step == 1:
        return f"{workers}, fewer than the least"
    if step == -1 and _is_slack(stats, settings):
        return f"{held}, less than {settings.down:.0%}; of {workers} {stats.busy:.1f} were busy"
    if step == -1:
        return f"{workers}, more than the most"
    return ""


def _workers(count: int) -> str:
    return f"{count} worker" if count == 1 else f"{count} workers"


class Autoscaler:
    """What one pipeline's scaling remembers from look to look; `idle` workers have no work now."""

    def __init__(self, settings: AutoscaleSettings, now: float) -> None:
        self._settings = settings
        self._changed_at = float("-inf")
        self._looked_at = now
        self.idle = 0
        # Seconds that workers were idle, all added up, and until when that was counted.
        self._idle_s = 0.0
        self._counted_at = now

    def configure(self, settings: AutoscaleSettings) -> None:
        self._settings = settings

    def rests(self, change: int, now: float) -> None:
        """So many workers more, or fewer, have nothing to do from now on."""
        self._idle_s += self.idle * (now - self._counted_at)
        self._counted_at = now
        self.idle += change

    def due_s(self, now: float) -> float:
        """Seconds until the next look."""
        return max(0.0, self._looked_at + self._settings.interval_s - now)

    def busy(self, workers: int, now: float) -> float:
        """How many of the workers were at work on average since this was last asked."""
        self.rests(0, now)
        since_s, self._looked_at = now - self._looked_at, now
        idle_s, self._idle_s = self._idle_s, 0.0
        idle = idle_s / since_s if since_s > 0 else float(self.idle)
        return min(max(workers - idle, 0.0), float(workers))

    def since_change_s(self, now: float) -> float:
        return now - self._changed_at

    def changed(self, now: float) -> None:
        """The number of workers was changed."""
        self._changed_at = now
