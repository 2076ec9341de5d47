"""The slot that holds a pipeline's sink object, so that it can be changed under running workers.

Workers `use` the sink; the control thread replaces it.  A replaced sink is closed by whoever used
it last, in a thread of its own.  `_lock` guards the current holder, those that are leaving and the
numbers of users; a holder's `open_lock` makes `open` happen once at a time, outside `_lock`, so
that a slow `open` never blocks a replacement.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.sink import Sink

log = logging.getLogger(__name__)

# Fits into a stop's last second, which is kept for ending things.
CLOSE_S = 0.5


class _Holder:
    __slots__ = ("factory", "open_lock", "opened", "replaced", "sink", "users")

    def __init__(self, factory: Callable[[], Sink]) -> None:
        self.factory = factory
        self.sink: Sink | None = None
        self.opened = False
        self.open_lock = threading.Lock()
        self.users = 0
        self.replaced = False


class SinkSlot:
    """One sink, made and opened when first used, replaceable at any time."""

    def __init__(self, factory: Callable[[], Sink]) -> None:
        self._lock = threading.Lock()
        self._holder = _Holder(factory)
        self._leaving: list[_Holder] = []  # replaced, and still used by a write

    @contextmanager
    def use(self) -> Iterator[Sink]:
        """The open sink for one write; errors of making and opening it come out here."""
        with self._lock:
            holder = self._holder
            holder.users += 1
        try:
            with holder.open_lock:
                if holder.sink is None:
                    holder.sink = holder.factory()
                if not holder.opened:
                    holder.sink.open()
                    holder.opened = True
            yield holder.sink
        finally:
            with self._lock:
                holder.users -= 1
                last = holder.replaced and holder.users == 0
                if last:
                    self._leaving.remove(holder)
            if last:
                _close(holder)

    def replace(self, factory: Callable[[], Sink]) -> None:
        """Writes begun from now on go to a sink made by `factory`."""
        with self._lock:
            old, self._holder = self._holder, _Holder(factory)
            old.replaced = True
            idle = old.users == 0
            if not idle:
                self._leaving.append(old)
        if idle:
            _close(old)

    def abort(self) -> None:
        """Make writes that hang fail soon, those into a replaced sink too."""
        with self._lock:
            sinks = [holder.sink for holder in (self._holder, *self._leaving)]
        for sink in sinks:
            if sink is None:
                continue
            try:
                sink.abort()
            except Exception:
                log.exception("aborting a sink failed; a write that hangs keeps its thread")

    def close(self) -> None:
        """Close the sink, now or when its last user is done; a later use opens a new one."""
        self.replace(self._holder.factory)


def _close(holder: _Holder) -> None:
    """Close a sink that nobody uses, waiting `CLOSE_S` for it at most.

    In a thread of its own: a sink that hangs while it closes must hold up neither a stop's
    deadline nor the control thread's heartbeat.
    """
    sink = holder.sink
    if sink is None:
        return
    thread = threading.Thread(target=_close_sink, args=(sink,), name="sink-close", daemon=True)
    thread.start()
    thread.join(CLOSE_S)
    if thread.is_alive():
        log.error("closing a sink takes longer than %g s; it is left to itself", CLOSE_S)


def _close_sink(sink: Sink) -> None:
    try:
        sink.close()
    except Exception:
        log.exception("closing a sink failed; its connections may stay until the process ends")
