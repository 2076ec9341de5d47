"""Looking names up with a deadline, though the system's resolver knows none."""

from __future__ import annotations

import socket
import threading
from functools import partial

import pytest

from jobs.downstream import names
from jobs.downstream.calls import FailedCall, RefusedCall
from jobs.downstream.names import Names
from tests.jobs.downstream.stand import LONG_S, Aside, spec


class Slow:
    """A resolver that answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.arrived = threading.Semaphore(0)
        self.over = threading.Event()

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        self.arrived.release()
        self.over.wait(LONG_S)
        return ["127.0.0.1"]


@pytest.fixture
def slow():
    resolver = Slow()
    yield resolver
    resolver.over.set()


def test_a_resolver_that_hangs_does_not_outlast_the_calls_deadline(make_caller, slow):
    caller = make_caller(names=Names(lookup=slow))
    with pytest.raises(FailedCall, match=r"within 0\.2 s"):
        caller.call(spec("http://a.example", timeout_s=0.2))


def test_those_who_ask_for_one_name_share_one_lookup(make_caller, slow, toy):
    caller = make_caller(names=Names(lookup=slow))
    service = spec(toy.url.replace("127.0.0.1", "toy.example"))
    first = Aside(lambda: caller.call(service))
    assert slow.arrived.acquire(timeout=LONG_S)
    second = Aside(lambda: caller.call(service))
    while caller.state()["in_flight"] < 2:
        assert not second.is_over
    slow.over.set()
    assert (first.outcome().status, second.outcome().status) == (200, 200)
    assert len(slow.asked) <= 2  # the second may have come when the first was answered


def test_hanging_lookups_are_bounded(make_caller, slow, monkeypatch):
    monkeypatch.setattr(names, "MAX_LOOKUPS", 2)
    caller = make_caller(names=Names(lookup=slow))
    for host in ("a.example", "b.example"):
        Aside(partial(caller.call, spec(f"http://{host}")))
        assert slow.arrived.acquire(timeout=LONG_S)
    with pytest.raises(FailedCall, match="2 other names are being looked up"):
        caller.call(spec("http://c.example"))
    assert len(slow.asked) == 2


def test_a_name_that_is_not_there_fails(make_caller):
    def lookup(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    caller = make_caller(names=Names(lookup=lookup))
    with pytest.raises(FailedCall, match=r"gone\.example cannot be resolved: name or service"):
        caller.call(spec("http://gone.example"))


def test_what_a_name_leads_to_is_judged_and_that_very_address_connected_to(make_caller, toy):
    answers = iter([["169.254.169.254"]])
    port = toy.url.rpartition(":")[2]
    caller = make_caller(names=Names(lookup=lambda host: next(answers)))
    with pytest.raises(RefusedCall, match="metadata address"):
        caller.call(spec(f"http://toy.example:{port}"))


def test_the_next_address_is_tried_when_one_refuses(make_caller, toy):
    port = toy.url.rpartition(":")[2]
    caller = make_caller(names=Names(lookup=lambda host: ["127.0.0.2", "127.0.0.1"]))
    assert caller.call(spec(f"http://toy.example:{port}")).status == 200


def test_a_redirect_is_judged_by_what_its_name_leads_to(make_caller, make_toy):
    toy, inner = make_toy(), make_toy()
    caller = make_caller(names=Names(lookup=lambda host: ["127.0.0.1"]))
    port = inner.url.rpartition(":")[2]
    where = f"/faults/redirect?to=http://public.example:{port}/"
    with pytest.raises(RefusedCall, match="loopback"):
        caller.call(spec(toy.url, follow_redirects=True), where)
    assert inner.journal.counts()["calls"] == 0
