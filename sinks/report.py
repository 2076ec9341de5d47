"""The ledger as a person reads it at the end of a process, and as a log line.

Pure functions over `Engine.stats()`; `to_stderr` prints.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from sinks.closing import closed, uneven

_SUMMARY = ("enqueued", "flushed_ok", "flushed_fail", "dropped_on_shutdown", "left_in_log")
logger = logging.getLogger(__name__)

_COLUMNS = (
    "accepted", "redriven", "stored", "already_stored", "dead_lettered", "dropped", "in_flight",
    "left_in_log", "imbalance",
)  # fmt: skip


def table(stats: dict[str, Any]) -> str:
    """One line per sink and tenant, and the totals."""
    stats = closed(stats)
    rows = [[_text(row["sink"]), _text(row["tenant"]), *_counts(row)] for row in stats["ledger"]]
    heads = ["sink", "tenant", *(name.replace("_", " ") for name in _COLUMNS)]
    if len(rows) > 1:
        sums = [sum(int(row[i]) for row in rows) for i in range(2, len(heads))]
        rows.append(["total", "", *map(str, sums)])
    if not rows:
        return f"ledger of log {stats['log_id']}: no records were accepted\n"
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
    lines = [f"ledger of log {stats['log_id']}"]
    for line in [heads, *rows]:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    for row in stats["ledger"]:
        for reason, count in sorted(row["dropped"].items()):
            where = f"{_text(row['sink'])}/{_text(row['tenant'])}"
            lines.append(f"  dropped by {where}: {count} ({reason})")
    lines.append(f"  {summary(stats)}")
    return "\n".join(lines) + "\n"


def summary(stats: dict[str, Any]) -> str:
    """The law of a stop in one line, and whether it holds."""
    rows = closed(stats)["ledger"]
    total = {name: sum(row[name] for row in rows) for name in _SUMMARY}
    off = sum(abs(uneven(row)) for row in rows)
    verdict = "balanced" if not off else f"OUT OF BALANCE BY {off}"
    enqueued, *ended = (f"{name} {count}" for name, count in total.items())
    return f"{enqueued} = {' + '.join(ended)}: {verdict}"


def balanced(stats: dict[str, Any]) -> bool:
    """Whether every accepted record is accounted for."""
    return not any(row["imbalance"] for row in stats["ledger"])


def log(stats: dict[str, Any], *, settled: bool) -> None:
    """The same as one log line for machines."""
    stats = closed(stats)
    rows = stats["ledger"]
    left = sum(row["left_in_log"] for row in rows)
    lost = sum(row["dropped_on_shutdown"] + row["in_flight"] for row in rows)
    if lost or not balanced(stats):
        say = logger.error
    else:
        say = logger.info if settled else logger.warning
    say(
        "pipelines stopped",
        extra={
            "log_id": stats["log_id"],
            "settled": settled,
            "balanced": balanced(stats),
            "left_in_log": left,
            "ledger": rows,
        },
    )


def to_stderr(text: str) -> None:
    """Print in one write, so that several workers' tables do not mix."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # the terminal is gone; the log line has the figures


def _counts(row: dict[str, Any]) -> Iterable[str]:
    for name in _COLUMNS:
        value = row[name]
        yield str(sum(value.values()) if isinstance(value, dict) else value)


def _text(value: str) -> str:
    return value.encode("unicode_escape").decode("ascii")
