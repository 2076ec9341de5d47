"""Owns: the proof that what was acknowledged is stored, once each, in this installation's database.

Reads by ranges of the record id, which is the order of arrival: a million records cost some twenty
queries and a byte of memory each. Runs on the command's main thread; no locks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import connections
from django.db.models import BigIntegerField, QuerySet
from django.db.models.fields.json import KT
from django.db.models.functions import Cast

from ingest.client.clock import Clock
from ingest.loadtest.records import RUN_FIELD, SEQUENCE_FIELD
from ingest.loadtest.tally import ACKNOWLEDGED, MAYBE, Tally
from pipeline.ids import first_id_at

MODELS = {"/logs": "LogRecord", "/health": "HealthPing", "/event": "AuditEvent",
          "/counters": "Counter"}  # fmt: skip
_CHUNK = 50_000
_EXAMPLES = 10
# Ids carry the server's clock, which may have been set back a little since.
_CLOCK_MARGIN_US = 60_000_000
_MOST_COUNTED = 255


@dataclass(kw_only=True)
class Verdict:
    acknowledged: int
    found: int = 0
    missing: int = 0
    duplicates: int = 0
    spurious: int = 0
    # Found more than once, but sent again by us after an answer was lost: at-least-once, not a bug.
    repeated: int = 0
    waited_s: float = 0.0
    database: str = ""
    examples: dict[str, list[int]] = field(
        default_factory=lambda: {"missing": [], "duplicates": [], "spurious": []}
    )

    @property
    def passed(self) -> bool:
        return not (self.missing or self.duplicates or self.spurious)

    @property
    def hint(self) -> str:
        if self.found or not self.acknowledged:
            return ""
        return (
            f"none of the {self.acknowledged:,} was found: the server may use another database "
            "than this command (COLLECTOR_DATABASE_URL, COLLECTOR_DATA_DIR)"
        )

    def summary(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "acknowledged": self.acknowledged,
            "found": self.found,
            "missing": self.missing,
            "duplicates": self.duplicates,
            "spurious": self.spurious,
            "repeated_after_lost_answers": self.repeated,
            "database": self.database,
            "hint": self.hint,
            "waited_s": round(self.waited_s, 2),
            "examples": {kind: found for kind, found in self.examples.items() if found},
        }


class Verifier:
    def __init__(self, *, path: str, run: str, since_us: int, clock: Clock) -> None:
        self._model = apps.get_model("ingest", MODELS[path])
        self._first_id = first_id_at(since_us - _CLOCK_MARGIN_US)
        self._chosen = self._filter(run=run, first_id=self._first_id)
        self._clock = clock

    def rows(self) -> QuerySet[Any]:
        rows: QuerySet[Any] = self._model._default_manager.using("records").filter(**self._chosen)
        return rows

    def stored(self) -> int:
        """How many of the run's records are there by now."""
        return self.rows().count()

    def wait_until_stored(
        self, expected: int, *, timeout_s: float, on_progress: Callable[[int], None]
    ) -> float:
        """Until the rows are there, or none has come for `timeout_s`. Answers how long it took."""
        started = last_change = self._clock.now()
        seen = -1
        while True:
            asked = self._clock.now()
            stored = self.stored()
            now = self._clock.now()
            on_progress(stored)
            if stored >= expected:
                return now - started
            if stored != seen:
                seen, last_change = stored, now
            elif now - last_change >= timeout_s:
                return now - started
            # A count over a million rows takes a while: never spend more than half on counting.
            self._clock.sleep(max(0.2, min(now - asked, 5.0)))

    def verify(self, tally: Tally) -> Verdict:
        verdict = judge(tally, self._stored_sequences())
        verdict.database = searched()
        return verdict

    def _filter(self, *, run: str, first_id: int) -> dict[str, object]:
        return {"id__gte": first_id, f"payload__{RUN_FIELD}": run}

    def _stored_sequences(self) -> Any:
        rows = (
            self.rows()
            .annotate(sequence=Cast(KT(f"payload__{SEQUENCE_FIELD}"), BigIntegerField()))
            .order_by("id")
            .values_list("id", "sequence")
        )
        last = self._first_id - 1
        while True:
            chunk = list(rows.filter(id__gt=last)[:_CHUNK])
            for _, sequence in chunk:
                yield sequence
            if len(chunk) < _CHUNK:
                return
            last = chunk[-1][0]


def searched() -> str:
    """The records database in words, from its settings' harmless parts: no user, no password."""
    connection = connections["records"]
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"SQLite {values['NAME']}"
    host = values["HOST"] or values["OPTIONS"].get("host") or "localhost"
    return f"{connection.display_name} {values['NAME']!r} at {host}:{values['PORT'] or 5432}"


def judge(tally: Tally, sequences: Any) -> Verdict:
    """Compare the fate of each record sent with how often it is stored."""
    counts = bytearray(tally.records)
    # Of a request that was shed in part so many are stored as were accepted, whichever they are.
    expected = tally.fates.count(ACKNOWLEDGED)
    maybe = tally.records_accepted - expected if MAYBE in tally.fates else 0
    verdict = Verdict(acknowledged=expected + maybe)
    examples = verdict.examples

    def note(kind: str, sequence: int) -> None:
        if len(examples[kind]) < _EXAMPLES:
            examples[kind].append(sequence)

    for sequence in sequences:
        verdict.found += 1
        if sequence is None or not 0 <= sequence < tally.records:
            verdict.spurious += 1
            note("spurious", -1 if sequence is None else sequence)
        elif counts[sequence] < _MOST_COUNTED:
            counts[sequence] += 1
    allowed_by_repeat = tally.allowed
    for sequence, (fate, count) in enumerate(zip(tally.fates, counts, strict=True)):
        acknowledged = fate == ACKNOWLEDGED
        if fate == MAYBE and count:
            maybe -= 1
            acknowledged = True
        if count == acknowledged:
            continue
        allowed = allowed_by_repeat.get(sequence, int(acknowledged))
        if count == 0:
            verdict.missing += 1
            note("missing", sequence)
        elif count <= allowed:
            verdict.repeated += 1
        elif acknowledged:
            verdict.duplicates += 1
            note("duplicates", sequence)
        else:
            verdict.spurious += 1
            note("spurious", sequence)
    verdict.missing += max(maybe, 0)
    verdict.spurious += max(-maybe, 0)
    return verdict
