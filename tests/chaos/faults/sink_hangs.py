"""A sink that does not answer, and may not even hear that it is to be aborted."""

from __future__ import annotations

from tests.chaos.faults.base import Fault
from tests.chaos.load import Load
from tests.chaos.modes import set_mode
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import Watch


class SinkHangs(Fault):
    combines = True
    holds_s = (1.0, 7.0)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        set_mode(world.third_party, self.rng.choice(("hang", "deaf")))

    def heal(self, world: World) -> None:
        set_mode(world.third_party, "ok")
