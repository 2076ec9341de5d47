"""Whether failures are the targets' or the network's; witnesses are real listeners."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from healthmon.checker import gate as gates
from healthmon.checker.gate import LOOKING, NetworkGate, Picture, has_default_route
from healthmon.probes.kind import FAILED, OK, VOID, Result
from pipeline.runtime.clock import FakeClock


@dataclass(frozen=True)
class Target:
    id: int
    host: str


class Names:
    """A resolver that knows addresses, and names by what it was given."""

    def __init__(self, known: dict[str, list[str]] | None = None) -> None:
        self.known = known or {}
        self.asked = 0

    async def resolve(self, host: str, *, family: int = 0) -> list[str]:
        self.asked += 1
        if host in self.known:
            return self.known[host]
        if host.replace(".", "").isdigit():
            return [host]
        raise OSError(f"{host}: no such name")


@dataclass(frozen=True)
class Tools:
    resolver: Names


def silent() -> Result:
    return Result(outcome=FAILED, error="timed out")


def answered() -> Result:
    return Result(outcome=OK, address="192.0.2.9", connect_ms=1.0)


TARGETS = [Target(number, f"192.0.2.{number}") for number in range(1, 11)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def make(clock: FakeClock, *witnesses: str, route: bool = True) -> NetworkGate:
    return NetworkGate(
        witnesses=witnesses, tools=Tools(Names()), clock=clock, has_route=lambda: route
    )


def fail(gate: NetworkGate, targets: list[Target]) -> list[str]:
    reasons = []
    for target in targets:
        gate.note(target, silent())
        reasons.append(gate.reason(target, silent()))
    return reasons


async def settled(gate: NetworkGate) -> None:
    task = gate._asking
    if task is not None:
        await task


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port at which connections hang: its queue is full."""
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port: int = listening.getsockname()[1]
        filling = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            filling.append(one)
        yield port
        for one in filling:
            one.close()


def test_a_few_failures_are_the_targets_own(clock: FakeClock) -> None:
    async def run() -> None:
        gate = make(clock, "127.0.0.1:1")
        assert fail(gate, TARGETS[:4]) == [""] * 4
        assert gate._asking is None

    asyncio.run(run())


def test_while_a_witness_answers_failures_count(clock: FakeClock) -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        gate = make(clock, "no-such-name", f"127.0.0.1:{port}")
        assert fail(gate, TARGETS)[-1] == LOOKING
        await settled(gate)
        assert fail(gate, TARGETS) == [""] * 10
        assert gate.times_gone == 0
        server.close()

    asyncio.run(run())


def test_a_refusal_is_an_answer(clock: FakeClock) -> None:
    async def run() -> None:
        gate = make(clock, "127.0.0.1:1")
        fail(gate, TARGETS)
        await settled(gate)
        assert fail(gate, TARGETS) == [""] * 10

    asyncio.run(run())


def test_without_any_witness_that_answers_nothing_counts(
    clock: FakeClock, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "WITNESS_TIMEOUT_S", 0.05)

    async def run() -> None:
        gate = make(clock, f"127.0.0.1:{dead_port}", "no-such-name")
        fail(gate, TARGETS)
        await settled(gate)
        assert all("no network" in reason for reason in fail(gate, TARGETS))
        # Whoever was reached has failed by itself, and so has what is on this machine.
        reached = Result(outcome=FAILED, code=500, connect_ms=2.0)
        assert gate.reason(TARGETS[0], reached) == ""
        assert gate.reason(Target(99, "localhost"), silent()) == ""
        assert gate.times_gone == 1

    asyncio.run(run())


def test_the_network_comes_back(
    clock: FakeClock, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "WITNESS_TIMEOUT_S", 0.05)

    async def run() -> None:
        gate = make(clock, f"127.0.0.1:{dead_port}")
        fail(gate, TARGETS)
        await settled(gate)
        for target in TARGETS:
            gate.note(target, answered())
        gate.beat()
        assert gate.reason(TARGETS[0], silent()) == ""
        assert gate._gone == ""

    asyncio.run(run())


def test_a_verdict_gets_old_and_is_asked_for_anew(
    clock: FakeClock, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "WITNESS_TIMEOUT_S", 0.05)

    async def run() -> None:
        gate = make(clock, f"127.0.0.1:{dead_port}")
        fail(gate, TARGETS)
        await settled(gate)
        clock.advance(1.0)
        gate.beat()
        assert gate._asking is None
        clock.advance(2.0)
        gate.beat()
        assert gate._asking is not None
        await settled(gate)
        assert gate._gone

    asyncio.run(run())


@pytest.mark.parametrize(("route", "counts"), [(True, True), (False, False)])
def test_without_witnesses_only_a_machine_without_a_route_has_no_network(
    clock: FakeClock, route: bool, counts: bool
) -> None:
    async def run() -> None:
        gate = make(clock, route=route)
        fail(gate, TARGETS)
        await settled(gate)
        assert all((reason == "") is counts for reason in fail(gate, TARGETS))

    asyncio.run(run())


def test_without_a_route_one_answer_proves_the_network(clock: FakeClock) -> None:
    async def run() -> None:
        gate = make(clock, route=False)
        gate.note(Target(50, "192.0.2.50"), answered())
        fail(gate, TARGETS)
        await settled(gate)
        assert fail(gate, TARGETS) == [""] * 10

    asyncio.run(run())


def test_one_host_that_goes_away_with_all_its_targets_is_no_network(clock: FakeClock) -> None:
    async def run() -> None:
        gate = make(clock, "no-such-name")
        assert fail(gate, [Target(number, "192.0.2.7") for number in range(50)]) == [""] * 50

    asyncio.run(run())


def test_targets_on_this_machine_are_not_counted(clock: FakeClock) -> None:
    async def run() -> None:
        gate = make(clock, "no-such-name")
        hosts = ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"]
        targets = [Target(number, host) for number, host in enumerate(hosts * 4)]
        assert fail(gate, targets) == [""] * 20
        gate.note(Target(1, "db.internal"), Result(outcome=FAILED, address="127.0.0.5"))
        gate.note(Target(2, "db.internal"), Result(outcome=VOID))
        assert gate._picture.targets == 0

    asyncio.run(run())


def test_the_picture_forgets() -> None:
    picture = Picture()
    for number in range(6):
        picture.note(number, f"h{number}", silent=True, now_s=0.0)
    assert picture.suspicious
    for number in range(100, 107):
        picture.note(number, "other", silent=False, now_s=50.0)
    assert not picture.suspicious
    for number in range(6):
        picture.note(number, f"h{number}", silent=False, now_s=51.0)
    assert picture.silent == 0
    assert not picture._silent_hosts
    picture.forget_old(200.0)
    assert picture.targets == 0


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("example.org", ("example.org", gates.WITNESS_PORTS)),
        ("example.org:25", ("example.org", (25,))),
        ("2001:db8::1", ("2001:db8::1", gates.WITNESS_PORTS)),
        ("[2001:db8::1]:53", ("2001:db8::1", (53,))),
        ("192.0.2.1:9", ("192.0.2.1", (9,))),
    ],
)
def test_how_a_witness_is_named(text: str, place: object) -> None:
    assert gates._place(text) == place


def test_a_route_out_is_known(tmp_path: Path) -> None:
    file = tmp_path / "route"
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    file.write_text(head + "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n")
    assert not has_default_route([file])
    file.write_text(head + "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")
    assert has_default_route([file])
    six = "0" * 32 + " 00 " + "0" * 32 + " 00 " + "f" * 32 + " 0400 1 0 00000003 "
    file.write_text(six + "eth0\n")
    assert has_default_route([file])
    file.write_text(six + "lo\n")
    assert not has_default_route([file])
    assert has_default_route([tmp_path / "none"])
