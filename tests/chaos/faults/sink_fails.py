"""A sink that fails three writes in ten, or every write for a while."""

from __future__ import annotations

from tests.chaos.faults.base import Fault
from tests.chaos.load import Load
from tests.chaos.modes import set_mode
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import BREAKER, RETRY, Watch


class SinkFails(Fault):
    combines = True
    shows = (RETRY, BREAKER)
    holds_s = (2.0, 3.5)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        set_mode(world.third_party, "fail")
        if self.rng.random() < 0.7:
            self.pause(0.5, 1.0)
            set_mode(world.third_party, "dead")

    def heal(self, world: World) -> None:
        set_mode(world.third_party, "ok")
