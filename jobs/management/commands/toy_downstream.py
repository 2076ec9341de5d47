"""`manage.py toy_downstream`: the options, the signals, what is printed.

The server has threads of its own; the main thread waits for the signal.
"""

from __future__ import annotations

import json
import signal
import threading
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from jobs.toy.behaviour import Behaviour
from jobs.toy.journal import Journal
from jobs.toy.server import Toy

_DESCRIPTION = """\
Run a downstream service to try jobs with, on a loopback port, until SIGTERM or Ctrl-C.

It answers every path with 200 and JSON, but for the share of calls that it was told to fail (503),
to leave hanging, and the time that it was told to be down (connections are reset).  The same seed
gives the same failures to the same calls, in whatever order they come.

  GET  /counts               how many calls, tokens (Idempotency-Key), and what was done again
  GET  /journal?limit=100    the last calls: token, path, time, outcome
  GET  /tokens               for each token how often it came, and how often it was done
  POST /control/down?for_s=30, /control/up
  ANY  /faults/NAME          hang, drip, reset, close, garbage, endless-head, bad-json, short,
                             large, bomb, status?code=, redirect?to=, circle
"""


class Command(BaseCommand):
    help = _DESCRIPTION
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=0, help="0, the default: any free one")
        parser.add_argument("--fail-rate", type=_share, default=0.0, help="a share, 0 to 1")
        parser.add_argument("--hang-rate", type=_share, default=0.0, help="a share, 0 to 1")
        parser.add_argument(
            "--latency", type=_latency, default=(0.0, 0.0), metavar="S|LOW-HIGH",
            help="seconds that an answer takes, such as 0.05 or 0.01-0.2",
        )  # fmt: skip
        parser.add_argument(
            "--down-after", type=_seconds, metavar="S", help="be down so long after the first call"
        )
        parser.add_argument(
            "--down-for", type=_seconds, default=30.0, metavar="S", help="for so long; 30"
        )
        parser.add_argument(
            "--retry-after", type=_seconds, metavar="S", help="say so with every failure"
        )
        parser.add_argument("--seed", type=int, default=0, help="another one: other failures")
        parser.add_argument("--log", type=Path, metavar="FILE", help="append each call as JSON")
        parser.add_argument("--json", action="store_true", help="print the address as JSON")

    def handle(self, **options: Any) -> None:
        if options["fail_rate"] + options["hang_rate"] > 1:
            raise CommandError("--fail-rate and --hang-rate are more than all calls together.")
        behaviour = Behaviour(
            fail_rate=options["fail_rate"],
            hang_rate=options["hang_rate"],
            latency_s=options["latency"],
            down_after_s=options["down_after"],
            down_for_s=options["down_for"],
            retry_after_s=options["retry_after"],
            seed=options["seed"],
        )
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        try:
            toy = Toy(
                behaviour=behaviour, journal=Journal(file=options["log"]), port=options["port"]
            )
        except (OSError, OverflowError) as error:
            raise CommandError(f"It cannot listen, or write its log: {error}") from None
        toy.start()
        try:
            self._say({"url": toy.url}, f"The toy downstream service listens at {toy.url}", options)
            stop.wait()
        finally:
            counts = toy.journal.counts()
            toy.stop()
        words = (
            f"{counts['calls']} calls, {counts['tokens']} tokens, {counts['done']} done,"
            f" {counts['done_again_count']} of them again"
        )
        self._say(counts, words, options)

    def _say(self, value: dict[str, Any], words: str, options: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(value) if options["json"] else words)
        self.stdout.flush()


def _share(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"{text} is no share; give one from 0 to 1, such as 0.3")
    return number


def _seconds(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 86_400:
        raise ArgumentTypeError(f"{text} is no time; give seconds, at most a day")
    return number


def _latency(text: str) -> tuple[float, float]:
    low, dash, high = text.partition("-")
    span = _seconds(low), _seconds(high) if dash else _seconds(low)
    if span[0] > span[1]:
        raise ArgumentTypeError(f"{text} ends before it begins; give it like 0.01-0.2")
    return span


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None
