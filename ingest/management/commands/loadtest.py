"""`manage.py loadtest N C`: the options, the progress bar and the exit code.

The load runs on the command's main thread; Ctrl-C and SIGTERM let sent requests be answered.
"""

from __future__ import annotations

import json
import random
import secrets
import signal
import sys
import time
from argparse import RawDescriptionHelpFormatter
from typing import IO, Any, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from ingest.client.arguments import add_sending
from ingest.client.clock import SystemClock
from ingest.client.options import amount, whole_number
from ingest.client.target import TargetError, own_url, require_loopback, resolve
from ingest.loadtest.counted import verifier_for
from ingest.loadtest.generator import Generator, Load, Unreachable
from ingest.loadtest.records import PATHS, RecordMaker
from ingest.loadtest.report import print_report
from ingest.loadtest.tally import Tally
from ingest.loadtest.verify import Verdict, searched

MAX_RECORDS = 100_000_000
MAX_CLIENTS = 1_000
MAX_BATCH = 100_000

_DESCRIPTION = """\
Send N records from C clients and say how long it took.

Closed loop by default: each client waits for its answer before it sends again. With --rate the
load is open: requests start when the schedule says, and latency counts from that moment. 429 and
503 are tried again after the server's Retry-After, plus jitter, for as long as it takes records of
others meanwhile. Only this machine may be loaded, unless --allow-remote is given.

With --verify each acknowledged record is then looked for in this installation's records database,
and must be there exactly once; increments (--path /counters, ten counters a run, which stay) must
have come to the right sums. A request that is repeated after its answer was lost may be stored
twice, which is told and no failure; with --idempotency-keys it must not be.

Exits 0 when every record was accepted (and verified), 1 otherwise.
"""
_EPILOG = """\
examples:
  manage.py loadtest 10000 50 --verify
  manage.py loadtest 1000000 16 --batch 1000 --verify
  manage.py loadtest 60000 50 --rate 1000 --path /event --json
"""


class Command(BaseCommand):
    help = _DESCRIPTION
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name,
            subcommand,
            formatter_class=RawDescriptionHelpFormatter,
            epilog=_EPILOG,
            **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("records", metavar="N", type=whole_number(1, MAX_RECORDS), help="records to send")
        add(
            "clients",
            metavar="C",
            type=whole_number(1, MAX_CLIENTS),
            nargs="?",
            default=10,
            help="connections used at once (10)",
        )
        add("--path", choices=PATHS, default="/logs", help="what to send, and where to (/logs)")
        add("--batch", type=whole_number(1, MAX_BATCH), default=1, help="records a request (1)")
        add(
            "--rate",
            type=amount(10_000_000),
            default=0.0,
            metavar="R",
            help="records per second, open loop (as fast as the answers come)",
        )
        add(
            "--duration",
            type=amount(86_400),
            default=0.0,
            metavar="S",
            help="start nothing new after S seconds, even if fewer than N were sent",
        )
        add_sending(parser, idempotency_keys=False, timeout_s=30.0, retry_for_s=60.0)
        add(
            "--verify",
            action="store_true",
            help="afterwards, find each acknowledged record exactly once",
        )
        add(
            "--verify-timeout",
            type=amount(86_400),
            default=60.0,
            metavar="S",
            help="how long to wait when no more records appear in the database (60)",
        )
        add("--allow-remote", action="store_true", help="load another machine than this one")

    def handle(self, **options: Any) -> None:
        try:
            server = settings.COLLECTOR.server
            target = resolve(options["url"] or own_url(server.host, server.port))
            require_loopback(target, allow_remote=options["allow_remote"])
        except TargetError as error:
            raise CommandError(str(error)) from None
        run = secrets.token_hex(6)
        load = Load(
            records=options["records"],
            clients=options["clients"],
            batch=options["batch"],
            rate=options["rate"],
            duration_s=options["duration"],
            ack=options["ack"],
            keys=options["idempotency_keys"],
            api_key=options["api_key"],
            timeout_s=options["timeout"],
            retry_for_s=options["retry_for"],
        )
        since_us = time.time_ns() // 1000
        terminal = Console(stderr=True)
        with _progress(terminal) as progress:
            task = progress.add_task("sending", total=load.records)
            generator = Generator(
                target=target,
                load=load,
                maker=RecordMaker(path=options["path"], run=run),
                clock=SystemClock(),
                rng=random.Random(),  # noqa: S311 - jitter, not a secret
                on_progress=lambda tally: progress.update(task, completed=tally.records_sent),
            )
            tally = self._run(generator)
            progress.update(task, completed=tally.records_sent)
            result = {"run": run, "url": target.url + options["path"], **tally.summary()}
            verdict = None
            if options["verify"]:
                try:
                    verdict = self._verify(
                        tally, options["path"], run, since_us, options["verify_timeout"], progress
                    )
                except DatabaseError as error:
                    raise CommandError(
                        f"the records database ({searched()}) cannot be read: "
                        f"{str(error).strip()}. --verify "
                        "reads this installation's; is the server's another one "
                        "(COLLECTOR_DATA_DIR, COLLECTOR_DATABASE_URL)?"
                    ) from None
                result["verify"] = verdict.summary()
        if options["json"]:
            self.stdout.write(json.dumps(result))
        else:
            print_report(Console(file=cast("IO[str]", self.stdout)), result)
        if not tally.succeeded or (verdict is not None and not verdict.passed):
            sys.exit(1)

    def _run(self, generator: Generator) -> Tally:
        previous = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                previous[number] = signal.signal(number, lambda *_: generator.stop())
        except ValueError:
            pass  # not the main thread: a caller inside a program handles signals itself
        try:
            return generator.run()
        except Unreachable as error:
            raise CommandError(str(error)) from None
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _verify(
        self,
        tally: Tally,
        path: str,
        run: str,
        since_us: int,
        timeout_s: float,
        progress: Progress,
    ) -> Verdict:
        expected = tally.records_accepted
        task = progress.add_task("stored", total=expected)
        make = verifier_for(path)
        verifier = make(path=path, run=run, since_us=since_us, clock=SystemClock())
        waited = verifier.wait_until_stored(
            expected,
            timeout_s=timeout_s,
            on_progress=lambda stored: progress.update(task, completed=stored),
        )
        verdict = verifier.verify(tally)
        verdict.waited_s = waited
        return verdict


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>8}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
