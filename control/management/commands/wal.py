"""`manage.py wal inspect` and `wal verify`: what logs hold, read in place and read only.

Needs no database and no server; a log whose process lives may be read as well. Runs on the
command's main thread.
"""

from __future__ import annotations

import itertools
import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError

from control.admin.figures import size
from control.admin.logdirs import directory
from pipeline.ids import id_run
from pipeline.log.inspect import (
    Damage,
    FrameInfo,
    LogReport,
    SegmentReport,
    frames_of,
    inspect_log,
    logs_under,
)
from pipeline.record import decode_records


class Command(BaseCommand):
    help = (
        "Read logs in place, also those of living processes, without a database. "
        "inspect shows what each log holds and what its sinks are still owed; verify reads every "
        "byte and exits with 1 when anything is corrupt. DIR is one log's directory or the "
        "directory of all logs; by default this installation's."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="inspect|verify")
        inspect = actions.add_parser("inspect", help="show what logs hold")
        inspect.add_argument("--frames", action="store_true", help="list every frame")
        inspect.add_argument(
            "--records", type=int, default=0, metavar="N", help="print each log's first N records"
        )
        verify = actions.add_parser("verify", help="exit with 1 when anything is corrupt")
        for one in (inspect, verify):
            one.add_argument("directory", nargs="?", type=Path, metavar="DIR")
            one.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, **options: Any) -> None:
        path = options["directory"] or directory()
        try:
            # Before the first start there is no directory, and nothing wrong with that.
            found = logs_under(path) if options["directory"] or path.exists() else []
            reports = [inspect_log(log) for log in found]
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}", returncode=2) from error
        frames = bool(options.get("frames"))
        records = max(0, options.get("records") or 0)
        if options["json"]:
            logs = [self._as_json(report, frames=frames, records=records) for report in reports]
            corrupt = any(report.corrupt for report in reports)
            self.stdout.write(
                json.dumps({"directory": str(path), "corrupt": corrupt, "logs": logs})
            )
        elif options["action"] == "inspect":
            self._inspect(path, reports, frames=frames, records=records)
        else:
            self._verify(path, reports)
        if options["action"] == "verify" and any(report.corrupt for report in reports):
            raise SystemExit(1)

    def _inspect(self, path: Path, reports: list[LogReport], *, frames: bool, records: int) -> None:
        if not reports:
            self.stdout.write(f"No log lies under {_inert(path)}.")
        for report in reports:
            self._lines(_log_lines(report))
            if frames:
                self._lines(_frame_lines(Path(report.directory)))
            if records:
                self._lines(
                    json.dumps(record) for record in _records(Path(report.directory), records)
                )

    def _verify(self, path: Path, reports: list[LogReport]) -> None:
        for report in reports:
            self._lines(_verdict_lines(report))
        bad = sum(report.corrupt for report in reports)
        self.stdout.write(
            f"{_count(len(reports), 'log')} under {_inert(path)}: "
            + (f"{bad} with damage" if bad else "everything is sound")
        )

    def _lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.stdout.write(line)

    def _as_json(self, report: LogReport, *, frames: bool, records: int) -> dict[str, Any]:
        data: dict[str, Any] = msgspec.to_builtins(report)
        # Entries are arrays on disk, and read better by name here.
        data["tallies"] = [
            {"sink": one.sink, "tenant": one.tenant, **msgspec.to_builtins(one.tally)}
            for one in report.tallies
        ]
        data["corrupt"] = report.corrupt
        path = Path(report.directory)
        if frames:
            data["frames"] = [_frame_json(name, frame) for name, frame in frames_of(path)]
        if records:
            data["records"] = list(_records(path, records))
        return data


def _log_lines(report: LogReport) -> Iterator[str]:
    owner = f"written by process {report.owner}" if report.owner else "no living process owns it"
    yield f"log {_inert(report.log_id)}: {owner}"
    state = f"checkpoint {report.generation}" if report.generation else "no checkpoint yet"
    yield (
        f"  {state}, {_count(report.entries, 'entry', 'entries')} since; "
        f"{_count(report.batches, 'batch', 'batches')} not settled; "
        f"next frame {report.next_position}"
    )
    for one in report.segments:
        yield f"  {one.name}: {_held(one)}"
    if report.settled:
        yield f"  settled and not deleted yet: {', '.join(map(_inert, report.settled))}"
    for sink, left in report.left.items():
        yield f"  sink {_inert(sink)}: {left:,} records left"
    if report.oldest_us is not None:
        yield f"  the oldest of them came {_time(report.oldest_us)}"
    yield from _damage_lines(report)


def _held(one: SegmentReport) -> str:
    positions = f", {one.first_position} to {one.last_position}" if one.frames else ""
    return (
        f"{_count(one.frames, 'frame')}{positions}, {one.records:,} records, "
        f"{size(one.nbytes)} of {size(one.size)}"
    )


def _verdict_lines(report: LogReport) -> Iterator[str]:
    frames = sum(one.frames for one in report.segments)
    verdict = "DAMAGED" if report.corrupt else "sound"
    yield (
        f"log {_inert(report.log_id)}: {verdict}; {_count(len(report.segments), 'segment')}, "
        f"{_count(frames, 'frame')}, {sum(report.left.values()):,} records left"
    )
    yield from _damage_lines(report)


def _damage_lines(report: LogReport) -> Iterator[str]:
    for trouble in report.troubles:
        yield f"  {_inert(trouble)}"
    for one in report.segments:
        for damage in one.damages:
            yield f"  {one.name} at {damage.offset}: {_damage(damage)}"
        if one.unfinished:
            yield f"  {one.name}: a frame is being written at its end"


def _damage(damage: Damage) -> str:
    held = f"{damage.header.count:,} records" if damage.header else "nobody knows what it held"
    tail = "; nothing sound follows" if damage.tail else ""
    return f"{damage.nbytes:,} bytes, {damage.why} ({held}{tail})"


def _frame_lines(path: Path) -> Iterator[str]:
    for name, frame in frames_of(path):
        meta = frame.meta
        shares = " ".join(f"{_inert(one.sink)}={one.count}" for one in meta.shares)
        yield (
            f"  {name}:{frame.offset}  frame {frame.position}  {frame.count:,} {_inert(meta.type)} "
            f"records of {_inert(meta.tenant)}  {size(frame.nbytes)}  {_time(frame.received_us)}  "
            f"{shares}"
        )


def _frame_json(name: str, frame: FrameInfo) -> dict[str, Any]:
    data: dict[str, Any] = {
        "segment": name,
        "offset": frame.offset,
        "position": frame.position,
        "count": frame.count,
        "nbytes": frame.nbytes,
        "received_us": frame.received_us,
        "id_base": frame.id_base,
    }
    for field in ("type", "tenant", "request_id", "traceparent", "key"):
        data[field] = getattr(frame.meta, field)
    data["shares"] = [
        {name: getattr(one, name) for name in one.__struct_fields__} for one in frame.meta.shares
    ]
    return data


def _records(path: Path, limit: int) -> Iterator[dict[str, Any]]:
    """The first records of a log, oldest first, as they were sent."""
    return itertools.islice(_all_records(path), limit)


def _all_records(path: Path) -> Iterator[dict[str, Any]]:
    for _, frame in frames_of(path):
        ids = id_run(frame.id_base, frame.count)
        for record_id, record in zip(ids, decode_records(frame.payload), strict=True):
            yield {
                "id": record_id,
                "type": frame.meta.type,
                "tenant": frame.meta.tenant,
                "timestamp": _time(record.timestamp_us),
                "severity": record.severity,
                "service": record.service,
                "message": record.message,
                "payload": record.payload.decode("utf-8", "backslashreplace"),
            }


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _time(time_us: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    except (OverflowError, OSError, ValueError):
        return f"{time_us} us"


def _inert(value: object) -> str:
    """Names come from outside: none of them may steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(value))
