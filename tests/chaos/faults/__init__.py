"""The faults, one kind a file."""

from __future__ import annotations

from tests.chaos.faults.base import Fault, Unavailable
from tests.chaos.faults.clock_jumps import ClockJumps
from tests.chaos.faults.commit_adopted import CommitAdopted
from tests.chaos.faults.commit_lost import CommitLost
from tests.chaos.faults.cut import Cut
from tests.chaos.faults.disk_full_files import DiskFullFiles
from tests.chaos.faults.disk_full_log import DiskFullLog
from tests.chaos.faults.half_close import HalfClose
from tests.chaos.faults.kill_postgres import KillPostgres
from tests.chaos.faults.kill_server import KillServer
from tests.chaos.faults.kill_worker import KillWorker
from tests.chaos.faults.locked import Locked
from tests.chaos.faults.poison import Poison
from tests.chaos.faults.sink_fails import SinkFails
from tests.chaos.faults.sink_hangs import SinkHangs
from tests.chaos.faults.stall import Stall
from tests.chaos.faults.term_server import TermServer
from tests.chaos.faults.torn_log import TornLog

FAULTS: dict[str, type[Fault]] = {
    "kill_server": KillServer,
    "kill_worker": KillWorker,
    "term_server": TermServer,
    "kill_postgres": KillPostgres,
    "cut": Cut,
    "stall": Stall,
    "half_close": HalfClose,
    "commit_lost": CommitLost,
    "commit_adopted": CommitAdopted,
    "disk_full_log": DiskFullLog,
    "disk_full_files": DiskFullFiles,
    "sink_hangs": SinkHangs,
    "sink_fails": SinkFails,
    "poison": Poison,
    "locked": Locked,
    "clock_jumps": ClockJumps,
    "torn_log": TornLog,
}

__all__ = ["FAULTS", "Fault", "Unavailable"]
