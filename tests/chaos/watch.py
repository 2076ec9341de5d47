"""What the server says of itself while it is struck: proof that faults did strike.

A thread of its own asks /stats several times a second, each time on a new connection, so that every
worker has its turn. `_lock` guards what was seen.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

_EVERY_S = 0.15
_ANSWER_S = 5.0

RETRY, BREAKER, ADOPTED = "retry", "breaker opened", "log adopted"
LETTER, ALREADY, CORRUPT = "dead letter", "proof found", "damage counted"
LOG_FAILED, STUCK = "log failed", "hung worker"


def ask_stats(url: str, *, timeout_s: float = _ANSWER_S) -> dict[str, Any] | None:
    """The /stats of one of the server's processes, or None when there was no answer."""
    parts = urlsplit(url)
    if not parts.port:
        return None
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", "/stats", headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read()
        return json.loads(body) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


class Watch:
    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(3 * _ANSWER_S)

    @property
    def seen(self) -> set[str]:
        with self._lock:
            return set(self._seen)

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            stats = ask_stats(self._url())
            if stats is not None:
                self.look(stats)

    def look(self, stats: dict[str, Any]) -> None:
        found = sightings(stats)
        with self._lock:
            self._seen |= found


def sightings(stats: dict[str, Any]) -> set[str]:
    found = set()
    for pipeline in stats["pipelines"]:
        breaker = pipeline.get("breaker") or {}
        signs = {
            RETRY: pipeline["retries"],
            BREAKER: breaker.get("trips") or breaker.get("state") not in (None, "closed"),
            LETTER: pipeline["dead_lettered"],
            ALREADY: pipeline["already_stored"],
            CORRUPT: pipeline["dropped"].get("corrupt"),
            STUCK: pipeline.get("hung_workers"),
        }
        found |= {name for name, sign in signs.items() if sign}
    log = stats.get("log") or {}
    signs = {
        ADOPTED: log.get("adopted"),
        CORRUPT: log.get("corrupt_frames") or log.get("torn_frames"),
        LOG_FAILED: log.get("state") in ("full", "failing"),
    }
    return found | {name for name, sign in signs.items() if sign}


def unsettled(stats: dict[str, Any]) -> list[str]:
    """What this process still holds, or what does not balance."""
    problems = [
        f"{row['sink']}: imbalance {row['imbalance']}"
        for row in stats["ledger"]
        if row["imbalance"]
    ]
    held = [
        f"{row['sink']} holds {row['in_flight']}" for row in stats["ledger"] if row["in_flight"]
    ]
    adopted = (stats.get("log") or {}).get("adopted") or []
    return problems + held + [f"log {one['log_id']} is still being adopted" for one in adopted]
