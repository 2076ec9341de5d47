"""The log of a killed server is damaged: a flipped byte, a torn tail, a segment of no length.

The oracle may then miss the records of the frames that were hit, and of no others: a frame holds
one request's records, so the ids around the damage name the requests.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.chaos.faults.base import Fault
from tests.chaos.load import Load
from tests.chaos.modes import set_mode
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import ADOPTED, CORRUPT, Watch

_ID = re.compile(rb'"id": ?"(chaos-[0-9a-z-]+)"')


class TornLog(Fault):
    kills = True
    shows = (ADOPTED, CORRUPT)
    holds_s = (0.0, 0.5)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        # What no sink has taken yet is read again, damage and all.
        set_mode(world.third_party, "hang")
        self.pause(0.8, 1.5)
        world.kill()
        segments = sorted(
            path for path in world.wal.rglob("*.seg") if _ID.search(path.read_bytes())
        )
        if not segments:
            oracle.violated(f"no segment in {world.wal} holds a record that was acknowledged")
        else:
            damage = self.rng.choice((self._flip, self._flip, self._tear, self._empty))
            damage(self.rng.choice(segments), oracle)
        set_mode(world.third_party, "ok")
        world.start()

    def _flip(self, path: Path, oracle: Oracle) -> None:
        data = bytearray(path.read_bytes())
        found = list(_ID.finditer(data))
        for _ in range(self.rng.randrange(1, 4)):
            at = self.rng.randrange(found[0].start(), found[-1].end())
            before = [one for one in found if one.start() <= at][-1:]
            after = [one for one in found if one.start() > at][:1]
            hit = [one.group(1).decode() for one in before + after]
            data[at] ^= 1 << self.rng.randrange(8)
            oracle.excuse_requests_of(hit)
        path.write_bytes(data)

    def _tear(self, path: Path, oracle: Oracle) -> None:
        data = path.read_bytes()
        found = list(_ID.finditer(data))
        at = self.rng.randrange(found[len(found) // 2].start(), found[-1].end())
        lost = [one for one in found if one.end() > at]
        before = [one for one in found if one.end() <= at][-1:]
        oracle.excuse_requests_of(one.group(1).decode() for one in before + lost)
        with path.open("r+b") as file:
            file.truncate(at)

    def _empty(self, path: Path, oracle: Oracle) -> None:
        found = _ID.finditer(path.read_bytes())
        oracle.excuse_requests_of(one.group(1).decode() for one in found)
        path.write_bytes(b"")
