"""Carrying redrives out: a thread a task, which sends one chunk after another to the engine.

`_lock` guards the threads.  A chunk's result comes on a worker's thread into the queue of its
task's thread, which alone writes it down and, while it waits, renews the lease.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from django.db import Error as DatabaseProblem

from pipeline import deadletter
from pipeline.redrive import Redriven
from sinks.deadletters import tasks
from sinks.deadletters.store import own_connection
from sinks.deadletters.tasks import Chunk, Claim, Fenced
from sinks.models import SinkConfig

logger = logging.getLogger(__name__)

MAX_TASKS = 4
RENEW_S = 5.0
# Until a chunk that could not be sent, or was given up, is sent again.
RETRY_S = 2.0


class Redriver(Protocol):
    """The part of the engine that is used here."""

    def redrive(
        self,
        sink_key: str,
        *,
        origin: str,
        number: int,
        letters: Sequence[deadletter.DeadLetter],
        on_done: Callable[[Redriven], None],
    ) -> None: ...

    def forget(self, sink_key: str, log_id: str) -> None: ...


class Runner:
    """`engine` gives the process's engine, None while it has none."""

    def __init__(
        self,
        *,
        owner: str,
        engine: Callable[[], Redriver | None],
        now: Callable[[], datetime],
        renew_s: float = RENEW_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._owner = owner
        self._engine = engine
        self._now = now
        self._renew_s = renew_s
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._running: dict[UUID, threading.Thread] = {}
        self._stopping = threading.Event()

    def look(self) -> None:
        """Take up tasks that nobody carries out, as far as there is room."""
        while not self._stopping.is_set() and self._engine() is not None:
            with self._lock:
                running = list(self._running)
            if len(running) >= MAX_TASKS:
                return
            claim = tasks.claim(self._owner, now=self._now(), but=running)
            if claim is None:
                return
            thread = threading.Thread(
                target=self._run,
                args=(claim,),
                name=f"redrive-{claim.task_id.hex[:8]}",
                daemon=True,
            )
            with self._lock:
                self._running[claim.task_id] = thread
            thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Begin nothing more; True when the threads have ended before the deadline.

        Call it when the engine has stopped: it has told by then what became of each chunk.
        """
        self._stopping.set()
        with self._lock:
            threads = list(self._running.values())
        for thread in threads:
            thread.join(deadline_s / max(1, len(threads)))
        return not any(thread.is_alive() for thread in threads)

    def join(self, timeout_s: float) -> bool:
        """Wait until every task that was taken up has ended."""
        with self._lock:
            threads = list(self._running.values())
        for thread in threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in threads)

    # --- a task's thread ---------------------------------------------------------------------

    def _run(self, claim: Claim) -> None:
        try:
            with own_connection():
                self._carry_out(claim)
        except Fenced:
            logger.info("a redrive went to another process", extra=_named(claim))
        except DatabaseProblem as error:
            # Its lease runs out, and whoever reaches the database goes on with it.
            logger.warning(
                "a redrive lost the control database; it goes on later",
                extra={**_named(claim), "error": type(error).__name__},
            )
        except Exception:
            logger.exception("a redrive failed; it goes on later", extra=_named(claim))
        finally:
            with self._lock:
                self._running.pop(claim.task_id, None)

    def _carry_out(self, claim: Claim) -> None:
        while not self._stopping.is_set():
            chunk = tasks.next_chunk(claim, now=self._now())
            if chunk is None:
                logger.info("a redrive ended", extra=_named(claim))
                engine = self._engine()
                if engine is not None:
                    engine.forget(claim.sink, claim.origin)
                return
            if not self._send(claim, chunk):
                return
        tasks.release(claim)

    def _send(self, claim: Claim, chunk: Chunk) -> bool:
        """Send a chunk until something has become of it; False when the task is let go."""
        while True:
            result = self._attempt(claim, chunk)
            if isinstance(result, str):
                if not SinkConfig.objects.filter(pk=claim.sink).exists():
                    tasks.give_back(claim, now=self._now(), why="The sink was deleted.")
                    return False
                tasks.renew(claim, now=self._now(), note=result)
            elif result.split:
                tasks.split(claim, chunk, now=self._now())
                return True
            elif not result.given_up:
                self._settle(claim, chunk, result)
                return True
            if self._stopping.wait(self._retry_s):
                tasks.release(claim)
                return False

    def _settle(self, claim: Claim, chunk: Chunk, result: Redriven) -> None:
        ended = result.stored + result.already_stored + len(result.refused)
        if ended != len(chunk.letters):
            logger.error(
                "a redriven chunk's result does not add up",
                extra={**_named(claim), "sent": len(chunk.letters), "ended": ended},
            )
        tasks.settle(
            claim,
            chunk,
            stored=result.stored,
            already_stored=result.already_stored,
            refused=result.refused,
            now=self._now(),
        )

    def _attempt(self, claim: Claim, chunk: Chunk) -> Redriven | str:
        """What the engine says of the chunk, or why it could not be sent, as text."""
        engine = self._engine()
        if engine is None:
            return "The process that carries it out is stopping."
        done: queue.SimpleQueue[Redriven] = queue.SimpleQueue()
        try:
            engine.redrive(
                claim.sink,
                origin=claim.origin,
                number=chunk.number,
                letters=chunk.letters,
                on_done=done.put,
            )
        except KeyError:
            return "The sink is disabled, or its pipeline has not begun: it is tried again."
        except Exception as error:  # refused for now: draining, full, the log away
            return f"{type(error).__name__}: {error}"
        while True:
            try:
                return done.get(timeout=self._renew_s)
            except queue.Empty:
                if self._stopping.is_set():
                    return "The process that carried it out has stopped."
                tasks.renew(claim, now=self._now())


def _named(claim: Claim) -> dict[str, Any]:
    return {"redrive": str(claim.task_id), "sink": claim.sink, "attempt": claim.attempt}
