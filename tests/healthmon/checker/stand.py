"""A runner on a virtual loop, with a kind of probe whose answers the test writes."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from control.outbound.policy import AddressPolicy
from healthmon.checker.evenclock import EvenClock
from healthmon.checker.figures import Figures
from healthmon.checker.judge import Judge
from healthmon.checker.limits import Limits
from healthmon.checker.runner import Runner
from healthmon.checker.stall import StallWatch
from healthmon.checker.statuses import Heard, Statuses
from healthmon.probes.kind import FAILED, ProbeKind, ProbeOptions, Request, Result
from healthmon.probes.net.resolver import Resolver
from healthmon.probes.net.tls import Contexts
from healthmon.probes.tools import Tools
from healthmon.targets.spec import TargetSpec
from healthmon.truth.changes import Change
from healthmon.truth.machine import Memory, Rules
from tests.healthmon.checker.virtual import EPOCH_US, VirtualClock


class Options(ProbeOptions, frozen=True, kw_only=True):
    pass


Answer = Callable[[int], Any]


def up() -> Memory:
    """Of a target that is known to be up."""
    return Memory(status="up", seq=1, since_us=EPOCH_US)


def failed(_: int = 0) -> Result:
    """As a stand's `answer`: every probe fails."""
    return Result(outcome=FAILED, error="connection refused", total_ms=1.0)


class Stand:
    """`answers[target_id]` makes the next result of a target: a Result, an exception, seconds."""

    def __init__(self, *, total: int = 100, per_host: int = 0, per_group: int = 0) -> None:
        self.clock = VirtualClock()
        self.answer: Answer = lambda target_id: Result(total_ms=1.0)
        self.takes_s: Callable[[int], float] = lambda target_id: 0.001
        self.began: dict[int, list[float]] = defaultdict(list)
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.results: list[tuple[int, int, Result]] = []
        self.lags: list[float] = []
        self.changes: list[Change] = []
        self.certificates: dict[int, int] = {}
        self.epochs: dict[int, int] = dict.fromkeys(range(64), 1)
        self.network_gone = ""
        self.stalls = StallWatch(monotonic=self.clock.monotonic)
        self.time = EvenClock(self.clock)  # type: ignore[arg-type]
        self.limits = Limits(total=total, per_host=per_host, per_group=per_group)
        figures = Figures()
        self.heard = Heard(
            result=lambda one, name, at_us, result: self.results.append((one, at_us, result)),
            flip=self.changes.append,
            count=lambda kind, outcome, seconds, lag_s: self.lags.append(lag_s),
            certificate=lambda one, us: self.certificates.update({one: us}),
        )
        self.runner = Runner(
            tools=Tools(
                resolver=Resolver(),
                policy=AddressPolicy(),
                contexts=Contexts(),
                monotonic=self.clock.monotonic,
            ),
            limits=self.limits,
            judge=Judge(stalls=self.stalls, gate=self),
            statuses=Statuses(
                heard=self.heard,
                time=self.time,
                figures=figures,
                checker="stand",
                epoch_of=self.epochs.get,
            ),
            time=self.time,
            figures=figures,
        )
        self.kind = ProbeKind(
            name="scripted",
            label="Scripted",
            description="",
            Options=Options,
            address_label="",
            address_example="",
            address_problem=lambda address: "",
            host=lambda address: address,
            probe=self._probe,
        )

    def note(self, spec: TargetSpec, result: Result) -> None:
        """As the gate that the judge asks."""

    def reason(self, spec: TargetSpec, result: Result) -> str:
        return self.network_gone

    async def _probe(self, request: Request, tools: Any) -> Result:
        one = request.target_id
        self.began[one].append(self.clock.monotonic())
        for what in ("all", request.address):
            self.running[what] += 1
            self.most[what] = max(self.most[what], self.running[what])
        try:
            await asyncio.sleep(self.takes_s(one))
        finally:
            self.running["all"] -= 1
            self.running[request.address] -= 1
        answer = self.answer(one)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def spec(self, target_id: int = 1, **changes: Any) -> TargetSpec:
        fields: dict[str, Any] = {
            "id": target_id,
            "name": f"target {target_id}",
            "slot": target_id % 64,
            "kind_name": "scripted",
            "kind": self.kind,
            "host": "",
            "group": 0,
            "tags": frozenset(),
            "interval_s": 10.0,
            "retry_interval_s": 1.0,
            "timeout_s": 5.0,
            "degraded_after_ms": None,
            "rules": Rules(failure_threshold=3, success_threshold=2),
            "paused": False,
            "run_requested_us": 0,
            "fingerprint": 1,
        }
        fields |= changes
        fields.setdefault(
            "request",
            Request(
                address=fields["host"],
                options=Options(),
                timeout_s=fields["timeout_s"],
                target_id=target_id,
            ),
        )
        return TargetSpec(**fields)

    def put(self, target_id: int = 1, memory: Memory | None = None, **changes: Any) -> TargetSpec:
        spec = self.spec(target_id, **changes)
        self.runner.put(spec, memory or Memory(), epoch=self.epochs.get(spec.slot, 1))
        return spec

    def statuses(self, target_id: int = 1) -> list[str]:
        return [one.to_status for one in self.changes if one.target_id == target_id]
