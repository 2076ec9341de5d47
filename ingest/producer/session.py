"""Owns: one run from its start to its result: what is printed or drawn, and the end in order.

Runs on the command's main thread; the engine's threads say their lines through it. Signal handlers
only set events.
"""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack

from rich.console import Console
from rich.live import Live

from ingest.producer.progress import EngineLines, Progress
from ingest.producer.run import Outcome, Run
from ingest.producer.samples import History, metrics_line
from ingest.producer.troubles import Troubles
from ingest.producer.watch import Picture

_METRICS_EVERY_S = 1.0
_DRAW_EVERY_S = 0.25
_HISTORY = 480  # two minutes


class Session:
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
        """The run cannot go on; called by any thread.

        The reason and the result say it all: what the end in a hurry looks like from within is not
        told.
        """
        self.fatal = self.fatal or reason
        self.progress.hush()
        self._over.set()
        self._hurried.set()

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
        # Not by way of `progress`, which may be hushed.
        self._say(outcome.line())
        if not self.fatal:
            self._say("Program finished")
        return outcome

    def _say(self, line: str) -> None:
        picture = self._picture
        if picture is not None:
            picture.say(line)
        else:
            self._out.print(line, markup=False)

    def _print(self, run: Run) -> None:
        before = run.sample()
        troubles = Troubles()
        while not self._over.wait(_METRICS_EVERY_S):
            after = run.sample()
            self.progress.say(metrics_line(before, after))
            if said := troubles.new(after, run.last_error):
                self.progress.say(said)
            before = after

    def _draw(self, run: Run, where: str) -> None:
        self._history.add(run.sample())
        picture = Picture(options=run.options, history=self._history, where=where)
        self._picture = picture
        troubles = Troubles()
        try:
            with Live(
                picture, console=self._out, screen=True, auto_refresh=False, transient=True
            ) as live:
                while not self._over.wait(_DRAW_EVERY_S):
                    sample = run.sample()
                    self._history.add(sample)
                    if said := troubles.new(sample, run.last_error):
                        self.progress.say(said)
                    live.refresh()
        finally:
            self._picture = None
        # What the screen showed last stays on the terminal, above the lines of the end.
        self._out.print(picture.last(self._out.width))

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
            if not self.fatal:
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
