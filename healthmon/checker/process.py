"""A checker process: what runs in it, in what order it starts, and how it ends.

The main thread runs the event loop; beside it are the threads of the engine, the leases, the
loader, what leaves (`Outbound`), heartbeats and housekeeping.  The services of every process (the
heart, the engine) are started before and stopped after.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connections

from control.databases.deadline import answered_within
from control.ports.readiness import register_readiness
from control.ports.stats import register_stats_part, unregister_stats_part
from control.processes.heart import drop_stale_connections
from healthmon import metrics
from healthmon.checker.evenclock import EvenClock
from healthmon.checker.figures import Figures
from healthmon.checker.follower import Follower
from healthmon.checker.former import FormerLogs
from healthmon.checker.gate import NetworkGate
from healthmon.checker.housekeeping import Housekeeping
from healthmon.checker.judge import Judge
from healthmon.checker.limits import Limits
from healthmon.checker.outbound import Outbound
from healthmon.checker.runner import Runner
from healthmon.checker.stall import StallWatch
from healthmon.checker.statuses import Heard, Statuses
from healthmon.checker.windows import Windows
from healthmon.checker.witnesses import is_beyond
from healthmon.heartbeats.feed import HeartbeatFeed
from healthmon.heartbeats.unheard import Unheard
from healthmon.leases.keeper import Keeper
from healthmon.leases.store import LeaseStore
from healthmon.probes.kind import Result
from healthmon.probes.tools import tools_from_settings
from pipeline.engine import Engine
from pipeline.runtime.clock import Clock, SystemClock
from sinks import service as sinks

logger = logging.getLogger(__name__)

BEAT_S = 1.0
# So long the heartbeats' thread waits for a database that has fallen silent.
ANSWER_S = 20.0
# A stop lets probes under way end for so long, and leaves the rest of the time to the drain.
FINISH_S = 10.0


class CheckerProcess:
    """One life of a checker; `run` returns when `stop` was asked for and everything has ended."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.id = uuid.uuid4().hex
        self._stop_asked: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- life ------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """End soon; from any thread or signal handler."""
        loop, asked = self._loop, self._stop_asked
        if loop is not None and asked is not None:
            loop.call_soon_threadsafe(asked.set)

    async def run(self, *, finish_s: float = FINISH_S) -> None:
        """Probe until asked to stop; the process's services run already."""
        self._stop_asked = asyncio.Event()
        self.make()
        self.start()
        try:
            while not self._stop_asked.is_set():
                self._beat()
                try:
                    await asyncio.wait_for(self._stop_asked.wait(), BEAT_S)
                except TimeoutError:
                    continue
        finally:
            await self.end(finish_s)

    def make(
        self, *, scheduled: bool = True, heard: Callable[[str, Result], None] | None = None
    ) -> None:
        """The parts, not yet running; call it on the loop.

        Without `scheduled` targets are probed only when asked for; `heard(target, result)` is told
        of each result.
        """
        self._loop = loop = asyncio.get_running_loop()
        monitoring = settings.COLLECTOR.monitoring
        self.tools = tools_from_settings()
        self.stalls = StallWatch(monotonic=self._clock.monotonic, on_stall=metrics.count_stall)
        self.gate = NetworkGate(
            witnesses=monitoring.network_witnesses, tools=self.tools, clock=self._clock
        )
        self.outbound = Outbound(
            engine=_engine, count_dropped=metrics.count_dropped, clock=self._clock
        )
        self.time = EvenClock(self._clock)
        figures = Figures()
        self.limits = Limits(
            total=monitoring.probe_concurrency,
            per_host=monitoring.probe_per_host,
            per_group=monitoring.probe_per_group,
        )
        self.runner = Runner(
            tools=self.tools,
            limits=self.limits,
            judge=Judge(stalls=self.stalls, gate=self.gate),
            statuses=Statuses(
                heard=Heard(
                    result=self.outbound.result if heard is None else self._telling(heard),
                    flip=self.outbound.flip,
                    count=metrics.count_probe,
                    status=metrics.note_status,
                    certificate=lambda target_id, us: self.follower.certificate(target_id, us),
                ),
                time=self.time,
                figures=figures,
                checker=self.id,
                epoch_of=lambda slot: self.keeper.epochs().get(slot),
            ),
            time=self.time,
            figures=figures,
            scheduled=scheduled,
        )
        self.windows = Windows(told=self.runner.in_window)
        self.keeper = Keeper(
            checker_id=self.id,
            store=LeaseStore(lease_s=monitoring.lease_s),
            lease_s=monitoring.lease_s,
            on_taken=lambda slots: self.follower.nudge(),
            on_lost=lambda slots: self.follower.nudge(),
            before_taken=FormerLogs(
                own_id=self.id,
                engine=_engine,
                wal=settings.COLLECTOR.wal_directory,
                clock=self._clock,
                wait_s=monitoring.lease_s / 5,
            ).deliver,
            clock=self._clock,
            host=socket.gethostname(),
            pid=os.getpid(),
            log_id=_engine().log_id,
        )
        self.follower = Follower(
            runner=self.runner,
            windows=self.windows,
            epochs=self.keeper.epochs,
            loop=loop,
            now_us=self.time.now_us,
        )
        self.feed = HeartbeatFeed(held=self.keeper.epochs, clock=self._clock)
        self.unheard = Unheard(
            hear=self.runner.heard_of, held=self.keeper.epochs, clock=self._clock
        )
        self.housekeeping = Housekeeping(
            is_ours=lambda: 0 in self.keeper.epochs(), clock=self._clock
        )
        self._feeding = threading.Event()
        self._feeder = threading.Thread(
            target=self._run_feed, name="checker-heartbeats", daemon=True
        )

    def _telling(
        self, heard: Callable[[str, Result], None]
    ) -> Callable[[int, str, int, Result], None]:
        def take(target_id: int, target: str, at_us: int, result: Result) -> None:
            self.outbound.result(target_id, target, at_us, result)
            heard(target, result)

        return take

    def start(self) -> None:
        """Begin; on the loop."""
        assert self._loop is not None
        self.stalls.start(self._loop)
        self.outbound.start()
        self.keeper.start()
        self.follower.start()
        self.housekeeping.start()
        self._feeder.start()
        register_stats_part("checker", self.report)
        register_readiness("checker", self._unready)
        logger.info("checker started", extra={"checker": self.id})

    async def end(self, finish_s: float) -> None:
        """Probes first, then what they found, then the leases: nobody probes without one."""
        await self.runner.stop(finish_s)
        self.stalls.stop()
        await asyncio.to_thread(self._end_threads)
        logger.info("checker stopped", extra={"checker": self.id, **self.report()})

    def _end_threads(self) -> None:
        self._feeding.set()
        self.follower.stop(5.0)
        self.housekeeping.stop(5.0)
        self.outbound.stop(5.0)
        _flush()
        self.keeper.stop(release=True)
        self._feeder.join(2.0)
        unregister_stats_part("checker")
        connections.close_all()

    # --- beats -----------------------------------------------------------------------------

    def _beat(self) -> None:
        """Each second, on the loop."""
        self.unheard.beat()
        self.follower.beat()
        self.gate.beat()
        moved_s = self.time.correct()
        if abs(moved_s) > 1.0:
            logger.warning(
                "the machine's clock was set; the schedule goes on as it was",
                extra={"seconds": round(moved_s, 3)},
            )
        metrics.note_checker(
            in_flight=self.runner.in_flight,
            parked=self.runner.parked,
            waiting_results=self.outbound.waiting_results,
            waiting_flips=self.outbound.waiting_flips,
            loop_lag_s=self.stalls.lag_s,
        )

    def _run_feed(self) -> None:
        """Each second, on a thread: what was heard of heartbeat targets, or was not."""
        failing = ""
        try:
            while not self._feeding.wait(BEAT_S):
                try:
                    with answered_within(ANSWER_S):
                        drop_stale_connections()
                        found = self.feed.poll()
                except Exception as error:
                    if failing != str(error):
                        failing = str(error)
                        logger.warning("heartbeats cannot be read", extra={"error": failing})
                    continue
                failing = ""
                for one in found:
                    self._on_loop(self.unheard.tell, one)
        finally:
            connections.close_all()

    def _on_loop(self, call: Callable[..., Any], *args: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            return  # the loop has ended

    # --- what others ask -------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """This checker's figures, for the process's row and the admin."""
        figures, leases = self.runner.figures, self.keeper.status()
        return {
            "targets": len(self.runner.entries),
            "probes": figures.probes,
            "missed_windows": figures.missed_windows,
            "voided": figures.voided,
            "flips": figures.flips,
            "in_flight": self.runner.in_flight,
            "in_flight_most": figures.in_flight_most,
            "lag_p50_s": round(figures.lag_s(0.5), 4),
            "lag_p99_s": round(figures.lag_s(0.99), 4),
            "parked": self.runner.parked,
            "crowded": self.limits.crowded(3),
            "waiting_results": self.outbound.waiting_results,
            "waiting_flips": self.outbound.waiting_flips,
            "loop_lag_s": round(self.stalls.lag_s, 3),
            "stalls": self.stalls.stalls,
            "beyond": sum(
                is_beyond(entry.spec.host) for entry in list(self.runner.entries.values())
            ),
            "witnesses": len(self.gate.witnesses()),
            "slots": leases.held,
            "checkers": leases.living,
            "database_error": leases.database_error,
        }

    def _unready(self) -> str | None:
        return None if self.keeper.epochs() else "this checker holds no slots"


def _engine() -> Engine:
    return sinks.current().engine


def _flush() -> None:
    """Have what was offered stored now, as far as that goes; the drain sees to the rest."""
    try:
        _engine().flush(5.0)
    except Exception as error:
        logger.warning("what was found is left to the drain", extra={"error": str(error)})
