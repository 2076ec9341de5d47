"""A COMMIT is held, the server killed, its log adopted; then the zombie's COMMIT passes or is lost.

Held before PostgreSQL sees it, the COMMIT leaves a transaction open that owns the batch's proof:
the adopter's delivery of the same batch waits for it and must find it stored, or store it itself.
"""

from __future__ import annotations

from tests.chaos.faults.commit_lost import COMMIT
from tests.chaos.faults.proxied import Proxied
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import ADOPTED, ALREADY, Watch

_ANSWER_S = 10.0


class CommitAdopted(Proxied):
    kills = True
    combines = False
    shows = (ADOPTED, ALREADY)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        proxy = self.proxy(world)
        hold = self.rng.choice((proxy.hold_request, proxy.hold_answer_to))
        held = hold(COMMIT)
        if not held.wait(_ANSWER_S):
            oracle.violated("no COMMIT went to PostgreSQL under load")
        world.kill()
        world.start()
        self.pause(0.5, 2.0)
        if self.rng.random() < 0.5:
            held.release()
        else:
            held.cut()
