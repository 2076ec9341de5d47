"""SIGKILL of one of two workers; the other, or its successor, adopts the log."""

from __future__ import annotations

from tests.chaos.faults.base import Fault
from tests.chaos.load import Load
from tests.chaos.modes import set_mode
from tests.chaos.oracle import Oracle
from tests.chaos.server import Wishes, World
from tests.chaos.watch import ADOPTED, Watch


class KillWorker(Fault):
    kills = True
    shows = (ADOPTED,)

    def prepare(self) -> Wishes:
        return Wishes(workers=2)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        if self.rng.random() < 0.7:
            set_mode(world.third_party, "hang")
            self.pause(0.2, 0.6)
        self.rng.choice(world.workers()).kill()

    def heal(self, world: World) -> None:
        set_mode(world.third_party, "ok")
