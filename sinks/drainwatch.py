"""Says every five seconds of a drain what it still waits for: threads, batches, what is left.

    with telling(engine, clock=clock, say=report.to_stderr):
        engine.stop(deadline_s)

The thread "sinks-drain-watch" lives as long as the block; it reads figures and changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.runtime.clock import Clock

if TYPE_CHECKING:
    from pipeline.engine import Engine
    from pipeline.pipeline import Pipeline

logger = logging.getLogger(__name__)

EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One thread that is still at work, or what waits where none is (`thread` is then "")."""

    pipeline: str
    thread: str
    batch: str
    records: int
    seconds: float
    left_records: int

    def __str__(self) -> str:
        left = f"{self.left_records} records left"
        if not self.thread:
            return f"{self.pipeline}: no write under way, {left}"
        return (
            f"{self.pipeline}: thread {self.thread} has written batch {self.batch} "
            f"({self.records} records) for {self.seconds:.0f} s, {left}"
        )


def running(engine: Engine, *, now: float) -> list[Running]:
    """What a drain of this engine still waits for."""
    pipelines = engine.pipelines + engine.retired
    return [one for pipeline in pipelines for one in _of(pipeline, now)]


def _of(pipeline: Pipeline, now: float) -> Iterator[Running]:
    name, left = pipeline.spec.name, pipeline.admission.held_records
    at_work = False
    for worker in pipeline.workers:
        batch, since = worker.batch, worker.writing_since
        if batch is not None:
            at_work = True
            yield Running(
                pipeline=name,
                thread=worker.name,
                batch=batch.batch_id,
                records=batch.count,
                seconds=0.0 if since is None else max(0.0, now - since),
                left_records=left,
            )
    if left and not at_work:
        yield Running(pipeline=name, thread="", batch="", records=0, seconds=0.0, left_records=left)


def tell(found: list[Running], *, seconds: float, say: Callable[[str], None]) -> None:
    """To whoever watches the terminal, and as a log line."""
    if not found:
        return
    lines = [f"still draining after {seconds:.0f} s:", *(f"  {one}" for one in found)]
    say("\n".join(lines) + "\n")
    for one in found:
        logger.warning(
            "still draining",
            extra={
                "seconds": round(seconds, 1),
                "sink": one.pipeline,
                "worker": one.thread,
                "batch_id": one.batch,
                "records": one.records,
                "writing_s": round(one.seconds, 1),
                "left_records": one.left_records,
            },
        )


@contextmanager
def telling(
    engine: Engine, *, clock: Clock, say: Callable[[str], None], every_s: float = EVERY_S
) -> Iterator[None]:
    over = threading.Event()
    began = clock.monotonic()

    def watch() -> None:
        while not over.wait(every_s):
            now = clock.monotonic()
            try:
                tell(running(engine, now=now), seconds=now - began, say=say)
            except Exception:
                logger.exception("what still drains could not be told")

    thread = threading.Thread(target=watch, name="sinks-drain-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
