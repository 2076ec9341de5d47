"""The toy's journal: every call, and for each token how often it came and how often it was done.

`_lock` guards everything; any thread may call.  The last MAX_LINES calls are kept, all counts are.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from pathlib import Path
from typing import Any, TextIO

MAX_LINES = 100_000
_NAMED = 1_000


class Journal:
    def __init__(self, *, file: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._lines: deque[dict[str, Any]] = deque(maxlen=MAX_LINES)
        self._came: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._file: TextIO | None = file.open("a", encoding="utf-8") if file else None

    def began(self, token: str) -> int:
        """How often this token has come, this time included."""
        with self._lock:
            self._came[token] += 1
            return self._came[token]

    def ended(self, *, at: float, token: str, path: str, nth: int, outcome: str) -> None:
        line = {"at": round(at, 6), "token": token, "path": path, "nth": nth, "outcome": outcome}
        with self._lock:
            self._lines.append(line)
            self._outcomes[outcome] += 1
            if outcome == "ok":
                self._done[token] += 1
            if self._file is not None:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()

    def lines(self, *, limit: int) -> list[dict[str, Any]]:
        """The last ones, oldest first."""
        with self._lock:
            return list(self._lines)[-limit:] if limit > 0 else []

    def counts(self) -> dict[str, Any]:
        """`done_again` names tokens that were done more than once, the first thousand of them."""
        with self._lock:
            again = [token for token, times in self._done.items() if times > 1]
            return {
                "calls": sum(self._came.values()),
                "tokens": len(self._came),
                "done": len(self._done),
                "outcomes": dict(self._outcomes),
                "done_again": {token: self._done[token] for token in again[:_NAMED]},
                "done_again_count": len(again),
            }

    def tokens(self) -> dict[str, dict[str, int]]:
        """For each token how often it came, and how often it was done."""
        with self._lock:
            return {
                token: {"calls": times, "done": self._done[token]}
                for token, times in self._came.items()
            }

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
