"""One target as the checker's loop holds it: its spec, its memory, its probe under way."""

from __future__ import annotations

import asyncio

from healthmon.checker.limits import Place
from healthmon.probes.kind import Result
from healthmon.targets.spec import TargetSpec
from healthmon.truth.machine import Memory


class Entry:
    """Used on the event loop alone.  `removed` tells a probe under way that nobody wants it.

    `blind_since_s` (monotonic) is from when on nothing is known: the end of the last judged probe.
    """

    __slots__ = (
        "asked_us",
        "blind_since_s",
        "cert_expires_us",
        "epoch",
        "memory",
        "place",
        "removed",
        "spec",
        "task",
    )

    def __init__(
        self, spec: TargetSpec, memory: Memory, *, epoch: int, blind_since_s: float
    ) -> None:
        self.spec = spec
        self.memory = memory
        self.epoch = epoch
        self.blind_since_s = blind_since_s
        self.asked_us = spec.run_requested_us
        self.cert_expires_us = 0
        self.place: Place | None = None
        self.task: asyncio.Task[Result | None] | None = None
        self.removed = False

    @property
    def idle(self) -> bool:
        """Neither probed now nor waiting for a limit."""
        return self.place is None

    @property
    def waits(self) -> bool:
        """It is due, and there is no room for its probe."""
        return self.place is not None and self.task is None
