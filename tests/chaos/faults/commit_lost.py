"""The connection ends between PostgreSQL's COMMIT and its answer: stored, and nobody knows."""

from __future__ import annotations

from tests.chaos.faults.proxied import Proxied
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import ALREADY, Watch

COMMIT = b"COMMIT\0"
_ANSWER_S = 10.0


class CommitLost(Proxied):
    shows = (ALREADY,)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            held = self.proxy(world).hold_answer_to(COMMIT)
            if not held.wait(_ANSWER_S):
                oracle.violated("no COMMIT went to PostgreSQL under load")
            self.pause(0.0, 0.1)
            held.cut()
