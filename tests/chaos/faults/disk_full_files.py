"""The disk under the file sink is full: its records wait in the log."""

from __future__ import annotations

from tests.chaos.disk import SmallDisk
from tests.chaos.faults.base import Fault
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import RETRY, Watch

_MEBIBYTES = 16


class DiskFullFiles(Fault):
    combines = True
    shows = (RETRY,)
    holds_s = (0.5, 2.0)
    _disk: SmallDisk | None = None

    def before_start(self, world: World) -> None:
        self._disk = SmallDisk(world.files, mebibytes=_MEBIBYTES)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        assert self._disk is not None
        pids = [worker.pid for worker in world.workers()]
        self._disk.fill(pids, spare_bytes=self.rng.choice((0, 700, 20_000)))

    def heal(self, world: World) -> None:
        if self._disk is not None:
            self._disk.free()

    def release(self) -> None:
        if self._disk is not None:
            self._disk.release()
