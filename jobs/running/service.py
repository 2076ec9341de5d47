"""The runner of a process: started with role `jobs`, and with a server that runs jobs too.

Started after the heart and the catalogue; stopped at the same time as the sinks drain.
`_lock` guards which runner there is.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from django.conf import settings

from control.ports.readiness import register_readiness, unregister_readiness
from control.ports.stats import register_stats_part, unregister_stats_part
from control.processes.identity import current_identity
from jobs.downstream.calls import Downstreams
from jobs.execution.executor import Executor
from jobs.execution.handlers import Handlers
from jobs.running.runner import WRITE_S, Runner
from jobs.running.settling import Settling
from jobs.store.database import store
from jobs.types import catalogue
from jobs.webhooks.composing import compose
from jobs.webhooks.policy import policy
from pipeline.runtime.clock import SystemClock

logger = logging.getLogger(__name__)

ORDER = 50
PART = "jobs"
ROLE = "jobs"
# Of the time that it is given to stop, for giving back what did not end.
KEPT_S = 1.0


class RunnerService:
    name = "jobs"
    order = ORDER

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._runner: Runner | None = None
        self.complete = True
        """Whether everything ended, or was given back, when the last runner stopped."""

    @property
    def runner(self) -> Runner | None:
        return self._runner

    def start(self, role: str) -> None:
        if role != ROLE and not (role == "server" and settings.COLLECTOR.jobs.in_server):
            return
        with self._lock:
            if self._runner is not None:
                return
            self._runner = runner = make_runner()
        runner.start()
        register_stats_part(PART, runner.report)
        if role == ROLE:
            register_readiness(PART, runner.unready)

    def stop(self, deadline_s: float) -> None:
        with self._lock:
            runner = self._runner
        if runner is None:
            return
        unregister_stats_part(PART)
        unregister_readiness(PART)
        finish_s = min(settings.COLLECTOR.jobs.stop_s, max(0.0, deadline_s - KEPT_S - WRITE_S))
        self.complete = runner.stop(finish_s=finish_s)
        # Not sooner: whoever hurries asks for it while it stops.
        with self._lock:
            self._runner = None

    def hurry(self) -> None:
        """A second Ctrl-C: give back what runs, now."""
        runner = self._runner
        if runner is not None:
            runner.hurry()

    def after_fork(self) -> None:
        """The parent's threads are not here."""
        self._reset()

    def report(self) -> dict[str, Any]:
        runner = self._runner
        return dict(runner.report()) if runner is not None else {}


def make_runner() -> Runner:
    """A runner of this installation, not yet running.  Raises PolicyError."""
    jobs = settings.COLLECTOR.jobs
    clock = SystemClock()
    identity = current_identity()
    calls = Downstreams(
        clock=clock,
        policy=policy(),
        living_runners=lambda: runner.keeper.share,
        known=lambda: catalogue.current().downstreams,
    )
    executor = Executor(
        call=calls.call,
        handlers=Handlers(patterns=jobs.handlers),
        clock=clock,
        max_result_bytes=jobs.max_result_bytes,
    )

    def close() -> None:
        executor.close()
        calls.close()

    runner = Runner(
        store=store(),
        executor=executor,
        catalogue=catalogue.current,
        settling=Settling(compose=compose),
        clock=clock,
        min_workers=jobs.min_workers,
        max_workers=jobs.max_workers,
        poll_s=jobs.poll_s,
        lease_s=jobs.lease_s,
        process=str(identity.id) if identity is not None else "",
        states=calls.states,
        close=close,
    )
    return runner


_service = RunnerService()


def current() -> RunnerService:
    """This process's service."""
    return _service
