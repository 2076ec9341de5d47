"""What a run says: a line a round, what went wrong, and whether the faults were seen to strike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.round import Outcome

_OUTPUT_LINES = 60


class Report:
    def __init__(self, *, say: Callable[[str], None], keep: Path | None = None) -> None:
        self._say = say
        self._keep = keep
        self._outcomes: list[Outcome] = []
        self._unavailable: dict[str, str] = {}

    def add(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        counts = {one.sink: one for one in outcome.judgements}
        again = sum(one.again for one in counts.values())
        fault = outcome.fault + "+kill" * outcome.killed_too
        self._say(
            f"{'ok  ' if outcome.passed else 'FAIL'} {outcome.database:10} {fault:20} "
            f"seed {outcome.seed} {outcome.seconds:5.1f} s "
            f"posted {outcome.posted:5} owed {outcome.debts:5} again {again:4} "
            f"answers {_short(outcome.answers)} seen {', '.join(sorted(outcome.seen)) or '-'}"
        )
        for problem in outcome.problems:
            self._say(f"     {problem}")
        if not outcome.passed:
            self._say(
                f"     again: python -m tests.chaos --rounds 1 --seed {outcome.seed} "
                f"--only {outcome.fault} --database {outcome.database}"
            )
            if self._keep is not None:
                self._keep.mkdir(parents=True, exist_ok=True)
                path = self._keep / f"{outcome.database}-{outcome.fault}-{outcome.seed}.log"
                path.write_text("\n".join([*outcome.problems, outcome.output]))
                self._say(f"     the server's output is in {path}")

    def unavailable(self, fault: str, why: str) -> None:
        if fault not in self._unavailable:
            self._say(f"     {fault} cannot strike here: {why}")
        self._unavailable[fault] = why

    @property
    def unseen(self) -> list[str]:
        """Signs of faults that were played and never seen."""
        wanted = {sign for one in self._outcomes for sign in FAULTS[one.fault].shows}
        return sorted(wanted - set().union(*(one.seen for one in self._outcomes)))

    @property
    def passed(self) -> bool:
        return bool(self._outcomes) and all(one.passed for one in self._outcomes)

    def close(self, *, strict: bool) -> bool:
        """Say the sum of it; whether the run passed. `strict`: faults must have been seen."""
        signs: dict[str, set[int]] = defaultdict(set)
        for outcome in self._outcomes:
            for sign in outcome.seen:
                signs[sign].add(outcome.seed)
        failed = [one for one in self._outcomes if not one.passed]
        played = Counter(one.fault for one in self._outcomes)
        self._say(
            f"{len(self._outcomes)} rounds, {len(failed)} failed; "
            f"{sum(one.posted for one in self._outcomes)} records posted, "
            f"{sum(one.debts for one in self._outcomes)} owed"
        )
        self._say("played: " + ", ".join(f"{name} {n}" for name, n in sorted(played.items())))
        self._say(
            "seen (rounds): " + ", ".join(f"{sign} {len(n)}" for sign, n in sorted(signs.items()))
        )
        if self.unseen:
            self._say(f"never seen, though faults struck: {', '.join(self.unseen)}")
        return self.passed and not (strict and self.unseen)


def _short(answers: Counter[str]) -> str:
    return " ".join(f"{name}:{count}" for name, count in sorted(answers.items()))
