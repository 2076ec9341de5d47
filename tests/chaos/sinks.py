"""A sink of somebody else: hangs, fails or refuses as a file tells it to. For chaos only.

Lives in the server's processes, reached by dotted path.  Appends each record to a file of its own
process and thread, below the data directory; every append is one write, so that a
kill never tears a line in the middle of the file.  `_free` is set when a hanging write must fail.
"""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import ClassVar

from pipeline.errors import PartialFailure, RetryableError
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.options import SinkOptions
from tests.chaos.modes import mode_in

_LOOK_S = 0.05


class ThirdPartyOptions(SinkOptions, frozen=True, kw_only=True):
    directory: str = "third-party"


class ThirdPartySink(BaseSink[ThirdPartyOptions]):
    """Modes: ok, hang (until told otherwise or aborted), deaf (hangs, and abort does not help),
    fail (30 % of the writes), dead (all of them). Poison is always refused, by its index."""

    Options: ClassVar[type[SinkOptions]] = ThirdPartyOptions
    label = "Third party"
    description = "Fails on demand. For chaos."
    supports_partial_failure = True

    def __init__(self, options: ThirdPartyOptions, *, name: str = "") -> None:
        super().__init__(options, name=name)
        self._free = threading.Event()

    def open(self) -> None:
        self._free.clear()
        self._directory.mkdir(parents=True, exist_ok=True)

    def write(self, batch: Batch) -> Written:
        mode = mode_in(self._directory)
        while mode in ("hang", "deaf"):
            if self._free.wait(_LOOK_S) and mode == "hang":
                self._free.clear()
                raise RetryableError("the hanging write was aborted")
            mode = mode_in(self._directory)
        if mode == "dead" or (mode == "fail" and random.random() < 0.3):
            raise RetryableError("told to fail")
        lines, refused = [], {}
        for index, record in enumerate(batch.records):
            if b'"poison"' in record.payload:
                refused[index] = "poison is not taken here"
            else:
                lines.append(record.payload.replace(b"\n", b" ").replace(b"\r", b" "))
        if lines:
            self._append(b"\n".join(lines) + b"\n")
        if refused:
            raise PartialFailure(refused)
        return Written(stored=len(lines))

    def abort(self) -> None:
        self._free.set()

    @property
    def _directory(self) -> Path:
        from django.conf import settings

        return Path(settings.COLLECTOR.server.data_dir) / self.options.directory

    def _append(self, data: bytes) -> None:
        path = self._directory / f"{os.getpid()}-{threading.get_ident()}.ndjson"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
