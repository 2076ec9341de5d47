"""What stands between the engine and a sink: errors leave as the engine's own, without secrets.

A third party's error class may need arguments of its own and hold anything; the engine sees the
nearest class that it knows.  Adds nothing to a write that succeeds.  Holds no state but the sink.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkError, SinkFault
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.secrets import redact


class GuardedSink:
    """The sink, raising `SinkError`s of the engine's own classes with redacted texts."""

    def __init__(self, sink: BaseSink[Any]) -> None:
        self.sink = sink
        self._secrets = sink.secret_texts()

    def __repr__(self) -> str:
        return repr(self.sink)

    def open(self) -> None:
        with self._translating():
            self.sink.open()

    def write(self, batch: Batch) -> Written | None:
        with self._translating():
            return self.sink.write(batch)

    def probe(self, batch: Batch) -> str:
        with self._translating():
            return self.sink.probe(batch)

    def forget(self, log_id: str) -> None:
        with self._translating():
            self.sink.forget(log_id)

    def abort(self) -> None:
        self.sink.abort()

    def close(self) -> None:
        with self._translating():
            self.sink.close()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Whoever has secrets shows no cause: its traceback has what this class exists to hide.
            raise self._own(error) from None if self._secrets else error

    def _own(self, error: Exception) -> SinkError:
        if isinstance(error, PartialFailure):
            return PartialFailure(
                {index: self._redact(text) for index, text in error.failures.items()},
                already_stored=error.already_stored,
            )
        if isinstance(error, RetryableError):
            return RetryableError(self._redact(error), retry_after_s=error.retry_after_s)
        if isinstance(error, PermanentError):
            return PermanentError(self._redact(error))
        if isinstance(error, SinkFault):
            return SinkFault(self._redact(error))
        if isinstance(error, SinkError):
            return RetryableError(self._redact(error))
        return RetryableError(self._redact(f"{type(error).__name__}: {error}"))

    def _redact(self, text: object) -> str:
        return redact(str(text), self._secrets)
