"""What stands between the engine and a sink: no secret of the sink leaves in an error.

Adds nothing to a write that succeeds.  Holds no state but the sink.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import PartialFailure, RetryableError, SinkError
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.secrets import redact


class GuardedSink:
    """The sink with every error's text redacted."""

    def __init__(self, sink: BaseSink[Any]) -> None:
        self.sink = sink
        self._secrets = sink.secret_texts()

    def __repr__(self) -> str:
        return repr(self.sink)

    def open(self) -> None:
        with self._redacting():
            self.sink.open()

    def write(self, batch: Batch) -> Written | None:
        with self._redacting():
            return self.sink.write(batch)

    def probe(self, batch: Batch) -> str:
        with self._redacting():
            return self.sink.probe(batch)

    def abort(self) -> None:
        self.sink.abort()

    def close(self) -> None:
        with self._redacting():
            self.sink.close()

    @contextmanager
    def _redacting(self) -> Iterator[None]:
        if not self._secrets:
            yield
            return
        try:
            yield
        except PartialFailure as error:
            reasons = {i: redact(text, self._secrets) for i, text in error.failures.items()}
            raise PartialFailure(reasons) from None
        except RetryableError as error:
            text = redact(str(error), self._secrets)
            raise RetryableError(text, retry_after_s=error.retry_after_s) from None
        except SinkError as error:
            raise type(error)(redact(str(error), self._secrets)) from None
        except Exception as error:
            text = redact(f"{type(error).__name__}: {error}", self._secrets)
            # The traceback of the original would show the values that this class exists to hide.
            raise RetryableError(text) from None
