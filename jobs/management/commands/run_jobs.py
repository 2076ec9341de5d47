"""`manage.py run_jobs`: the options, the signals, the exit status.

The main thread waits for a signal; see `jobs.running.runner` for the threads that work.
"""

from __future__ import annotations

import queue
import signal
from argparse import RawDescriptionHelpFormatter
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

LOOK_S = 0.5

_DESCRIPTION = """\
Run the jobs that wait, until SIGTERM or Ctrl-C: jobs in hand may then end for 20 seconds
(COLLECTOR_JOBS_STOP_S), and what has not ended goes back to the queue at no cost.  A second Ctrl-C
gives everything back at once.

Start as many as you like, on any machine with the same control database: they share the jobs, and
when one dies the others run what it held within a lease (COLLECTOR_JOBS_LEASE_S, 10 seconds).

Exit status 0 when everything ended or was given back; 1 when something hung: its job is given
back, but what it does is not undone.  A runner in which too many steps hang ends by itself, with 1,
so that whoever supervises it starts another.
"""


class Command(BaseCommand):
    help = _DESCRIPTION

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--until-idle",
            action="store_true",
            help="end when no job is queued, scheduled or running any more",
        )

    def handle(self, **options: Any) -> None:
        from control.processes import lifecycle, stopsignals
        from control.processes.garbage import settle_memory
        from jobs.running.service import current

        # Of what threads wait for, only this may be touched by a handler: an event's lock may be
        # held by the very thread that the handler interrupts.
        told: queue.SimpleQueue[int] = queue.SimpleQueue()
        stopping = False

        def tell(number: int, frame: FrameType | None) -> None:
            if stopping:
                stopsignals.while_stopping(number, frame)
            else:
                told.put(number)

        for number in stopsignals.STOP_SIGNALS:
            signal.signal(number, tell)
        # A terminal that closes is no reason to stop; the supervisor says when.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        lifecycle.start("jobs")
        settle_memory()
        try:
            while not _told(told) and not _stuck():
                if options["until_idle"] and _idle():
                    break
        finally:
            stopping = True
            complete = lifecycle.stop(settings.COLLECTOR.server.stop_deadline_s - 1)
            stopsignals.ignore()
        if not (complete and current().complete):
            raise SystemExit(1)


def _told(told: queue.SimpleQueue[int]) -> bool:
    try:
        told.get(timeout=LOOK_S)
    except queue.Empty:
        return False
    return True


def _stuck() -> bool:
    from jobs.running.service import current

    runner = current().runner
    return runner is not None and runner.stuck


def _idle() -> bool:
    from jobs.states import OPEN
    from jobs.store.database import store

    return not any(states.get(state) for states in store().counts().values() for state in OPEN)
