"""Calls by hand: specs, requests, interruptions, and what must end within a generous time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from control.outbound.policy import AddressPolicy
from jobs.downstream.calls import Answer, CallRequest, Downstreams
from jobs.execution.interruption import Interruption
from jobs.types.spec import DownstreamSpec
from pipeline.delivery.breaker import BreakerSettings
from pipeline.runtime.clock import Clock, SystemClock

LONG_S = 30.0
NEVER_TRIPS = BreakerSettings(enabled=False)
STRICT = AddressPolicy(loopback_bound=False)


def spec(url: str, **changes: Any) -> DownstreamSpec:
    fields: dict[str, Any] = {
        "id": 1,
        "name": "toy",
        "base_url": url,
        "timeout_s": LONG_S,
        "breaker": NEVER_TRIPS,
    }
    return DownstreamSpec(**{**fields, **changes})


def request(path: str = "/", **changes: Any) -> CallRequest:
    fields: dict[str, Any] = {"method": "POST", "path": path, "body": b"{}"}
    return CallRequest(**{**fields, **changes})


class Caller:
    """Downstreams with the clock and policy of a test."""

    def __init__(
        self, *, clock: Clock | None = None, policy: AddressPolicy = STRICT, **more: Any
    ) -> None:
        self.clock = clock or SystemClock()
        self.downstreams = Downstreams(clock=self.clock, policy=policy, **more)

    def interruption(self) -> Interruption:
        return Interruption(clock=self.clock)

    def call(
        self,
        spec: DownstreamSpec,
        path: str = "/",
        *,
        left_s: float = LONG_S,
        interruption: Interruption | None = None,
        **changes: Any,
    ) -> Answer:
        return self.downstreams.call(
            spec,
            request(path, **changes),
            left_s=left_s,
            interruption=interruption or self.interruption(),
        )

    def state(self) -> dict[str, Any]:
        (state,) = self.downstreams.states()
        return state


class Aside:
    """A call on a thread of its own; `outcome` is what it answered or raised."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self._outcome: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._act()
        except Exception as error:
            self._outcome = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def outcome(self) -> Any:
        self._thread.join(LONG_S)
        assert self.is_over, "the call did not end"
        return self._outcome
