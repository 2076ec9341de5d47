"""JSON, MessagePack and protobuf on the wire: records a second, where the time goes, and bytes.

In this process and on one thread: a body of a thousand records, from its bytes to records ready
for the log.  The two that are not JSON also the obvious way, as they were read at first.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable
from typing import Any

import zstandard

from benchmarks import wire
from benchmarks.comparison import Comparison, Panel
from benchmarks.figure import Figure
from benchmarks.plan import Plan
from ingest.wire.decode import Decoded
from ingest.wire.formats import Format

BATCH = 1000
_PROFILED = 12  # functions in the notes
_SLICES = 5


def measure(plan: Plan) -> list[Figure]:
    rounds = max(min(plan.records, 200_000) // BATCH // _SLICES, 1)
    plain = wire.ndjson(BATCH)
    sent = {name: encode(plain) for name, (encode, _) in wire.formats().items()}
    formats = {name: format for name, (_, format) in wire.formats().items()}
    ways: dict[str, Callable[[], Decoded]] = {
        name: _taking(sent[name], formats[name]) for name in sent
    }
    ways["MessagePack, the obvious way"] = lambda: wire.plainly_msgpack(sent["MessagePack"])
    ways["protobuf, the obvious way"] = lambda: wire.plainly_protobuf(sent["protobuf"])
    _check(ways)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(plan.repetitions):
        plan.say(f"serialization: repetition {repetition + 1} of {plan.repetitions}")
        for name, seconds in _in_turns(ways, rounds).items():
            rates[name].append(BATCH * rounds * _SLICES / seconds)
    figures = [
        _against(name, base, rates)
        for name, base in (
            ("MessagePack", "JSON"),
            ("protobuf", "JSON"),
            ("MessagePack", "MessagePack, the obvious way"),
            ("protobuf", "protobuf, the obvious way"),
        )
    ]
    for figure, name in zip(figures, ("MessagePack", "protobuf"), strict=False):
        figure.notes = {"profile_us_a_record": _profile(ways[name])}
    figures[2].notes = {"profile_us_a_record": _profile(ways["MessagePack, the obvious way"])}
    figures[3].notes = {"profile_us_a_record": _profile(ways["protobuf, the obvious way"])}
    plan.show(_comparison(plan, rates, sent))
    return figures


def _taking(body: bytes, format: Format) -> Callable[[], Decoded]:
    return lambda: wire.taken(body, format)


def _in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Processor seconds of each: what else runs on the machine does not count, but for its caches.

    Taken in slices, so that what slows the machine for a while slows all.
    """
    seconds = dict.fromkeys(ways, 0.0)
    for _ in range(_SLICES):
        for name, way in ways.items():
            started = time.thread_time()
            for _ in range(rounds):
                way()
            seconds[name] += time.thread_time() - started
    return seconds


def _against(name: str, base: str, rates: dict[str, list[float]]) -> Figure:
    what = "bytes to records" if base in wire.formats() else "gained over the obvious way"
    figure = Figure(name=f"wire: {name}, {what}", unit="records/s", goal=0.0, baseline_name=base)
    for value, baseline in zip(rates[name], rates[base], strict=True):
        figure.add(value, baseline)
    return figure


def _profile(way: Callable[[], Any]) -> dict[str, float]:
    """Microseconds a record in each function itself, the most first; a profiler inflates Python."""
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(10):
        way()
    profiler.disable()
    stats: Any = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    own = sorted(stats.items(), key=lambda item: -item[1][2])[:_PROFILED]
    return {
        f"{file.rpartition('/')[2]}:{name}" if line else name: round(each[2] * 1e6 / 10 / BATCH, 3)
        for (file, line, name), each in own
    }


def _check(ways: dict[str, Callable[[], Decoded]]) -> None:
    """All make the same records of the body; raises if not."""
    kept = {name: [_seen(one) for one in way().records["default"]] for name, way in ways.items()}
    expected = kept["JSON"]
    for name, records in kept.items():
        if records != expected or len(records) != BATCH:
            raise RuntimeError(f"{name} does not give the records that JSON gives")


def _seen(record: Any) -> tuple[Any, ...]:
    return (record.timestamp_us, record.severity, record.service, record.message, record.trace_id)


def _comparison(plan: Plan, rates: dict[str, list[float]], sent: dict[str, bytes]) -> Comparison:
    speed = Panel(title="Bytes to records", unit="records per processor second")
    for name, values in rates.items():
        speed.add(name, values)
    size = Panel(title="On the wire", unit="bytes a record", less_is_better=True)
    pack = zstandard.ZstdCompressor().compress
    for name, body in sent.items():
        size.add(name, [len(body) / BATCH], group="as it is")
    for name, body in sent.items():
        size.add(name, [len(pack(body)) / BATCH], group="with zstd")
    return Comparison(
        name="serialization",
        title="JSON, MessagePack and protobuf on the wire",
        setting=f"Requests of {BATCH:,} records of about 190 bytes as JSON, decoded on one thread "
        f"to records ready for the log. Medians of {plan.repetitions} repetitions, taken in turns.",
        panels=[speed, size],
    )
