"""Whether failures are the targets' or the network's; witnesses are real listeners."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from healthmon.checker import witnesses
from healthmon.checker.gate import LOOKING, TRY_DEFAULTS_EVERY_S, NetworkGate, Picture
from healthmon.checker.routes import gateways, has_default_route
from healthmon.checker.witnesses import Nameserver, Place, Witness, default_witnesses, named
from healthmon.probes.kind import FAILED, OK, VOID, Result
from pipeline.runtime.clock import FakeClock
from tests.healthmon.probes.listeners.nameserver import Nameserver as FakeNameserver


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


def make(
    clock: FakeClock, *witnesses: str, route: bool = True, defaults: Sequence[Witness] = ()
) -> NetworkGate:
    return NetworkGate(
        witnesses=witnesses,
        tools=Tools(Names()),
        clock=clock,
        has_route=lambda: route,
        defaults=lambda: defaults,
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
    monkeypatch.setattr(witnesses, "TIMEOUT_S", 0.05)

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
    monkeypatch.setattr(witnesses, "TIMEOUT_S", 0.05)

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
    monkeypatch.setattr(witnesses, "TIMEOUT_S", 0.05)

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
        ("example.org", ("example.org", witnesses.PORTS)),
        ("example.org:25", ("example.org", (25,))),
        ("2001:db8::1", ("2001:db8::1", witnesses.PORTS)),
        ("[2001:db8::1]:53", ("2001:db8::1", (53,))),
        ("192.0.2.1:9", ("192.0.2.1", (9,))),
    ],
)
def test_how_a_witness_is_named(text: str, place: tuple[str, tuple[int, ...]]) -> None:
    assert named(text) == Place(*place)


def test_a_route_out_is_known(tmp_path: Path) -> None:
    file = tmp_path / "route"
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    file.write_text(head + "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n")
    assert not has_default_route([file])
    file.write_text(head + "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")
    assert has_default_route([file])
    assert list(gateways(file)) == ["192.168.0.1"]
    assert list(gateways(tmp_path / "none")) == []
    six = "0" * 32 + " 00 " + "0" * 32 + " 00 " + "f" * 32 + " 0400 1 0 00000003 "
    file.write_text(six + "eth0\n")
    assert has_default_route([file])
    file.write_text(six + "lo\n")
    assert not has_default_route([file])
    assert has_default_route([tmp_path / "none"])


# --- witnesses that nobody named ---------------------------------------------------------------


class Said:
    """A witness that answers, or not, as it is told."""

    def __init__(self, *, answering: bool = True) -> None:
        self.answering = answering
        self.asked = 0

    @property
    def name(self) -> str:
        return "the nameserver 192.0.2.53"

    async def answers(self, resolver: object) -> bool:
        self.asked += 1
        return self.answering


FAR = [Target(number, f"shop{number}.example") for number in range(100, 110)]
NEAR = Target(50, "192.168.1.50")


async def proven(clock: FakeClock, witness: Said) -> NetworkGate:
    """A gate that has heard its witness answer while targets did."""
    gate = make(clock, defaults=[witness])
    gate.note(NEAR, answered())
    gate.beat()
    await settled(gate)
    assert witness.asked == 1
    return gate


def test_a_nameserver_that_falls_silent_with_the_targets_is_no_network(clock: FakeClock) -> None:
    async def run() -> None:
        witness = Said()
        gate = await proven(clock, witness)
        witness.answering = False
        assert fail(gate, FAR)[-1] == LOOKING
        await settled(gate)
        # One on the local network that answers still does not hide it.
        gate.note(NEAR, answered())
        reasons = fail(gate, FAR)
        assert set(reasons) == {
            "this checker has no network: the nameserver 192.0.2.53 does not answer either"
        }

    asyncio.run(run())


def test_many_that_answer_nearby_do_not_outvote_the_world(clock: FakeClock) -> None:
    async def run() -> None:
        witness = Said()
        gate = await proven(clock, witness)
        witness.answering = False
        for number in range(200, 250):
            gate.note(Target(number, f"10.0.0.{number}"), answered())
            # A name of the local network, and one that moved there.
            gate.note(Target(number + 100, "db.lan"), Result(address="10.0.0.1", connect_ms=1.0))
        fail(gate, FAR)
        await settled(gate)
        assert all(fail(gate, FAR))
        # What fails nearby, where the others answer, has failed by itself.
        assert gate.reason(Target(51, "192.168.1.51"), silent()) == ""
        for target in FAR:
            gate.note(target, Result(address="10.0.0.2", connect_ms=1.0))
        gate.beat()
        assert gate._far.targets == 0
        assert gate._gone == ""

    asyncio.run(run())


def test_while_a_nameserver_answers_failures_count(clock: FakeClock) -> None:
    async def run() -> None:
        gate = await proven(clock, Said())
        fail(gate, FAR)
        await settled(gate)
        assert fail(gate, FAR) == [""] * 10

    asyncio.run(run())


def test_a_nameserver_that_never_answered_is_believed_only_where_nothing_answers(
    clock: FakeClock,
) -> None:
    async def run() -> None:
        witness = Said(answering=False)
        gate = await proven(clock, witness)
        fail(gate, FAR)
        await settled(gate)
        assert fail(gate, FAR) == [""] * 10
        other = make(clock, defaults=[witness])
        fail(other, FAR)
        await settled(other)
        assert all("no target answers" in reason for reason in fail(other, FAR))

    asyncio.run(run())


def test_whether_it_answers_is_tried_seldom_and_once(clock: FakeClock) -> None:
    async def run() -> None:
        witness = Said(answering=False)
        gate = await proven(clock, witness)
        for _ in range(3):
            gate.beat()
            await settled(gate)
        assert witness.asked == 1
        witness.answering = True
        for _ in range(3):
            clock.advance(TRY_DEFAULTS_EVERY_S)
            gate.note(NEAR, answered())
            gate.beat()
            await settled(gate)
        assert witness.asked == 2
        # Nobody is asked for nothing, and nobody besides those that were named.
        idle, chosen = make(clock, defaults=[witness]), make(clock, "a.example", defaults=[witness])
        chosen.note(NEAR, answered())
        for one in (idle, chosen):
            one.beat()
            assert one._asking is None

    asyncio.run(run())


def test_whom_this_machines_settings_name(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    routes.write_text("eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")
    first, second = tmp_path / "first", tmp_path / "second"
    assert default_witnesses([first], routes) == [Place("192.168.0.1")]
    first.write_text("# mine\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0\n")
    second.write_text("nameserver 192.0.2.53\nnameserver nonsense\nnameserver 2001:db8::53\n")
    assert default_witnesses([first, second], routes) == [
        Nameserver("192.0.2.53"),
        Nameserver("2001:db8::53"),
    ]
    assert default_witnesses([first], routes) == [Place("192.168.0.1")]
    assert default_witnesses([first], tmp_path / "none") == []


@pytest.mark.parametrize(
    ("rcode", "answers"), [("NOERROR", True), ("REFUSED", True), ("SERVFAIL", False)]
)
def test_a_nameserver_is_asked_a_question(rcode: str, answers: bool) -> None:
    with FakeNameserver() as dns:
        dns.fail(".", "NS", rcode)
        asked = Nameserver(dns.address, dns.port).answers(Names())
        assert asyncio.run(asked) is answers


def test_a_nameserver_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnesses, "TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        assert not asyncio.run(Nameserver("127.0.0.1", mute.getsockname()[1]).answers(Names()))
