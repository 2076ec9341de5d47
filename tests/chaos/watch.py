"""What the server says of itself while it is struck: proof that faults did strike.

A thread of its own asks /stats several times a second, each time on a new connection, so that every
worker has its turn. `_lock` guards what was seen.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

_EVERY_S = 0.15
_ANSWER_S = 5.0
ALARM_S = 5.0

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
        self._unbalanced: dict[tuple[str, str, str, str], float] = {}
        self._alarms: dict[tuple[str, str, str, str], int] = {}
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
        found, now = sightings(stats), time.monotonic()
        unbalanced = imbalances(stats)
        with self._lock:
            self._seen |= found
            self._unbalanced = {
                place: since
                for place, since in self._unbalanced.items()
                if place[0] != stats["log_id"] or place in unbalanced
            }
            for place, count in unbalanced.items():
                if now - self._unbalanced.setdefault(place, now) > ALARM_S:
                    self._alarms[place] = count

    @property
    def alarms(self) -> list[str]:
        """Ledgers that did not balance for as long as an operator is told of it."""
        with self._lock:
            return [
                f"the ledger of {sink}, {tenant} was out by {count} for over {ALARM_S:g} s"
                for (_, _, sink, tenant), count in self._alarms.items()
            ]


def sightings(stats: dict[str, Any]) -> set[str]:
    found = set()
    for pipeline in stats["pipelines"]:
        signs = {
            RETRY: pipeline["retries"],
            BREAKER: pipeline["breaker"]["trips"],
            LETTER: pipeline["dead_lettered"],
            ALREADY: pipeline["already_stored"],
            CORRUPT: pipeline["dropped"].get("corrupt"),
            STUCK: pipeline["hung_workers"],
        }
        found |= {name for name, sign in signs.items() if sign}
    log = stats["log"]
    signs = {
        ADOPTED: log["adopted"],
        CORRUPT: any(one["corrupt_frames"] or one["torn_frames"] for one in log["adopted"]),
        ALREADY: any(row["already_stored"] for _, row in ledgers(stats)),
        LETTER: any(row["dead_lettered"] for _, row in ledgers(stats)),
        LOG_FAILED: log["state"] in ("full", "failing"),
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
    adopted = [f"log {one['log_id']} is still adopted" for one in stats["log"]["adopted"]]
    return problems + held + adopted


def ledgers(stats: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of the process's own ledger and of those of the logs it adopted, with its log."""
    for row in stats["ledger"]:
        yield stats["log_id"], row
    for log in stats["log"]["adopted"]:
        for row in log["ledger"]:
            yield log["log_id"], row


def imbalances(stats: dict[str, Any]) -> dict[tuple[str, str, str, str], int]:
    """What does not balance, by process, log, sink and tenant."""
    return {
        (stats["log_id"], log_id, row["sink"], row["tenant"]): row["imbalance"]
        for log_id, row in ledgers(stats)
        if row["imbalance"]
    }
