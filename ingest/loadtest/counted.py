"""Owns: the proof for increments: of them nothing is kept but sums, so that the sums are compared.

A run's increments go to a few counters of its own, each number to one of them.  Which of two
increments is missing cannot be said, but how many are.  Runs on the command's main thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from django.db.models import Sum

from ingest.loadtest.records import COUNTED, PART_LABEL, PARTS, RUN_FIELD
from ingest.loadtest.tally import ACKNOWLEDGED, MAYBE, Tally
from ingest.loadtest.verify import Verdict, Verifier, searched


class CounterVerifier(Verifier):
    """The same, by the values of the run's counters."""

    def stored(self) -> int:
        found = self.rows().aggregate(found=Sum("value"))["found"]
        return int(found or 0)

    def verify(self, tally: Tally) -> Verdict:
        values = self.rows().values_list("labels", "value")
        verdict = judge_sums(tally, {int(labels[PART_LABEL]): value for labels, value in values})
        verdict.database = searched()
        return verdict

    def _filter(self, *, run: str, first_id: int) -> dict[str, object]:
        return {"name": COUNTED, f"labels__{RUN_FIELD}": run}


def judge_sums(tally: Tally, found: Mapping[int, int]) -> Verdict:
    """Compare what each counter should have come to with its value."""
    owed: Counter[int] = Counter()
    # What may be there as well: increments that were sent again after an answer was lost.
    excused: Counter[int] = Counter()
    for sequence, fate in enumerate(tally.fates):
        owed[sequence % PARTS] += fate == ACKNOWLEDGED
    for sequence, times in tally.allowed.items():
        excused[sequence % PARTS] += times - (tally.fates[sequence] == ACKNOWLEDGED)
    # Of a request that was shed in part so many are counted as were accepted, whichever they are.
    maybe = tally.records_accepted - owed.total() if MAYBE in tally.fates else 0
    verdict = Verdict(acknowledged=owed.total() + maybe, found=sum(found.values()))
    for part in sorted({*owed, *found}):
        over = found.get(part, 0) - owed[part]
        if over < 0:
            verdict.missing -= over
            continue
        taken = min(over, maybe)
        maybe -= taken
        repeated = min(over - taken, excused[part])
        verdict.repeated += repeated
        verdict.duplicates += over - taken - repeated
    verdict.missing += maybe
    return verdict


def verifier_for(path: str) -> type[Verifier]:
    return CounterVerifier if path == "/counters" else Verifier
