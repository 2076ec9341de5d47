"""`manage.py produce`: what the run is made of, and the exit code.

Runs on the command's main thread; the producer, the workers and the autoscaler have their own.
"""

from __future__ import annotations

import secrets
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper
from rich.console import Console

from ingest.client.arguments import with_ack
from ingest.client.response import request_head
from ingest.client.sender import NoAnswer
from ingest.client.target import TargetError, require_loopback, resolve
from ingest.producer.arguments import add_end, add_load, add_server, add_workers, run_options
from ingest.producer.durations import format_duration
from ingest.producer.httpsink import HttpSink
from ingest.producer.run import NOTHING_MADE, Run
from ingest.producer.session import Session
from ingest.producer.slowsink import SlowSink, Tally
from pipeline.runtime.clock import SystemClock
from pipeline.sink import Sink

_DESCRIPTION = """\
Watch the engine adapt to load: make logs at a steady tick, into a queue that a slow sink empties.

The queue is the room of a pipeline of the very engine that the server runs, here in this process
and in memory. Its batches go to a sink that takes --sink-latency for each and keeps nothing, or,
with --url, to another collector's POST /logs. The fuller the queue, the slower the producer: above
95 % it pauses 2 ms before each log, above 90 % 1 ms, above 80 % 500us. The autoscaler adds a worker
above --scale-up and takes one away below --scale-down.

Prints a line a second; with --watch it draws a full screen instead, and batches find their own
size. Ctrl-C ends it in order: producer, autoscaler, buffer, workers, so that all that was produced
is processed; a second Ctrl-C does not wait for that.

Exits 0 when as many logs were processed as were produced, 1 otherwise.
"""
_EPILOG = """\
examples:
  manage.py produce
  manage.py produce --watch --sink-latency 200ms
  manage.py produce --rate 1ms --count 5000 --sink-latency 20ms
  manage.py produce --url http://127.0.0.1:8000 --duration 30s
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
        add_load(parser)
        add_workers(parser)
        add_server(parser)
        add_end(parser)
        parser.add_argument("--watch", action="store_true", help="a full-screen live view")

    def handle(self, **options: Any) -> None:
        file = cast("IO[str]", _AsIs(self.stdout))
        out = Console(file=file, highlight=False, soft_wrap=True)
        watch = options["watch"]
        if watch and not out.is_terminal:
            self.stderr.write("--watch needs a terminal: printing lines instead")
            watch = False
        session = Session(out=out, watch=watch, drain_timeout_s=options["drain_timeout"])
        tally = Tally()
        try:
            sink, where = self._sink(options, tally, session)
            run = Run(
                options=run_options(options, watch=watch),
                sink=sink,
                tally=tally,
                clock=SystemClock(),
                progress=session.progress,
            )
        except (TargetError, ValueError) as error:
            raise CommandError(str(error)) from None
        except NoAnswer as error:
            self.stdout.write(NOTHING_MADE.line())
            raise CommandError(str(error)) from None
        outcome = session.carry_out(run, where)
        if session.fatal:
            raise CommandError(session.fatal)
        if not outcome.equal:
            sys.exit(1)

    @staticmethod
    def _sink(
        options: dict[str, Any], tally: Tally, session: Session
    ) -> tuple[Callable[[], Sink], str]:
        """What makes the sink, and where it leads, in words; raises NoAnswer if nobody is there."""
        if not options["url"]:
            latency_s = options["sink_latency"]
            where = f"a sink that takes {format_duration(latency_s)} a batch"
            return lambda: SlowSink(latency_s=latency_s, tally=tally), where
        target = resolve(options["url"], allow_https=True)
        require_loopback(target, allow_remote=options["allow_remote"])
        sink = HttpSink(
            target=target,
            head=request_head(
                path=with_ack(target.base_path + "/logs", options["ack"]),
                authority=target.authority,
                content_type="application/x-ndjson",
                api_key=options["api_key"],
                extra={"User-Agent": "collector-produce"},
            ),
            timeout_s=options["timeout"],
            run=f"produce-{secrets.token_hex(12)}",
            tally=tally,
            fatal=session.fail,
            clock=SystemClock(),
        )
        sink.reach()
        return lambda: sink, target.url + "/logs"


class _AsIs:
    """The command's output without the line break that Django adds to each write."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out

    def write(self, text: str) -> int:
        self._out.write(text, ending="")
        return len(text)

    def flush(self) -> None:
        self._out.flush()

    def isatty(self) -> bool:
        return self._out.isatty()
