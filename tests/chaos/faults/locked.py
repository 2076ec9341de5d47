"""Somebody else holds the records database: a long transaction, a migration, a backup."""

from __future__ import annotations

from contextlib import ExitStack

from tests.chaos.faults.base import Fault
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import Watch
from tests.servers.installation import records_locked


class Locked(Fault):
    holds_s = (0.5, 7.0)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        self._lock = world.stack.enter_context(ExitStack())
        self._lock.enter_context(records_locked(world.server))

    def heal(self, world: World) -> None:
        self._lock.close()
