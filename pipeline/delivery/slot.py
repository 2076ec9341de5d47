"""The slot that holds a pipeline's sink object, so that it can be changed under running workers.

Workers `use` the sink; the control thread replaces it; the watchdog abandons it when a write into
it hangs.  A sink that left is closed by whoever used it last, in a thread of its own.  `_lock`
guards the current holder, those that are leaving, their users and whether they are open; `_opened`
tells of the end of an `open`, which happens once at a time and outside the lock, so that a slow
one never blocks a replacement.

Why a hung write costs the whole sink object: `abort` is all that the engine can ask of a sink, and
it breaks every write into that object.  So the slot first gets a fresh one, for all that is written
from then on, and only then is the old one aborted: no write is begun on a sink that is being cut
off, and nobody waits behind an `open` that hangs.  Writes that were in flight beside the hung one
fail as `Abandoned`, which is neither their batch's fault nor a new one of the sink's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.errors import PartialFailure, PermanentError, RetryableError
from pipeline.sink import Sink

log = logging.getLogger(__name__)

# Fits into a stop's last second, which is kept for ending things.
CLOSE_S = 0.5


class Abandoned(RetryableError):
    """The sink object was given up under this write, because a write into it hung."""


class _Holder:
    __slots__ = ("abandoned", "factory", "opened", "opening", "replaced", "sink", "users")

    def __init__(self, factory: Callable[[], Sink]) -> None:
        self.factory = factory
        self.sink: Sink | None = None
        self.opening = False
        self.opened = False
        self.users: list[str] = []
        self.replaced = False
        self.abandoned = False


class SinkSlot:
    """One sink, made and opened when first used, replaceable at any time."""

    def __init__(self, factory: Callable[[], Sink]) -> None:
        self._lock = threading.Lock()
        self._opened = threading.Condition(self._lock)
        self._holder = _Holder(factory)
        self._leaving: list[_Holder] = []  # replaced, and still used by a write

    @contextmanager
    def use(self, user: str = "") -> Iterator[Sink]:
        """The open sink for one write; errors of making and opening it come out here.

        `user` is the name that `abandon` knows this write by.
        """
        with self._lock:
            holder = self._holder
            holder.users.append(user)
        try:
            yield self._open(holder)
        except (PermanentError, PartialFailure):
            raise  # an answer, however late
        except Exception as error:
            if holder.abandoned and not isinstance(error, Abandoned):
                raise Abandoned(f"{type(error).__name__}: {error}") from error
            raise
        finally:
            with self._lock:
                holder.users.remove(user)
                last = holder.replaced and not holder.users
                if last:
                    self._leaving.remove(holder)
            if last:
                _close(holder)

    def _open(self, holder: _Holder) -> Sink:
        with self._lock:
            while holder.opening and not holder.abandoned:
                self._opened.wait()
            holder.opening = opens = not (holder.opened or holder.abandoned)
        if opens:
            try:
                if holder.sink is None:
                    holder.sink = holder.factory()
                holder.sink.open()
                holder.opened = True
            finally:
                with self._lock:
                    holder.opening = False
                    self._opened.notify_all()
        if holder.abandoned:
            raise Abandoned("the sink hung while it was opened")
        assert holder.sink is not None
        return holder.sink

    def replace(self, factory: Callable[[], Sink]) -> None:
        """Writes begun from now on go to a sink made by `factory`."""
        with self._lock:
            old, idle = self._put(_Holder(factory))
        if idle:
            _close(old)

    def _put(self, new: _Holder) -> tuple[_Holder, bool]:
        """The new holder in the place of the old, which is returned, and whether nobody uses it."""
        old, self._holder = self._holder, new
        old.replaced = True
        if old.users:
            self._leaving.append(old)
        return old, not old.users

    def abandon(self, user: str) -> bool:
        """Give up the sink that `user` is writing into; returns whether there was one.

        Writes begun from now on go to a fresh sink, the old one is aborted in a thread of its own
        (what hangs a write may hang the abort), and a write that has not reached it never will.
        """
        with self._lock:
            used = [h for h in (self._holder, *self._leaving) if user in h.users]
            cut = [holder for holder in used if not holder.abandoned]
            for holder in cut:
                holder.abandoned = True
                if holder is self._holder:
                    self._put(_Holder(holder.factory))
            self._opened.notify_all()
        for holder in cut:
            threading.Thread(
                target=_abort, args=(holder,), name=f"{user}-abort", daemon=True
            ).start()
        return bool(used)

    def abort(self) -> None:
        """Make writes that hang fail soon, those into a replaced sink too."""
        with self._lock:
            holders = [self._holder, *self._leaving]
        for holder in holders:
            _abort(holder)

    def forget(self, log_id: str) -> None:
        """Tell the open sink, if it wants to know, that a log is finished and removed."""
        with self._lock:
            holder = self._holder
            sink = holder.sink if holder.opened else None
        forget = getattr(sink, "forget", None)
        if forget is None:
            return
        try:
            forget(log_id)
        except Exception:
            log.exception("a sink keeps what it need not of the finished log %s", log_id)

    def close(self) -> None:
        """Close the sink, now or when its last user is done; a later use opens a new one."""
        self.replace(self._holder.factory)


def _abort(holder: _Holder) -> None:
    if holder.sink is None:
        return
    try:
        holder.sink.abort()
    except Exception:
        log.exception("aborting a sink failed; a write that hangs keeps its thread")


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
