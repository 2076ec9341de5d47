"""A PostgreSQL of the run's own, that can be killed and started again on the same files.

One per run, a database per round. Used from the round's thread only.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil

from tests.servers.postgres import Postgres

_START_TRIES = 5


class Cluster(Postgres):
    def start(self) -> str:
        # Never the suite's shared server: this one is going to be killed.
        if not self.url:
            self.url = self._start_from_wheel()
        return self.url

    @property
    def _postmaster(self) -> psutil.Process:
        pid_file = Path(self._server.pgdata) / "postmaster.pid"
        return psutil.Process(int(pid_file.read_text().splitlines()[0]))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """SIGKILL the postmaster, or SIGQUIT it for an immediate shutdown; wait for all of it."""
        postmaster = self._postmaster
        family = [postmaster, *postmaster.children(recursive=True)]
        os.kill(postmaster.pid, number)
        if number == signal.SIGKILL:
            for one in family[1:]:
                # A machine that dies takes the backends too; an orphan would still commit.
                try:
                    one.kill()
                except psutil.NoSuchProcess:
                    pass
        psutil.wait_procs(family, timeout=30)

    def revive(self) -> None:
        for attempt in range(_START_TRIES):
            try:
                self._server.ensure_postgres_running()
                return
            except subprocess.SubprocessError:
                # pg_ctl gives up after 10 s, which recovery can need on a busy machine.
                if attempt == _START_TRIES - 1:
                    raise
