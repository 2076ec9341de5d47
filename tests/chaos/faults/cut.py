"""Every connection to PostgreSQL is reset, and new ones too; once in a run for half a minute."""

from __future__ import annotations

from tests.chaos.faults.proxied import Proxied
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import BREAKER, RETRY, Watch

LONG_S = 30.0


class Cut(Proxied):
    shows = (RETRY, BREAKER)
    holds_s = (0.5, 2.5)

    def duration_s(self) -> float:
        return LONG_S if self.long else super().duration_s()

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        self.proxy(world).cut()
