"""`manage.py prune`: forget records, samples and dead processes whose time is over.

Runs on the command's main thread; running twice, or beside a server that prunes too, is harmless.
"""

from __future__ import annotations

import json
from argparse import RawDescriptionHelpFormatter
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, transaction
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from control.partitions.upkeep import oldest_kept
from control.processes.retention import forget_old
from ingest.client.options import whole_number
from ingest.prune.records import Pruned, prune_records
from sinks.deadletters import retention as dead_letters

_DESCRIPTION = """\
Forget what is past its time: stored records by the day they arrived, and the control plane's own
samples, workers' lives and dead processes. Dead letters that nobody decided about expire, and
those that have ended are deleted after a week.

On PostgreSQL whole day partitions are dropped; on SQLite rows are deleted a few thousand at a
time, so that a running server goes on writing. How long each is kept is set by
COLLECTOR_RECORDS_DAYS, COLLECTOR_SAMPLES_HOURS, COLLECTOR_WORKER_RUNS_DAYS and
COLLECTOR_DEAD_LETTERS_DAYS.
"""


class Command(BaseCommand):
    help = _DESCRIPTION

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--days",
            type=whole_number(1, 36_500),
            default=settings.COLLECTOR.retention.records_days,
            metavar="N",
            help="keep the records of the last N days and today's (%(default)s)",
        )
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, **options: Any) -> None:
        now = datetime.now(UTC)
        before = oldest_kept(now.date(), options["days"])
        dry_run = options["dry_run"]
        try:
            with _progress() as progress:
                tasks: dict[str, Any] = {}

                def show(table: str, done: int, total: int) -> None:
                    if table not in tasks:
                        tasks[table] = progress.add_task(table, total=total)
                    progress.update(tasks[table], completed=done, total=total)

                records = prune_records(
                    now.date(), options["days"], dry_run=dry_run, on_progress=show
                )
            control = self._forget(now, dry_run=dry_run)
        except DatabaseError as error:
            raise CommandError(
                f"the database refused: {str(error).strip()}. What was deleted so far stays "
                "deleted; run the command again."
            ) from None
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(before.isoformat(), dry_run, records, control)))
            return
        verb = "would go" if dry_run else "deleted"
        for pruned in records:
            self.stdout.write(f"{pruned.table}: {_said(pruned)} from before {pruned.before} {verb}")
        for name, rows in control.items():
            self.stdout.write(f"{name.replace('_', ' ')}: {rows:,} {verb}")

    @staticmethod
    def _forget(now: datetime, *, dry_run: bool) -> dict[str, int]:
        kept = settings.COLLECTOR.retention
        # Counting by doing it and taking it back cannot differ from what a real run does.
        with transaction.atomic():
            counts = forget_old(
                now, samples_hours=kept.samples_hours, worker_runs_days=kept.worker_runs_days
            )
            if dry_run:
                transaction.set_rollback(True)
        letters = dead_letters.due if dry_run else dead_letters.forget_old
        return counts | letters(now, days=kept.dead_letters_days)


def _said(pruned: Pruned) -> str:
    if pruned.partitioned:
        return f"{len(pruned.partitions):,} days with about {pruned.rows:,} records"
    return f"{pruned.rows:,} records"


def _as_json(
    before: str, dry_run: bool, records: list[Pruned], control: dict[str, int]
) -> dict[str, Any]:
    return {
        "before": before,
        "dry_run": dry_run,
        "records": {
            pruned.table: {
                "before": pruned.before.isoformat(),
                "rows": pruned.rows,
                "estimated": pruned.partitioned,
                "partitions": list(pruned.partitions),
            }
            for pruned in records
        },
        "control": control,
    }


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
