"""`manage.py run_checker`: the options, the signals, the exit status.

The event loop runs on the main thread; see `healthmon.checker.process`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

T = TypeVar("T")

SWITCH_INTERVAL_S = 0.0005

_DESCRIPTION = """\
Probe the targets that are registered in the admin, on their schedules, until SIGTERM or Ctrl-C,
which lets running probes end and flushes what was found.

Start as many as you like, on any machine with the same control database: they share the targets,
and when one dies the others take its share over within 15 seconds.

  --once            probe each target once, now, store what is found, and exit
  --target NAME     only try these targets, now: print what is found, store nothing, and exit

The two that exit do so with status 0 when every probe succeeded, 1 when one did not.
"""


class Command(BaseCommand):
    help = _DESCRIPTION

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="one round, then exit")
        parser.add_argument(
            "--target", action="append", default=[], metavar="NAME", help="only try this one"
        )
        parser.add_argument("--json", action="store_true", help="print results as JSON lines")

    def handle(self, **options: Any) -> None:
        if options["target"]:
            self._try(options["target"], as_json=options["json"])
            return
        from control.processes import lifecycle, stopsignals
        from healthmon.checker.round import probe_once

        stop_s = settings.COLLECTOR.server.stop_deadline_s
        # The loop gives the interpreter's lock up at each of its many small system calls, and
        # another thread that computes would keep it for ten times as long by default.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        lifecycle.start("checker")
        try:
            if options["once"]:
                failed = _run(probe_once(said=self._say(options["json"])))
            else:
                failed = False
                _run(self._probe(stop_s))
        finally:
            complete = lifecycle.stop(max(1.0, stop_s - 12))
            stopsignals.ignore()
        if failed or not complete:
            raise SystemExit(1)

    async def _probe(self, stop_s: float) -> None:
        from control.processes import stopsignals
        from healthmon.checker.process import FINISH_S, CheckerProcess

        process = CheckerProcess()
        loop = asyncio.get_running_loop()
        for number in stopsignals.STOP_SIGNALS:
            loop.add_signal_handler(number, process.request_stop)
        # A terminal that closes is no reason to stop watching; the supervisor says when.
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        try:
            await process.run(finish_s=min(FINISH_S, stop_s / 3))
        finally:
            # A loop that ends leaves the default action behind, which would cut the drain off.
            for number in stopsignals.STOP_SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, stopsignals.while_stopping)
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _try(self, names: list[str], *, as_json: bool) -> None:
        from healthmon.probes.trial import try_probe
        from healthmon.targets.models import Target
        from healthmon.targets.options import plain_options, problems

        rows = {row.name: row for row in Target.objects.filter(name__in=names)}
        unknown = [name for name in names if name not in rows]
        if unknown:
            raise CommandError(f"there is no target named {', '.join(map(repr, unknown))}")
        say, failed = self._say(as_json), False
        for name in names:
            row = rows[name]
            if wrong := problems(row):
                raise CommandError(f"{name}: " + "; ".join(f"{k}: {v}" for k, v in wrong.items()))
            result = try_probe(row.kind, row.address, plain_options(row), row.timeout_s)
            failed = failed or result.outcome == "failed"
            say(name, result)
        if failed:
            raise SystemExit(1)

    def _say(self, as_json: bool) -> Any:
        from healthmon.checker import words

        def say(name: str, result: Any) -> None:
            if as_json:
                self.stdout.write(json.dumps(words.as_json(name, result)))
            else:
                self.stdout.write(words.line(name, result))

        return say


def _run(main: Coroutine[Any, Any, T]) -> T:
    """On uvloop where that is installed and not refused, else on asyncio's own loop."""
    chosen = settings.COLLECTOR.monitoring.event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if chosen != "asyncio":
        try:
            from uvloop import new_event_loop

            factory = new_event_loop
        except ImportError:
            if chosen == "uvloop":
                raise CommandError(
                    "COLLECTOR_CHECKER_EVENT_LOOP asks for uvloop, which is not installed: "
                    ".venv/bin/pip install uvloop, or choose auto"
                ) from None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
