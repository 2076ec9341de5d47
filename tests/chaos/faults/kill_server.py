"""SIGKILL of the whole server, and a new one on the same files."""

from __future__ import annotations

from tests.chaos.faults.base import Fault
from tests.chaos.load import Load
from tests.chaos.modes import set_mode
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import ADOPTED, Watch


class KillServer(Fault):
    kills = True
    shows = (ADOPTED,)
    holds_s = (0.0, 0.5)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        if self.rng.random() < 0.7:
            # A sink that stands still leaves the dead log something to deliver.
            set_mode(world.third_party, "hang")
            self.pause(0.2, 0.6)
        world.kill()
        set_mode(world.third_party, "ok")
        if self.rng.random() < 0.3:
            world.start()
            self.pause(0.0, 0.3)
            world.kill()
        world.start()
