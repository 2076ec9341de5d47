"""PostgreSQL dies, by SIGKILL or at once on request, and comes back on the same files."""

from __future__ import annotations

import signal

from tests.chaos.faults.base import POSTGRESQL, Fault
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import RETRY, Watch


class KillPostgres(Fault):
    combines = True
    databases = POSTGRESQL
    shows = (RETRY,)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        assert world.cluster is not None
        world.cluster.kill(self.rng.choice((signal.SIGKILL, signal.SIGQUIT)))

    def heal(self, world: World) -> None:
        assert world.cluster is not None
        world.cluster.revive()
