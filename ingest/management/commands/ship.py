"""`manage.py ship FILE…`: the options, the signals and the exit code.

Everything runs on the command's main thread; SIGTERM and Ctrl-C wake its waits.
"""

from __future__ import annotations

import json
import random
import secrets
import signal
import sys
import threading
import time
from argparse import RawDescriptionHelpFormatter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from ingest.client.arguments import add_sending, with_ack
from ingest.client.options import amount, whole_number
from ingest.client.response import request_head
from ingest.client.sender import Sender
from ingest.client.target import TargetError, own_url, resolve
from ingest.shipper.lines import as_ndjson, as_text
from ingest.shipper.shipper import ShipError, ShipOptions, ShippedFile, Shipper
from ingest.shipper.state import StateError, StateFile
from ingest.shipper.tail import NotAFile, Tail

_DESCRIPTION = """\
Send files to the collector, a line a record, and remember how far each was sent.

The remembered place moves only after the server's answer, so delivery is AT LEAST ONCE: after a
crash the last batch is sent again. A batch whose answer got lost is sent again with the same
Idempotency-Key, and stored once; --no-idempotency-keys does without, for a server whose control
database is away. Without --follow the files are
sent to their end (an unfinished last line included) and the command exits. With --follow it goes
on, through rotation by renaming and through truncation, until SIGTERM or Ctrl-C, which finish the
batch in hand; an unfinished last line waits until it is finished.

429, 503 and lost connections are waited out, for as long as the server's Retry-After says.
A line longer than --max-line-bytes is cut, says so in its text, and is counted. Bytes that are
not UTF-8 are sent as \\xNN. Empty lines are not sent.

Exits 0 when all was accepted, 1 when lines were rejected or sending could not go on.
"""
_EPILOG = """\
examples:
  manage.py ship /var/log/dpkg.log
  manage.py ship --follow --service web /var/log/nginx/access.log /var/log/nginx/error.log
  manage.py ship --follow --format ndjson --gzip --url https://logs.example.org app.ndjson
"""


class WakingClock:
    """Real time, whose sleep a signal handler can end."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self._woken.wait(seconds)

    def wake(self) -> None:
        self._woken.set()


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
        add("files", metavar="FILE", nargs="+", type=Path, help="a file to send")
        how_long = parser.add_mutually_exclusive_group()
        how_long.add_argument("--follow", "-f", action="store_true", help="go on as files grow")
        how_long.add_argument(
            "--once", action="store_true", help="stop at the end of the files (the default)"
        )
        where = parser.add_mutually_exclusive_group()
        where.add_argument(
            "--from-start", action="store_true", help="forget how far the files were sent"
        )
        where.add_argument(
            "--from-end",
            action="store_true",
            help="begin files that were never sent at their end, not their start",
        )
        add("--format", choices=("text", "ndjson"), default="text", help="what a line is (text)")
        add("--service", default="", metavar="NAME", help="the service of each text line's record")
        add("--path", choices=("/logs", "/health", "/event"), default="/logs", help="(/logs)")
        add_sending(parser, idempotency_keys=True, timeout_s=60.0, retry_for_s=0.0)
        add("--gzip", action="store_true", help="compress the requests")
        add("--max-records", type=whole_number(1, 100_000), default=1000, metavar="N",
            help="lines a request (1000)")  # fmt: skip
        add("--max-bytes", type=whole_number(1024, 32 << 20), default=1 << 20, metavar="N",
            help="bytes a request (1048576)")  # fmt: skip
        add("--max-wait", type=amount(3600), default=1.0, metavar="S",
            help="seconds that a line may wait for others (1)")  # fmt: skip
        add("--max-line-bytes", type=whole_number(64, 16 << 20), default=256 << 10, metavar="N",
            help="where a longer line is cut (262144)")  # fmt: skip
        add("--poll", type=amount(60, low=0.01), default=0.5, metavar="S",
            help="seconds between looks at a file that does not grow (0.5)")  # fmt: skip
        add("--state-dir", type=Path, default=None, metavar="DIR",
            help="where places are remembered (ship/ in the data directory)")  # fmt: skip

    def handle(self, **options: Any) -> None:
        if options["service"] and options["format"] != "text":
            raise CommandError("--service goes with --format text: an NDJSON line names its own")
        if options["path"] != "/logs" and options["format"] != "ndjson":
            raise CommandError(f"{options['path']} takes --format ndjson only")
        console = Console(stderr=True, highlight=False)

        def warn(text: str) -> None:
            console.print(f"ship: {text}", markup=False, soft_wrap=True)

        clock = WakingClock()
        with ExitStack() as stack:
            try:
                shipper = self._shipper(options, stack, clock, warn)
                self._stop_on_signals(stack, shipper, clock)
                counts = shipper.run()
            except (TargetError, StateError, ShipError, NotAFile) as error:
                raise CommandError(str(error)) from None
            except OSError as error:
                raise CommandError(f"cannot read: {error}") from None
        if options["json"]:
            self.stdout.write(json.dumps(asdict(counts)))
        else:
            self.stdout.write(
                f"{counts.records_accepted:,} records accepted, {counts.records_rejected:,} "
                f"rejected, {counts.lines_cut:,} cut, {counts.empty_lines:,} empty lines, "
                f"{counts.requests:,} requests, {counts.retries:,} retries"
            )
        if counts.records_rejected:
            sys.exit(1)

    def _shipper(
        self, options: dict[str, Any], stack: ExitStack, clock: WakingClock, warn: Any
    ) -> Shipper:
        server = settings.COLLECTOR.server
        url = options["url"] or own_url(server.host, server.port)
        target = resolve(url, allow_https=True)
        directory = options["state_dir"] or Path(server.data_dir) / "ship"
        files = []
        for path in dict.fromkeys(path.absolute() for path in options["files"]):
            if not options["follow"] and not path.exists():
                raise ShipError(f"{path} does not exist")
            state = StateFile(directory, path)
            state.acquire()
            stack.callback(state.release)
            saved = None if options["from_start"] else state.load()
            tail = Tail(
                path,
                position=saved,
                max_line_bytes=options["max_line_bytes"],
                warn=warn,
                from_end=options["from_end"],
            )
            stack.callback(tail.close)
            files.append(ShippedFile(tail=tail, state=state, saved=saved))
        sender = Sender(target, timeout_s=options["timeout"])
        stack.callback(sender.close)
        as_json = options["format"] == "ndjson" or bool(options["service"])
        head = request_head(
            path=with_ack(target.base_path + options["path"], options["ack"]),
            authority=target.authority,
            content_type="application/x-ndjson" if as_json else "text/plain; charset=utf-8",
            api_key=options["api_key"],
            extra={
                "User-Agent": "collector-ship",
                **({"Content-Encoding": "gzip"} if options["gzip"] else {}),
            },
        )
        service = options["service"]

        def with_service(line: Any) -> bytes:
            text = as_text(line)
            if not text:
                return b""
            return json.dumps({"service": service, "message": text.decode()}).encode()

        return Shipper(
            files=files,
            sender=sender,
            head=head,
            encode=with_service if service else as_ndjson if as_json else as_text,
            options=ShipOptions(
                follow=options["follow"],
                max_records=options["max_records"],
                max_bytes=options["max_bytes"],
                max_wait_s=options["max_wait"],
                poll_s=options["poll"],
                gzip=options["gzip"],
                retry_for_s=options["retry_for"],
                run=f"ship-{secrets.token_hex(12)}" if options["idempotency_keys"] else "",
            ),
            clock=clock,
            rng=random.Random(),  # noqa: S311 - jitter, not a secret
            warn=warn,
        )

    @staticmethod
    def _stop_on_signals(stack: ExitStack, shipper: Shipper, clock: WakingClock) -> None:
        def stop(*_: object) -> None:
            shipper.stop()
            clock.wake()

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                stack.callback(signal.signal, number, signal.signal(number, stop))
            except ValueError:
                return  # not the main thread: a caller inside a program handles signals itself
