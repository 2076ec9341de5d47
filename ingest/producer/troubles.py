"""Owns: what is said of a sink that fails: one line when it begins, one when it is over.

Asked on the command's main thread, with each sample.
"""

from __future__ import annotations

import re

from ingest.producer.samples import Sample
from pipeline.errors import RetryableError

# It is over when batches are processed again and none has been tried again for so long: a server
# that limits a key's rate refuses every few seconds and takes something in between.
QUIET_S = 5.0
_KINDS = 5  # of troubles told apart in one stretch, so that a talkative server is not heard out
_NUMBER = re.compile(r"[0-9][0-9.,]*")


class Troubles:
    def __init__(self) -> None:
        self._told: set[str] = set()
        self._begun: Sample | None = None  # before the first retry of this stretch
        self._last: Sample | None = None  # when the latest retry was seen
        self._before: Sample | None = None

    def new(self, sample: Sample, error: str) -> str:
        """What is to be said now, "" if nothing; `error` is the sink's last."""
        before, self._before = self._before, sample
        if sample.retries > (before.retries if before else 0):
            self._begun = self._begun or before or sample
            self._last = sample
            return self._failing(error)
        begun, last = self._begun, self._last
        if begun is None or last is None or sample.processed <= last.processed:
            return ""
        if sample.at_s - last.at_s < QUIET_S:
            return ""
        self._begun = self._last = None
        self._told.clear()
        seconds = last.at_s - begun.at_s
        return f"The sink takes batches again, after {seconds:.0f} s"

    def _failing(self, error: str) -> str:
        # The same trouble with other figures in it is no news.
        error = error.removeprefix(f"{RetryableError.__name__}: ")
        kind = _NUMBER.sub("#", error)
        if not error or kind in self._told or len(self._told) >= _KINDS:
            return ""
        self._told.add(kind)
        return f"The sink fails, its batches are tried again: {error}"
