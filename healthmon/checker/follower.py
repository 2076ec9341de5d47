"""Brings what the rows say to the runner, and what the runner learns of certificates to the rows.

Two halves.  On the thread "checker-loader": `_run` polls the loader every POLL_S, or when nudged.
On the event loop: `_apply` hands the news over.  What passes between them goes by
`call_soon_threadsafe`; `_nudged` wakes the thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import Error as DatabaseProblem
from django.db import connections

from control.databases.causes import cause_of
from control.databases.deadline import answered_within
from control.processes.garbage import settle_memory
from control.processes.heart import drop_stale_connections
from healthmon.checker.loader import POLL_S, Loader, News, StoredState
from healthmon.checker.runner import Runner
from healthmon.checker.windows import Windows
from healthmon.targets.models import slot_of
from healthmon.targets.spec import TargetSpec
from healthmon.truth import machine
from healthmon.truth.machine import Memory
from healthmon.truth.models import TargetState

logger = logging.getLogger(__name__)

RECONCILE_BEATS = 5
# The first load of ten thousand targets takes a fraction of it.
ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was known of a target whose slot was given up."""

    epoch: int
    memory: Memory
    blind_since_s: float


class Follower:
    def __init__(
        self,
        *,
        runner: Runner,
        windows: Windows,
        epochs: Callable[[], dict[int, int]],
        loop: asyncio.AbstractEventLoop,
        now_us: Callable[[], int],
        loader: Loader | None = None,
    ) -> None:
        self._runner = runner
        self._windows = windows
        self._epochs = epochs
        self._loop = loop
        self._now_us = now_us
        self._loader = loader or Loader()
        self._nudged = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._failing = ""
        self._kept: dict[int, _Kept] = {}
        self._certificates: dict[int, int] = {}
        self._beats = 0
        # The slots whose targets the runner has.
        self.applied: dict[int, int] = {}
        self._settled = False  # whether what was loaded first is left out of collections

    # --- the loader's thread ---------------------------------------------------------------

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="checker-loader", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Look at the rows now: slots were taken or lost, or somebody asked."""
        self._nudged.set()

    def stop(self, deadline_s: float) -> None:
        self._stopping = True
        self._nudged.set()
        if self._thread is not None:
            self._thread.join(deadline_s)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self.poll()
                self._nudged.wait(POLL_S)
                self._nudged.clear()
        finally:
            connections.close_all()

    def poll(self) -> None:
        """One look at the rows; what it finds is on its way to the loop when this returns."""
        epochs = self._epochs()
        removed = self._loader.follow(epochs)
        if removed:
            self._hand_over(self._give_up, removed)
        try:
            with answered_within(ANSWER_S):
                drop_stale_connections()
                news = self._loader.poll()
                self._store_certificates()
        except DatabaseProblem as error:
            words = cause_of(error)
            if words != self._failing:
                self._failing = words
                logger.warning(
                    "targets cannot be read; the checker goes on with those it knows",
                    extra={"cause": words},
                )
            return
        if self._failing:
            self._failing = ""
            logger.info("targets can be read again")
        self._hand_over(self._apply, news, epochs)

    def _hand_over(self, call: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            if not self._stopping:  # otherwise the loop has ended, and nobody wants it
                raise

    def _store_certificates(self) -> None:
        known, self._certificates = self._certificates, {}
        for target_id, expires_us in known.items():
            at = datetime.fromtimestamp(expires_us / 1e6, UTC)
            TargetState.objects.filter(pk=target_id).update(cert_expires_at=at)

    # --- the event loop --------------------------------------------------------------------

    def certificate(self, target_id: int, expires_us: int) -> None:
        """A target's certificate ends then; it is written with the next poll."""
        self._certificates = {**self._certificates, target_id: expires_us}

    def _give_up(self, removed: set[int]) -> None:
        for target_id in removed:
            entry = self._runner.remove(target_id)
            if entry is not None:
                self._kept[target_id] = _Kept(entry.epoch, entry.memory, entry.blind_since_s)

    def _apply(self, news: News, epochs: dict[int, int]) -> None:
        runner = self._runner
        for target_id in news.removed:
            runner.remove(target_id)
            self._kept.pop(target_id, None)
        states = news.states
        for spec in news.specs:
            epoch = epochs.get(spec.slot)
            if epoch is None:
                continue
            state = states.pop(spec.id, None)
            memory, blind_since_s = memory_of(state), None
            kept = self._kept.pop(spec.id, None)
            if kept is not None and kept.epoch == epoch and kept.memory.seq >= memory.seq:
                # Nobody else had it meanwhile: what was known is still true, up to then.
                memory, blind_since_s = kept.memory, kept.blind_since_s
            try:
                runner.put(spec, memory, epoch=epoch, blind_since_s=blind_since_s)
                if news.windows is None:
                    runner.in_window(spec.id, self._windows.title_for(spec))
            except Exception:  # a row that was written past every check must cost only itself
                logger.exception("a target cannot be followed", extra={"target": spec.name})
        for target_id, state in states.items():
            runner.rebase(target_id, memory_of(state))
        if news.windows is not None:
            self._windows.replace(news.windows, self._specs(), self._now())
        self._kept = {one: kept for one, kept in self._kept.items() if slot_of(one) not in epochs}
        if not self._settled and news.specs:
            self._settled = True
            settle_memory()
        self.applied = epochs

    def beat(self) -> None:
        """Once a second: windows open and close."""
        self._windows.beat(self._specs(), self._now())
        self._beats += 1
        if self._beats % RECONCILE_BEATS == 0:
            self._runner.reconcile(self._windows.title_for)

    def _specs(self) -> list[TargetSpec]:
        return [entry.spec for entry in self._runner.entries.values()]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_us() / 1e6, UTC)


def memory_of(state: StoredState | None) -> Memory:
    """What to go on from: the stored state, or nothing at all."""
    if state is None:
        return Memory()
    return machine.restored(
        status=state.status,
        since_us=state.since_us,
        seq=state.seq,
        before=state.before,
        flapping=state.flapping,
    )
