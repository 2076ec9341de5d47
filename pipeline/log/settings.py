"""The settings of the log in files, checked against one another when made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
FSYNCS = ("group", "interval", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Where the log is and how it is kept.

    `fsync`: "group" syncs before an offer is acknowledged, many at once; "interval" every
    `fsync_interval_s`; "never" leaves it to the kernel.  `segment_bytes` is the size of a file,
    `cache_bytes` what frames may take in memory, `max_bytes` what all files of one process's log
    may take on disk.  Every `adopt_every_s` the logs of dead processes are looked for.
    """

    directory: Path
    fsync: str = "group"
    fsync_interval_s: float = 1.0
    segment_bytes: int = 16 * MIB
    cache_bytes: int = 64 * MIB
    max_bytes: int = 4096 * MIB
    adopt_every_s: float = 15.0

    def __post_init__(self) -> None:
        problems = list(self.problems())
        if problems:
            raise ValueError("; ".join(problems))

    def problems(self) -> list[str]:
        """Every broken rule, each naming its fields."""
        rules = (
            (self.fsync in FSYNCS, f"fsync must be one of {', '.join(FSYNCS)}"),
            (self.fsync_interval_s > 0, "fsync_interval_s must be positive"),
            (
                self.segment_bytes >= 4096 and self.segment_bytes % 8 == 0,
                "segment_bytes must be at least 4096 and a multiple of 8",
            ),
            (self.adopt_every_s > 0, "adopt_every_s must be positive"),
            (self.cache_bytes >= 0, "cache_bytes must not be negative"),
            (
                self.max_bytes >= 2 * self.segment_bytes,
                f"max_bytes ({self.max_bytes}) must hold at least two files of segment_bytes "
                f"({self.segment_bytes})",
            ),
        )
        return [message for holds, message in rules if not holds]
