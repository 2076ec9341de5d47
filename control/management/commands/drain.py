"""`manage.py drain`: have every living process refuse new records, flush and settle.

Runs on the command's main thread; the work is done by the processes that are asked.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from control.processes.asking import Answer, ask, has_pipelines, living
from control.processes.ledgers import Totals, process_json, table

# Past the deadline: a process whose records database is locked hears and answers between two waits
# for it, of five seconds each.
ANSWER_S = 15.0


class Command(BaseCommand):
    help = (
        "Ask every living process to refuse new records, send what it holds and settle; wait, "
        "print the ledgers, and exit with 1 if one does not balance, if records are neither "
        "delivered in time nor in a log on the disk, or if a process does not answer. What is left "
        "in the log is delivered later, and no failure. A drained process refuses records until it "
        "is restarted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.add_argument(
            "--timeout",
            type=float,
            default=30.0,
            metavar="S",
            help="seconds that each process is given to settle (default 30)",
        )

    def handle(self, **options: Any) -> None:
        answers = self.drain(timeout_s=options["timeout"])
        failures = [text for answer in answers for text in failures_of(answer)]
        if options["json"]:
            document = {
                "ok": not failures,
                "failures": failures,
                **_totals(answers).as_json(),
                "processes": [_as_json(answer) for answer in answers],
            }
            self.stdout.write(json.dumps(document))
        elif not answers:
            self.stdout.write("No living process has pipelines: there is nothing to drain.")
        else:
            self.stdout.write(table((answer.process, answer.ledger) for answer in answers))
            self.stdout.write(str(_totals(answers)))
            for failure in failures:
                self.stderr.write(failure)
            if not failures:
                self.stdout.write(_success(answers))
        if failures:
            sys.exit(1)

    def drain(self, *, timeout_s: float) -> list[Answer]:
        """Ask, and wait a little longer for the answers than the processes are given."""
        asked = [process for process in living() if has_pipelines(process)]
        answers = ask(
            asked, "drain", args={"deadline_s": timeout_s}, timeout_s=timeout_s + ANSWER_S
        )
        return sorted(answers, key=lambda answer: answer.process.started_at)


def failures_of(answer: Answer) -> list[str]:
    """What is wrong with a process's drain, for the operator."""
    if answer.error:
        return [f"{answer.process}: {answer.error}"]
    failures = []
    if answer.imbalance:
        failures.append(f"{answer.process}: the ledger is out of balance by {answer.imbalance:,}")
    held = answer.totals.in_flight
    if answer.result.get("settled") is False and held:
        failures.append(
            f"{answer.process}: not everything was settled in time; {held:,} records are in flight "
            "and in no log on the disk"
        )
    return failures


def _totals(answers: list[Answer]) -> Totals:
    return Totals(row for answer in answers for row in answer.ledger)


def _success(answers: list[Answer]) -> str:
    left = _totals(answers).left_in_log
    if left:
        return (
            f"Every ledger balances; {left:,} records stay in the log for the next start. "
            f"Processes: {len(answers)}"
        )
    return f"Drained; every ledger balances. Processes: {len(answers)}"


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        **process_json(answer.process),
        "error": answer.error,
        "settled": answer.result.get("settled"),
        "ledger": answer.ledger,
        "left_in_log": answer.totals.left_in_log,
        "imbalance": answer.imbalance,
    }
