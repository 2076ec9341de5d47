"""What stands between producers and the worker: three buffers, item by item and by requests.

    python -m benchmarks buffer --plot

The engine hands over whole requests, so the last rows count the same items in lists of a thousand.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks.buffers import BUFFERS, Buffer
from benchmarks.comparison import Comparison, Panel
from benchmarks.figure import Figure
from benchmarks.plan import Plan

CAPACITY = 65_536
TAKE = 1_000
PRODUCERS = (1, 4, 16)
_REQUEST = 1_000
_WAIT_S = 300.0


def measure(plan: Plan) -> list[Figure]:
    items = min(max(plan.records, PRODUCERS[-1] * _REQUEST) * 2, 1_000_000)
    panel = Panel(title="Handed over", unit="items/s")
    comparison = Comparison(
        name="buffer",
        title="Three buffers between producers and one worker",
        setting=f"{items:,} items through room for {CAPACITY:,}; the worker takes what is there, "
        f"{TAKE:,} at most; every item counted and each producer's in order. Bars are medians of "
        f"{plan.repetitions} repetitions.",
        panels=[panel],
    )
    figures = []
    shapes = [(producers, 1) for producers in PRODUCERS] + [(PRODUCERS[-1], _REQUEST)]
    for producers, size in shapes:
        group = f"{producers} producer{'s' if producers > 1 else ''}"
        if size > 1:
            group += f", lists of {size:,}"
        rates: dict[str, list[float]] = {name: [] for name in BUFFERS}
        for repetition in range(plan.repetitions):
            plan.say(f"buffer, {group}: repetition {repetition + 1} of {plan.repetitions}")
            for name, kind in BUFFERS.items():
                capacity = max(CAPACITY // size, 1)
                rates[name].append(
                    hand_over(kind(capacity), items=items, producers=producers, size=size)
                )
        baseline = rates["queue.Queue"]
        for name, measured in rates.items():
            panel.add(name, measured, group=group)
            if name == "queue.Queue":
                continue
            figure = Figure(
                name=f"buffer: {name}, {group}",
                unit="items/s",
                goal=0.0,
                baseline_name="queue.Queue",
            )
            for value, base in zip(measured, baseline, strict=True):
                figure.add(value, base)
            figures.append(figure)
    plan.show(comparison)
    return figures


def hand_over(buffer: Buffer, *, items: int, producers: int, size: int = 1) -> float:
    """Items a second from the first put until the last is taken; raises if one is lost or late.

    With `size` they are put in lists of that many.
    """
    share = items // producers // size
    began: list[float] = []
    start = threading.Barrier(producers + 1, action=lambda: began.append(time.perf_counter()))

    def produce(number: int) -> None:
        put = buffer.put
        made: list[Any] = [(number, n) for n in range(share)]
        if size > 1:
            made = [[one] * size for one in made]
        start.wait(_WAIT_S)
        for item in made:
            put(item)

    threads = [
        threading.Thread(target=produce, args=(number,), daemon=True) for number in range(producers)
    ]
    for thread in threads:
        thread.start()
    start.wait(_WAIT_S)
    taken: list[Any] = []
    wanted = share * producers
    while len(taken) < wanted:
        taken += buffer.take(min(TAKE, wanted - len(taken)))
    seconds = time.perf_counter() - began[0]
    for thread in threads:
        thread.join(_WAIT_S)
    _check([item[0] for item in taken] if size > 1 else taken, producers, share)
    return wanted * size / seconds


def _check(taken: list[tuple[int, int]], producers: int, share: int) -> None:
    following = [0] * producers
    for number, n in taken:
        if n != following[number]:
            raise RuntimeError(
                f"producer {number}: item {n} came where {following[number]} was due"
            )
        following[number] += 1
    if set(following) != {share}:
        raise RuntimeError(f"of {share} items of each producer came {following}")
