"""`manage.py redrive`: send dead letters of a sink to it again.

Runs on the command's main thread; the work is done by a living process that has pipelines, which
takes the task up within a second.
"""

from __future__ import annotations

import json
import re
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from control.processes.asking import has_pipelines, living
from sinks.deadletters import decisions
from sinks.deadletters.models import DeadLetterTally, RedriveTask
from sinks.deadletters.selection import MAX_IDS, Selection
from sinks.models import SinkConfig

POLL_S = 0.3
_SPAN = re.compile(r"(\d+)([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> datetime:
    """A point in time, or a span before now."""
    span = _SPAN.match(text)
    try:
        if span is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(
            f"{text!r} is neither a time (2026-11-22T10:00:00) nor a span (90m, 24h, 7d)"
        ) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


class Command(BaseCommand):
    help = (
        "Send dead letters to their sink again: those named by --id, those that fit --reason and "
        "--since, or --all that wait. A running server carries it out, in numbered chunks that a "
        "sink with proofs stores once however often they are sent. With --wait the exit status is "
        "1 when a letter was refused again or the redrive did not end."
    )

    def __init__(
        self,
        *args: Any,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._monotonic = monotonic
        self._sleep = sleep

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--sink", required=True, metavar="NAME", help="the sink's name")
        parser.add_argument("--reason", default="", help="only letters with this reason")
        parser.add_argument(
            "--since",
            type=moment,
            metavar="T",
            help="only letters that came since (a time, or 24h)",
        )
        parser.add_argument("--all", action="store_true", help="every letter that waits")
        parser.add_argument(
            "--id", type=int, nargs="+", default=[], metavar="N", help="these letters"
        )
        parser.add_argument("--wait", action="store_true", help="wait until it has ended")
        parser.add_argument(
            "--timeout",
            type=float,
            default=3600.0,
            metavar="S",
            help="seconds to wait at most (default 3600)",
        )
        parser.add_argument("--dry-run", action="store_true", help="only say how many they are")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, **options: Any) -> None:
        selection = self._selection(options)
        if options["dry_run"]:
            self._say(options, {"dry_run": True, "letters": decisions.count(selection)})
            return
        try:
            (task,) = decisions.redrive(selection, who="manage.py redrive")
        except decisions.Refused as refused:
            if not options["json"]:
                self.stderr.write(str(refused))
            self._say(options, {"task": None, "letters": 0})
            return
        if not any(has_pipelines(process) for process in living()):
            self.stderr.write("No process with pipelines is running: it begins when one does.")
        if options["wait"]:
            task = self._wait(task, timeout_s=options["timeout"])
        self._say(options, _as_json(task))
        if options["wait"] and (task.state != RedriveTask.DONE or task.refused):
            sys.exit(1)

    def _selection(self, options: dict[str, Any]) -> Selection:
        narrowed = options["reason"] or options["since"] or options["id"]
        if options["all"] and options["id"]:
            raise CommandError("--all and --id exclude each other")
        if not options["all"] and not narrowed:
            raise CommandError("say which letters: --id N…, --reason R, --since T, or --all")
        if len(options["id"]) > MAX_IDS:
            raise CommandError(f"at most {MAX_IDS:,} ids; name more by --reason or --since")
        return Selection(
            sink=_key_of(options["sink"]),
            reason=options["reason"],
            since=options["since"],
            ids=tuple(options["id"]) or None,
        )

    def _wait(self, task: RedriveTask, *, timeout_s: float) -> RedriveTask:
        due = self._monotonic() + timeout_s
        with _progress() as progress:
            bar = progress.add_task(f"redrive to {task.sink_name}", total=task.total)
            while task.is_open and self._monotonic() < due:
                self._sleep(POLL_S)
                task.refresh_from_db()
                progress.update(bar, completed=task.finished)
        return task

    def _say(self, options: dict[str, Any], found: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(found))
        elif "dry_run" in found:
            letters = found["letters"]
            known = f"{letters:,}" if letters is not None else "too many to count quickly"
            self.stdout.write(f"letters that would be sent again: {known}")
        elif found["task"] is not None:
            self.stdout.write(
                "redrive {task}: {state}; {stored:,} stored, {already_stored:,} were there "
                "already, {refused:,} refused again, of {letters}".format(**found)
            )
            if found["note"]:
                self.stdout.write(found["note"])


def _key_of(name: str) -> str:
    row = SinkConfig.objects.filter(name=name).first()
    if row is not None:
        return str(row.pk)
    known = ", ".join(SinkConfig.objects.values_list("name", flat=True)[:20])
    if DeadLetterTally.objects.filter(sink_name=name).exists():
        raise CommandError(f"sink {name!r} is gone: its letters can be discarded, not sent")
    raise CommandError(f"there is no sink {name!r}; there are: {known or 'none'}")


def _as_json(task: RedriveTask) -> dict[str, Any]:
    return {
        "task": str(task.pk),
        "sink": task.sink_name,
        "state": task.state,
        "letters": task.total,
        "stored": task.stored,
        "already_stored": task.already_stored,
        "refused": task.refused,
        "note": task.note,
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
