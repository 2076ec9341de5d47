"""What every fault is: what it needs, how it strikes, how it heals, and what it must be seen to do.

`prepare` runs before the server starts, `strike` and `heal` on the round's thread under load.
A fault object serves one round.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import ClassVar

from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import Wishes, World
from tests.chaos.watch import Watch

BOTH = ("sqlite", "postgresql")
POSTGRESQL = ("postgresql",)


class Unavailable(Exception):
    """This machine does not allow the fault; the text says what it would need."""


class Fault:
    databases: ClassVar[tuple[str, ...]] = BOTH
    kills: ClassVar[bool] = False
    """A process ends without warning: what only its memory held may be gone."""
    combines: ClassVar[bool] = False
    """At times the server is killed, and started again, while the fault lasts."""
    shows: ClassVar[tuple[str, ...]] = ()
    """What /stats must have shown in at least one round of this fault in a run."""
    holds_s: ClassVar[tuple[float, float]] = (0.5, 1.5)
    """How long it lasts before it is healed."""

    def __init__(self, *, rng: random.Random, directory: Path, long: bool) -> None:
        self.rng = rng
        self.directory = directory
        self.long = long

    def prepare(self) -> Wishes:
        return Wishes()

    def before_start(self, world: World) -> None:
        """The files are there, the server is not yet."""

    def duration_s(self) -> float:
        return self.rng.uniform(*self.holds_s)

    def pause(self, low_s: float, high_s: float) -> None:
        time.sleep(self.rng.uniform(low_s, high_s))

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        raise NotImplementedError

    def heal(self, world: World) -> None:
        """Make all well again; also called when the strike failed, so it must be harmless."""

    def release(self) -> None:
        """Let go of what `prepare` took, after the server has ended."""
