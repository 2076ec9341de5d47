"""Engines with files on a disk that fails and can be held up, one after the other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pipeline.engine import Engine
from pipeline.ids import RecordIds
from pipeline.log.checkpoint import replay
from pipeline.log.journal import read_checkpoint, read_entries
from pipeline.log.settings import LogSettings
from pipeline.receipt import Receipt
from pipeline.record import Record
from pipeline.runtime.clock import Clock
from pipeline.runtime.signals import Signals
from pipeline.spec import PipelineSpec
from tests.pipeline.faultydisk import FaultyDisk
from tests.pipeline.support import PATIENCE_S


class HeldDisk(FaultyDisk):
    """A disk whose syncs can be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go = threading.Event()
        self.gave_up = False
        self._holds = threading.Event()
        self.before = self._hold_up

    def hold(self) -> None:
        self._holds.set()

    def let_go(self) -> None:
        self._holds.clear()
        self.go.set()

    def _hold_up(self, what: str, path: Path | None) -> None:
        if what == "sync" and self._holds.is_set():
            self.entered.set()
            if not self.go.wait(PATIENCE_S):
                self.gave_up = True


class Offer:
    """An offer in a thread of its own, and what came of it."""

    def __init__(self, engine: Engine, of: list[Record]) -> None:
        self.receipt: Receipt | None = None
        self.error: Exception | None = None
        self._engine, self._of = engine, of
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.receipt = self._engine.offer(
                type="log", tenant="t", records=self._of, durable=True
            )
        except Exception as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "an offer hangs"


class Stand:
    """Engines one after the other on one disk that can be held up."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = HeldDisk()
        self.signals = Signals()
        self.engines: list[Engine] = []

    def engine(
        self, *specs: PipelineSpec, clock: Clock | None = None, start: bool = True, **options: Any
    ) -> Engine:
        number = len(self.engines) + 1
        options.setdefault("segment_bytes", 64 << 10)
        engine = Engine(
            log_id=f"{number:032x}",
            ids=RecordIds(node=number),
            log_settings=LogSettings(directory=self.root, **options),
            disk=self.disk,
            clock=clock,
        )
        self.engines.append(engine)
        engine.observe(self.signals)
        engine.configure(specs)
        if start:
            engine.start()
        return engine

    def directory(self, engine: Engine) -> Path:
        return self.root / engine.log_id

    def batches_after_a_power_cut(self, engine: Engine) -> dict[int, tuple[str, tuple[Any, ...]]]:
        """What the manifest would be if nothing but what is synced were there."""
        directory = self.directory(engine)
        found = [
            read
            for slot in (0, 1)
            if (read := read_checkpoint(self.disk.synced(directory / f"checkpoint.{slot}")))
        ]
        generation, checkpoint = max(found, key=lambda one: one[0])
        data = self.disk.synced(directory / f"journal.{generation % 2}")
        manifest, _, _ = replay(checkpoint, read_entries(data, generation))
        return {number: (sink, tuple(extents)) for number, sink, extents in manifest.items()}

    def end(self) -> None:
        self.disk.heal()
        self.disk.let_go()
        for engine in self.engines:
            engine.stop(0.2)
        for thread in threading.enumerate():
            if thread.name in ("log-close", "log-keeper", "log-adopter"):
                thread.join(PATIENCE_S)
