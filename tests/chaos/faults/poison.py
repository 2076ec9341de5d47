"""One record in a thousand that the records table refuses, and that the third party refuses too."""

from __future__ import annotations

from tests.chaos.faults.base import Fault
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import World
from tests.chaos.watch import LETTER, Watch

_POSTGRESQL = (
    "ALTER TABLE ingest_logrecord ADD CONSTRAINT chaos_no_poison CHECK (payload->'poison' IS NULL)"
)
_SQLITE = (
    "CREATE TRIGGER chaos_no_poison BEFORE INSERT ON ingest_logrecord "
    "WHEN json_extract(NEW.payload, '$.poison') IS NOT NULL "
    "BEGIN SELECT RAISE(ABORT, 'poison is not taken here'); END"
)


class Poison(Fault):
    combines = True
    shows = (LETTER,)
    holds_s = (1.5, 2.5)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        world.execute(_POSTGRESQL if world.cluster is not None else _SQLITE)
        oracle.poison_refused = True
        load.poison = True
