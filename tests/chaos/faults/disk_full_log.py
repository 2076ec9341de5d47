"""The disk under the log is full: no acknowledgement is given that the log cannot keep."""

from __future__ import annotations

import random
from pathlib import Path

from tests.chaos.disk import SmallDisk
from tests.chaos.faults.base import Fault
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import Wishes, World
from tests.chaos.watch import LOG_FAILED, Watch

_MEBIBYTES = 24


class DiskFullLog(Fault):
    kills = True  # at times the server is killed while its disk is full
    shows = (LOG_FAILED,)
    holds_s = (1.0, 2.5)

    def __init__(self, *, rng: random.Random, directory: Path, long: bool) -> None:
        super().__init__(rng=rng, directory=directory, long=long)
        self._disk: SmallDisk | None = None

    def prepare(self) -> Wishes:
        self._disk = SmallDisk(self.directory / "log-disk", mebibytes=_MEBIBYTES)
        return Wishes(environ={"COLLECTOR_WAL_DIRECTORY": str(self._disk.path / "wal")})

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        assert self._disk is not None
        pids = [world.server.pid, *(worker.pid for worker in world.workers())]
        self._disk.fill(pids, spare_bytes=self.rng.choice((0, 0, 5_000, 100_000)))
        self.pause(*self.holds_s)
        if self.rng.random() < 0.3:
            world.kill()
            self._disk.free()
            world.start()

    def duration_s(self) -> float:
        return 0.0

    def heal(self, world: World) -> None:
        if self._disk is not None:
            self._disk.free()

    def release(self) -> None:
        if self._disk is not None:
            self._disk.release()
