"""`manage.py ledger`: how every accepted record has ended, by process, sink and tenant.

Runs on the command's main thread; living processes are asked to write their figures first.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from control.processes.asking import Answer, ask, has_pipelines, living
from control.processes.ledgers import Totals, process_json, table
from control.processes.models import Process


class Command(BaseCommand):
    help = (
        "Show the ledger: per process, sink and tenant, what was accepted and how it ended. "
        "Living processes are asked for fresh figures; of ended ones the last written are shown. "
        "accepted + redriven = stored + already stored + dead-lettered + dropped + in flight, for "
        "an ended process left in log instead of in flight; a difference is shown as the "
        "imbalance, and the exit status is 1 then."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.add_argument("--live", action="store_true", help="leave ended processes out")
        parser.add_argument(
            "--timeout",
            type=float,
            default=5.0,
            metavar="S",
            help="seconds to wait for fresh figures (default 5)",
        )

    def handle(self, **options: Any) -> None:
        answers = self.collect(timeout_s=options["timeout"], live_only=options["live"])
        totals = Totals(row for answer in answers for row in answer.ledger)
        uneven = any(answer.imbalance for answer in answers)
        if options["json"]:
            processes = [_as_json(answer) for answer in answers]
            self.stdout.write(json.dumps({"processes": processes, **totals.as_json()}))
        else:
            self._show(answers, totals)
        if uneven:
            sys.exit(1)

    def _show(self, answers: list[Answer], totals: Totals) -> None:
        self.stdout.write(table((answer.process, answer.ledger) for answer in answers))
        if totals.enqueued:
            self.stdout.write(str(totals))
        for answer in answers:
            if answer.error:
                seen = f"{answer.process.last_seen_at:%Y-%m-%d %H:%M:%S} UTC"
                self.stderr.write(f"{answer.process}: {answer.error}; its figures are of {seen}")

    def collect(self, *, timeout_s: float, live_only: bool) -> list[Answer]:
        asked = [process for process in living() if has_pipelines(process)]
        answers = list(ask(asked, "report", timeout_s=timeout_s))
        if not live_only:
            rest = Process.objects.exclude(pk__in=[process.pk for process in asked])
            answers.extend(Answer(process=process, result={}) for process in rest if process.ledger)
        return sorted(answers, key=lambda answer: answer.process.started_at)


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        **process_json(answer.process),
        "fresh": bool(answer.result) and not answer.error,
        "error": answer.error,
        "ledger": answer.ledger,
        "left_in_log": answer.totals.left_in_log,
        "imbalance": answer.imbalance,
    }
