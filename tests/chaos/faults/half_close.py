"""One side of each connection to PostgreSQL is told that the other has ended."""

from __future__ import annotations

from tests.chaos.faults.proxied import Proxied
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import Watch


class HalfClose(Proxied):
    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            self.proxy(world).half_close(self.rng.choice(("client", "server")))
            self.pause(0.1, 0.4)
