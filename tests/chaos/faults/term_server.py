"""SIGTERM under load, and a new server: a drain, and nothing to adopt unless it was cut short."""

from __future__ import annotations

import signal

from tests.chaos.faults.base import Fault
from tests.chaos.load import Load
from tests.chaos.modes import set_mode
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import Watch


class TermServer(Fault):
    holds_s = (0.0, 0.5)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        if self.rng.random() < 0.5:
            set_mode(world.third_party, "fail")
        number = self.rng.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
        world.server.send(number)
        if self.rng.random() < 0.3:
            world.server.send(number)
        status = world.server.wait(45)
        if status not in (0, 1) or (status and '"imbalance":0' not in world.server.output):
            oracle.violated(f"the server ended with {status} after {signal.Signals(number).name}")
        set_mode(world.third_party, "ok")
        world.start()
