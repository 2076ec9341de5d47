"""Bounded buffers of many producers and one or more takers, to be compared.

Each `put` waits while the buffer is full, each `take` returns what is there, `most` at the most,
and waits while nothing is.  Used from any thread; what guards a buffer stands in its class.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import repeat
from typing import Any, Protocol


class Buffer(Protocol):
    def put(self, item: Any) -> None: ...

    def take(self, most: int) -> list[Any]: ...


class QueueBuffer:
    """The standard library's `queue.Queue`: one lock, three conditions, an item at a time."""

    def __init__(self, capacity: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(capacity)
        self.put = self._queue.put

    def take(self, most: int) -> list[Any]:
        items = [self._queue.get()]
        try:
            for _ in range(most - 1):
                items.append(self._queue.get_nowait())  # noqa: PERF401 - it ends by an error
        except queue.Empty:
            pass
        return items


class RingBuffer:
    """A ring whose slots carry sequence numbers, as in Vyukov's bounded MPMC queue.

    A slot is free for the ticket `seq`, and holds the item of ticket `seq - 1`.  Tickets are drawn
    with `itertools.count`, whose `next` is one step for the interpreter, in place of a
    compare-and-swap: a ticket drawn is a place kept, so who finds its slot not ready waits for
    that slot.  No lock at all; waiting is yielding, then short sleeps, as there is nobody to wake.
    """

    _YIELDS = 64
    _PAUSE_S = 0.00005

    def __init__(self, capacity: int) -> None:
        size = 1 << max(capacity - 1, 1).bit_length()
        self._size, self._mask = size, size - 1
        self._items: list[Any] = [None] * size
        self._sequence = list(range(size))
        self._tail = itertools.count()
        self._head = itertools.count()

    def put(self, item: Any) -> None:
        ticket = next(self._tail)
        slot = ticket & self._mask
        if self._sequence[slot] != ticket:
            self._await(slot, ticket)
        self._items[slot] = item
        self._sequence[slot] = ticket + 1

    def take(self, most: int) -> list[Any]:
        taken: list[Any] = []
        items, sequence, mask, size = self._items, self._sequence, self._mask, self._size
        while True:
            ticket = next(self._head)
            slot = ticket & mask
            if sequence[slot] != ticket + 1:
                # The ticket cannot be given back: with items in hand, one more is waited for.
                self._await(slot, ticket + 1)
                most = 0
            taken.append(items[slot])
            items[slot] = None
            sequence[slot] = ticket + size
            if len(taken) >= most:
                return taken

    def _await(self, slot: int, wanted: int) -> None:
        for attempt in itertools.count():
            if self._sequence[slot] == wanted:
                return
            time.sleep(0 if attempt < self._YIELDS else self._PAUSE_S)


class LockedDequeBuffer:
    """A deque under one lock; a taker takes all that is there, and wakes producers once for it."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[Any] = deque()
        self._capacity = capacity
        self._lock = threading.Lock()
        self._some = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)

    def put(self, item: Any) -> None:
        with self._lock:
            while len(self._items) >= self._capacity:
                self._room.wait()
            self._items.append(item)
            self._some.notify()

    def take(self, most: int) -> list[Any]:
        with self._lock:
            items = self._items
            while not items:
                self._some.wait()
            taken = [items.popleft() for _ in range(min(most, len(items)))]
            self._room.notify_all()
            return taken


class DequeBuffer:
    """A deque whose `append` and `popleft` are steps of the interpreter's own: no lock to hold.

    The room is a deque of permits, so that the bound is exact.  The lock is there for who has to
    wait, and is taken by others only while somebody does: who waits says so and looks again before
    it sleeps, who puts or gives back looks for that afterwards, so no wake-up is lost.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[Any] = deque()
        self._permits: deque[None] = deque([None] * capacity)
        self._lock = threading.Lock()
        self._some = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._takers = self._putters = 0  # that wait; changed under the lock

    def put(self, item: Any) -> None:
        try:
            self._permits.pop()
        except IndexError:
            self._await_permit()
        self._items.append(item)
        if self._takers:
            with self._lock:
                self._some.notify()

    def take(self, most: int) -> list[Any]:
        popleft = self._items.popleft
        taken: list[Any] = []
        while not taken:
            if not self._items:
                self._await_item()
            try:
                for _ in range(min(most, len(self._items))):
                    taken.append(popleft())  # noqa: PERF401 - what is taken must not be lost
            except IndexError:  # another taker was there first
                pass
        self._permits.extend(repeat(None, len(taken)))
        if self._putters:
            with self._lock:
                self._room.notify(len(taken))
        return taken

    def _await_permit(self) -> None:
        with self._lock:
            self._putters += 1
            try:
                while True:
                    try:
                        self._permits.pop()
                        return
                    except IndexError:
                        self._room.wait()
            finally:
                self._putters -= 1

    def _await_item(self) -> None:
        with self._lock:
            self._takers += 1
            while not self._items:
                self._some.wait()
            self._takers -= 1


BUFFERS: dict[str, Callable[[int], Buffer]] = {
    "queue.Queue": QueueBuffer,
    "ring": RingBuffer,
    "deque, one lock": LockedDequeBuffer,
    "deque, permits": DequeBuffer,
}
