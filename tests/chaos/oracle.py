"""What was posted, what the server owes, and what is wrong with what is stored.

The oracle makes every id; an answer with a 2xx turns ids into debts, unless its `ack` promises
less than the round's fault takes (`memory` across a kill).  All else that was posted may be stored
or not, once.  `_lock` guards every field; used from all the loader's threads.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Standing = Literal["maybe", "debt", "never"]
Record = dict[str, Any]

_TEXTS = ("", "plain", "üñï 漢字 \U0001f680", 'quo"te\\slash', "line\nbreak\ttab", "null", "\u007f")
_LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")
MAX_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One record as it was found."""

    id: str
    payload: Any


@dataclass(kw_only=True)
class Judgement:
    """What is wrong with one sink, as ids; an empty one is a passed round."""

    sink: str
    missing: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    spurious: list[str] = field(default_factory=list)
    corrupted: list[str] = field(default_factory=list)
    undead: list[str] = field(default_factory=list)  # poison without its one dead letter
    letters: list[str] = field(default_factory=list)  # dead letters of records that are sound
    stored: int = 0
    again: int = 0  # further copies, where a sink is at-least-once

    @property
    def faults(self) -> list[str]:
        kinds = ("missing", "duplicates", "spurious", "corrupted", "undead", "letters")
        return [
            f"{self.sink}: {kind} {len(ids)}: {_shown(ids)}"
            for kind in kinds
            if (ids := getattr(self, kind))
        ]


def _shown(ids: Sequence[str]) -> str:
    return ", ".join(ids[:MAX_SHOWN]) + (" …" if len(ids) > MAX_SHOWN else "")


class Oracle:
    def __init__(self, *, run: str, rng: random.Random, kills: bool) -> None:
        self._run = run
        self._rng = rng
        self._kills = kills
        self._lock = threading.Lock()
        self._posted: dict[str, Record] = {}
        self._standing: dict[str, Standing] = {}
        self._request: dict[str, int] = {}
        self._requests = 0
        self._poison: set[str] = set()
        self._excused: set[str] = set()
        self._resent: set[str] = set()
        self.poison_refused = False  # by the database; set before the first poison is posted
        self._violations: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()

    # --- issuing ---------------------------------------------------------------------------

    def issue(self, count: int, *, bad: int = 0, poison: int = 0) -> list[Record]:
        """Records for one request; the first `bad` are to be refused, the next are poison."""
        with self._lock:
            rng, first = self._rng, len(self._posted)
            self._requests += 1
            records = []
            for number in range(first, first + count):
                record = self._record(rng, number)
                if number < first + bad:
                    record["timestamp"] = "yesterday, perhaps"
                elif number < first + bad + poison:
                    record["poison"] = True
                    self._poison.add(record["id"])
                self._posted[record["id"]] = record
                self._standing[record["id"]] = "maybe"
                self._request[record["id"]] = self._requests
                records.append(record)
            rng.shuffle(records)
            return records

    def _record(self, rng: random.Random, number: int) -> Record:
        name = f"{self._run}-{number}"
        return {
            "id": name,
            "message": name,
            "level": rng.choice(_LEVELS),
            "service": f"service-{rng.randrange(5)}",
            "n": rng.randrange(-(2**53), 2**53),
            "ratio": rng.random(),
            "text": rng.choice(_TEXTS),
            "nested": {"list": [rng.randrange(9), None, True, []], "": {}},
        }

    # --- answers ---------------------------------------------------------------------------

    def accepted(
        self, records: Sequence[Record], answer: Mapping[str, Any], *, asked: str = "memory"
    ) -> None:
        """A 2xx came for these records, in this order, to a request that asked for that ack."""
        refused = {error["index"] for error in answer.get("errors", ())}
        ack = str(answer.get("ack"))
        debt = ack in ("wal", "stored", "wal-unsynced") or not self._kills
        with self._lock:
            self.answers[f"2xx {ack}"] += 1
            if ack == "memory" and asked != "memory":
                self._violated(f"ack={asked} was asked for and memory answered")
            bad = {index for index, record in enumerate(records) if _is_bad(record)}
            if refused != bad or answer.get("accepted") != len(records) - len(bad):
                self._violated(
                    f"the answer counts {answer.get('accepted')} accepted and refuses the indexes "
                    f"{sorted(refused)[:MAX_SHOWN]}; of {len(records)} posted the bad ones are "
                    f"{sorted(bad)[:MAX_SHOWN]}"
                )
            for index, record in enumerate(records):
                if index in refused:
                    self._standing[record["id"]] = "never"
                elif debt:
                    self._standing[record["id"]] = "debt"

    def other(self, what: str) -> None:
        """No 2xx: an answer's status, or the name of an error of the connection."""
        with self._lock:
            self.answers[what] += 1

    def resent(self, records: Sequence[Record]) -> None:
        """The very same request goes out again, under its key."""
        with self._lock:
            self._resent |= {record["id"] for record in records}

    def violated(self, text: str) -> None:
        with self._lock:
            self._violated(text)

    def _violated(self, text: str) -> None:
        self._violations[text] += 1

    @property
    def violations(self) -> list[str]:
        with self._lock:
            return [
                text + (f" ({count} times)" if count > 1 else "")
                for text, count in self._violations.items()
            ]

    # --- what a torn file may cost ---------------------------------------------------------

    def excuse_requests_of(self, ids: Iterable[str]) -> int:
        """The frames of these ids were damaged on purpose: their records may be missing.

        With a frame its key is lost too, so that a request that is sent again is a new one.
        """
        with self._lock:
            hit = {self._request[name] for name in ids if name in self._request}
            excused = {name for name, request in self._request.items() if request in hit}
            self._excused |= excused
            return len(excused)

    # --- judging ---------------------------------------------------------------------------

    @property
    def debts(self) -> set[str]:
        """What must be stored, poison apart."""
        with self._lock:
            return self._owed() - self._poison

    @property
    def poisoned_debts(self) -> set[str]:
        with self._lock:
            return self._owed() & self._poison

    @property
    def posted(self) -> int:
        with self._lock:
            return len(self._posted)

    def _owed(self) -> set[str]:
        owed = {name for name, standing in self._standing.items() if standing == "debt"}
        return owed - self._excused

    def judge(
        self,
        sink: str,
        stored: Iterable[Stored],
        *,
        once: bool,
        refuses_poison: bool,
        letters: Counter[str] | None,
    ) -> Judgement:
        """Compare; `letters` counts the sink's dead letters by id, None where none are kept."""
        result = Judgement(sink=sink)
        counts: Counter[str] = Counter()
        debts, poisoned = self.debts, self.poisoned_debts
        with self._lock:
            for one in stored:
                counts[one.id] += 1
                posted = self._posted.get(one.id)
                forbidden = self._standing.get(one.id) == "never"
                if posted is None or forbidden or (refuses_poison and one.id in self._poison):
                    result.spurious.append(one.id)
                elif not same_json(posted, one.payload):
                    result.corrupted.append(one.id)
            letters = Counter() if letters is None else letters
            if refuses_poison:
                result.undead = sorted(name for name in poisoned if letters[name] != 1)
            else:
                debts |= poisoned
            sound = {name for name in letters if not (refuses_poison and name in self._poison)}
        result.letters = sorted(sound)
        result.missing = sorted(debts - counts.keys())
        result.stored = len(counts)
        several = sorted(name for name, count in counts.items() if count > 1)
        result.again = sum(counts[name] - 1 for name in several)
        if once:
            result.duplicates = [
                name for name in several if name not in self._excused & self._resent
            ]
        return result


def _is_bad(record: Record) -> bool:
    return "timestamp" in record


def same_json(one: Any, other: Any) -> bool:
    """Equal as JSON values: in Python True == 1, in JSON it is not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other)


def parsed(payload: Any) -> Any:
    """A payload as a database hands it out: text on SQLite, a value on PostgreSQL."""
    return json.loads(payload) if isinstance(payload, str | bytes) else payload
