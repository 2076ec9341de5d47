"""`manage.py produce`: the options, the signals, what is printed and the exit code.

The producer, the workers and the autoscaler have threads of their own; this one prints once a
second, or draws, and ends them in order. Signal handlers only set events.
"""

from __future__ import annotations

import secrets
import signal
import sys
import threading
from argparse import ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from contextlib import ExitStack
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.live import Live

from ingest.client.arguments import with_ack
from ingest.client.options import amount, api_key_from_environment, whole_number
from ingest.client.response import request_head
from ingest.client.target import TargetError, require_loopback, resolve
from ingest.producer.durations import duration, format_duration
from ingest.producer.httpsink import HttpSink
from ingest.producer.progress import EngineLines, Progress
from ingest.producer.run import Outcome, Run, RunOptions
from ingest.producer.samples import History, Sample, metrics_line
from ingest.producer.slowsink import SlowSink, Tally
from ingest.producer.watch import Picture
from pipeline.runtime.clock import SystemClock

_DAY_S = 86_400.0
_METRICS_EVERY_S = 1.0
_DRAW_EVERY_S = 0.25
_HISTORY = 480  # two minutes
_DEFAULTS = RunOptions()

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
        _add_load(parser)
        _add_workers(parser)
        _add_server(parser)
        add = parser.add_argument
        add("--watch", action="store_true", help="a full-screen live view")
        add("--count", type=whole_number(1, 10**12), metavar="N", help="end after N logs")
        add("--duration", type=duration(0.001, _DAY_S), metavar="D", help="end after so long")
        add("--drain-timeout", type=duration(0.0, 3600.0), default=60.0, metavar="D",
            help="how long to wait at the end for what is held (1m)")  # fmt: skip

    def handle(self, **options: Any) -> None:
        out = Console(file=cast("IO[str]", self.stdout), highlight=False, soft_wrap=True)
        watch = options["watch"]
        if watch and not out.is_terminal:
            self.stderr.write("--watch needs a terminal: printing lines instead")
            watch = False
        run_options = _run_options(options, watch=watch)
        session = _Session(out=out, watch=watch, drain_timeout_s=options["drain_timeout"])
        run, where = self._run(options, run_options, session)
        outcome = session.carry_out(run, where)
        if session.fatal:
            raise CommandError(session.fatal)
        if not outcome.equal:
            sys.exit(1)

    def _run(
        self, options: dict[str, Any], run_options: RunOptions, session: _Session
    ) -> tuple[Run, str]:
        """The run, and where its logs go, in words."""
        clock, tally = SystemClock(), Tally()
        try:
            if not options["url"]:
                latency_s = options["sink_latency"]
                run = Run(
                    options=run_options,
                    sink=lambda: SlowSink(latency_s=latency_s, tally=tally),
                    tally=tally,
                    clock=clock,
                    progress=session.progress,
                )
                return run, f"a sink that takes {format_duration(latency_s)} a batch"
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
                clock=clock,
                fatal=session.fail,
            )
            run = Run(
                options=run_options,
                sink=lambda: sink,
                tally=tally,
                clock=clock,
                progress=session.progress,
                far_usage=sink.far_usage,
            )
        except (TargetError, ValueError) as error:
            raise CommandError(str(error)) from None
        return run, target.url + "/logs"


class _Session:
    """One run from its start to its result, on the command's thread."""

    def __init__(self, *, out: Console, watch: bool, drain_timeout_s: float) -> None:
        self._out, self._watch, self._drain_timeout_s = out, watch, drain_timeout_s
        self._picture: Picture | None = None
        self._history = History(keep=_HISTORY, span=round(1 / _DRAW_EVERY_S))
        self._signalled = threading.Event()
        self._hurried = threading.Event()
        # Set by any reason to end: a signal, the producer's own end, or a server that will not do.
        self._over = threading.Event()
        self.progress = Progress(self._say)
        self.fatal = ""

    def fail(self, reason: str) -> None:
        """The run cannot go on; called by any thread."""
        self.fatal = self.fatal or reason
        self._over.set()

    def carry_out(self, run: Run, where: str) -> Outcome:
        with ExitStack() as stack:
            stack.enter_context(EngineLines(self.progress))
            self._on_signals(stack)
            run.on_ended(self._over.set)
            run.start()
            if self._watch:
                self._draw(run, where)
            else:
                self._print(run)
            if self._signalled.is_set():
                self.progress.say("Shutdown signal received!")
            elif run.broke:
                self.fail(run.why)
            elif not self.fatal:
                self.progress.say(f"The producer has ended: {run.why}")
            outcome = self._stop(run)
        if not self.fatal:
            self.progress.say(outcome.line())
            self.progress.say("Program finished")
        return outcome

    def _say(self, line: str) -> None:
        picture = self._picture
        if picture is not None:
            picture.say(line)
        else:
            self._out.print(line, markup=False)

    def _print(self, run: Run) -> None:
        before = run.sample()
        troubles = _Troubles()
        while not self._over.wait(_METRICS_EVERY_S):
            after = run.sample()
            self.progress.say(metrics_line(before, after))
            if said := troubles.new(after, run):
                self.progress.say(said)
            before = after

    def _draw(self, run: Run, where: str) -> None:
        picture = Picture(options=run.options, history=self._history, where=where)
        self._history.add(run.sample())
        self._picture = picture
        troubles = _Troubles()
        try:
            with Live(
                picture, console=self._out, screen=True, auto_refresh=False, transient=True
            ) as live:
                while not self._over.wait(_DRAW_EVERY_S):
                    sample = run.sample()
                    self._history.add(sample)
                    if said := troubles.new(sample, run):
                        self.progress.say(said)
                    live.refresh()
        finally:
            self._picture = None
        # What the screen showed last stays on the terminal, above the lines of the end.
        self._out.print(picture)

    def _stop(self, run: Run) -> Outcome:
        """In a thread of its own, so that a second signal can cut it short."""
        found: list[Outcome | Exception] = []

        def stop() -> None:
            try:
                found.append(run.stop(0.0 if self.fatal else self._drain_timeout_s))
            except Exception as error:
                found.append(error)
            self._hurried.set()

        stopping = threading.Thread(target=stop, name="produce-stop")
        stopping.start()
        self._hurried.wait()
        if not found:
            self.progress.say("Second signal: what is left is dropped")
            run.abandon()
        stopping.join()
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    def _on_signals(self, stack: ExitStack) -> None:
        def received(*_: object) -> None:
            (self._hurried if self._signalled.is_set() else self._signalled).set()
            self._over.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                stack.callback(signal.signal, number, signal.signal(number, received))
            except ValueError:
                return  # not the main thread: a caller inside a program handles signals itself


class _Troubles:
    """What a failing sink says, each thing once while it lasts."""

    def __init__(self) -> None:
        self._told = ""

    def new(self, sample: Sample, run: Run) -> str:
        error = run.last_error if sample.retries else ""
        if not error or error == self._told:
            return ""
        self._told = error
        return f"The sink fails, its batches are tried again: {error}"


def _run_options(options: dict[str, Any], *, watch: bool) -> RunOptions:
    if options["channel_size"] < options["batch_size"]:
        raise CommandError(
            f"--channel-size ({options['channel_size']}) must hold at least one batch of "
            f"--batch-size ({options['batch_size']})"
        )
    if options["min_workers"] > options["max_workers"]:
        raise CommandError(
            f"--min-workers ({options['min_workers']}) must not be more than --max-workers "
            f"({options['max_workers']})"
        )
    if options["scale_down"] >= options["scale_up"]:
        raise CommandError(
            f"--scale-down ({options['scale_down']:g}) must be less than --scale-up "
            f"({options['scale_up']:g})"
        )
    adaptive = options["adaptive"]
    return RunOptions(
        rate_s=options["rate"],
        channel_size=options["channel_size"],
        batch_size=options["batch_size"],
        batch_timeout_s=options["batch_timeout"],
        min_workers=options["min_workers"],
        max_workers=options["max_workers"],
        autoscale_interval_s=options["autoscale_interval"],
        scale_up=options["scale_up"],
        scale_down=options["scale_down"],
        adaptive=watch if adaptive is None else adaptive,
        # A write is over by itself; the engine's own limit is for what hangs.
        attempt_timeout_s=(options["timeout"] if options["url"] else options["sink_latency"]) + 30,
        count=options["count"],
        duration_s=options["duration"],
    )


def _add_load(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--rate", type=duration(1e-6, 3600.0), default=_DEFAULTS.rate_s, metavar="D",
        help="a log each so often (100us)")  # fmt: skip
    add("--channel-size", type=whole_number(1, 1_000_000), default=_DEFAULTS.channel_size,
        metavar="N",
        help="logs that the queue holds, those being written included (1500)")  # fmt: skip
    add("--batch-size", type=whole_number(1, 100_000), default=_DEFAULTS.batch_size, metavar="N",
        help="logs at which a batch is complete (50)")  # fmt: skip
    add("--batch-timeout", type=duration(0.0, 3600.0), default=_DEFAULTS.batch_timeout_s,
        metavar="D", help="how long a log may wait for others (500ms)")  # fmt: skip
    add("--adaptive", action=BooleanOptionalAction, default=None,
        help="batches find their own size, from --batch-size on (with --watch: yes)")  # fmt: skip
    add("--sink-latency", type=duration(0.0, 3600.0), default=0.0, metavar="D",
        help="how long the sink takes for a batch (0)")  # fmt: skip


def _add_workers(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--min-workers", type=whole_number(1, 1000), default=_DEFAULTS.min_workers, metavar="N",
        help="workers at the start and at least (1)")  # fmt: skip
    add("--max-workers", type=whole_number(1, 1000), default=_DEFAULTS.max_workers, metavar="N",
        help="workers at most (10)")  # fmt: skip
    add("--autoscale-interval", type=duration(0.001, 3600.0), metavar="D",
        default=_DEFAULTS.autoscale_interval_s,
        help="how often the number of workers is looked at (1s)")  # fmt: skip
    add("--scale-up", type=amount(1.0), default=_DEFAULTS.scale_up, metavar="SHARE",
        help="add a worker when more of the queue is filled (0.8)")  # fmt: skip
    add("--scale-down", type=amount(1.0), default=_DEFAULTS.scale_down, metavar="SHARE",
        help="take one away when less is filled (0.2)")  # fmt: skip


def _add_server(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--url", default="", help="send to this server instead of the slow sink")
    add(
        "--api-key",
        default=api_key_from_environment(),
        metavar="KEY",
        help="the API key; better given as COLLECTOR_API_KEY, which `ps` does not show",
    )
    add("--ack", choices=("memory", "wal", "stored"), default="",
        help="the acknowledgement to ask for (the server's default)")  # fmt: skip
    add("--timeout", type=duration(0.01, 3600.0), default=10.0, metavar="D",
        help="how long to wait for an answer (10s)")  # fmt: skip
    add("--allow-remote", action="store_true", help="load another machine than this one")
