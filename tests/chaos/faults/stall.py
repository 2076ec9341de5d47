"""No byte passes between the server and PostgreSQL, and nobody is told."""

from __future__ import annotations

from tests.chaos.faults.proxied import Proxied
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import Watch


class Stall(Proxied):
    holds_s = (0.5, 6.0)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        self.proxy(world).stall()
