"""A word from outside reaches a call wherever it waits, and touches no other."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from jobs.downstream.faults import CutError
from jobs.downstream.line import Line, Lines
from jobs.downstream.names import Names
from jobs.execution.interruption import CANCEL, LOST, STOP, Interrupted
from pipeline.runtime.clock import SystemClock
from tests.jobs.downstream.stand import LONG_S, Aside, spec


class Listener:
    """Takes one connection, reads what comes, says nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.heard = threading.Event()
        self.hung_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._socket.getsockname()[1]

    def _run(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(LONG_S)
            while connection.recv(65536):
                self.heard.set()
        self.hung_up.set()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes one that still accepts
        self._socket.close()
        self._thread.join(LONG_S)


@pytest.fixture
def listener():
    listening = Listener()
    yield listening
    listening.stop()


@pytest.mark.parametrize("why", [CANCEL, STOP, LOST])
@pytest.mark.parametrize("scheme", ["http", "https"], ids=["answer", "handshake"])
def test_while_it_waits_for_an_answer_or_a_handshake(caller, listener, scheme, why):
    interruption = caller.interruption()
    service = spec(f"{scheme}://127.0.0.1:{listener.port}")
    call = Aside(lambda: caller.call(service, interruption=interruption))
    assert listener.heard.wait(LONG_S)
    interruption.interrupt(why)
    outcome = call.outcome()
    assert isinstance(outcome, Interrupted)
    assert outcome.why == why
    assert listener.hung_up.wait(LONG_S)
    state = caller.state()
    assert (state["failures"], state["in_flight"]) == (0, 0)


@pytest.mark.parametrize(
    "path", ["/faults/hang?after=head", "/faults/drip", "/faults/drip?of=head"]
)
def test_in_the_middle_of_an_answer(caller, toy, path):
    interruption = caller.interruption()
    call = Aside(lambda: caller.call(spec(toy.url), f"/faults/{path}", interruption=interruption))
    _until(lambda: toy.journal.counts()["calls"])
    interruption.interrupt(CANCEL)
    assert isinstance(call.outcome(), Interrupted)


def test_while_it_connects(caller, blackhole):
    interruption = caller.interruption()
    call = Aside(lambda: caller.call(spec(blackhole), interruption=interruption))
    _until(lambda: caller.downstreams.states() and caller.state()["in_flight"])
    interruption.interrupt(STOP)
    assert isinstance(call.outcome(), Interrupted)


def test_while_its_name_is_looked_up(make_caller):
    asked, over = threading.Event(), threading.Event()

    def lookup(host: str) -> list[str]:
        asked.set()
        over.wait(LONG_S)
        return ["127.0.0.1"]

    caller = make_caller(names=Names(lookup=lookup))
    interruption = caller.interruption()
    call = Aside(lambda: caller.call(spec("http://a.example"), interruption=interruption))
    assert asked.wait(LONG_S)
    interruption.interrupt(CANCEL)
    assert isinstance(call.outcome(), Interrupted)
    over.set()


def test_while_it_waits_for_a_place(caller, listener):
    service = spec(f"http://127.0.0.1:{listener.port}", max_concurrent=1)
    first_word = caller.interruption()
    first = Aside(lambda: caller.call(service, interruption=first_word))
    assert listener.heard.wait(LONG_S)
    interruption = caller.interruption()
    second = Aside(lambda: caller.call(service, interruption=interruption))
    _until(lambda: caller.state()["waiting"] or second.is_over)
    interruption.interrupt(CANCEL)
    assert isinstance(second.outcome(), Interrupted)
    assert not first.is_over
    first_word.interrupt(CANCEL)
    assert isinstance(first.outcome(), Interrupted)


def test_a_word_that_comes_after_the_call_leaves_the_kept_connection_alone(caller, toy):
    service = spec(toy.url)
    late = caller.interruption()
    caller.call(service, "/a", interruption=late)
    late.interrupt(CANCEL)
    assert caller.call(service, "/b").status == 200


def test_a_cut_reaches_only_what_is_in_use():
    lines, (ours, theirs) = Lines(), socket.socketpair()
    line = Line(clock=SystemClock(), until=SystemClock().monotonic() + LONG_S)
    with ours, theirs:
        with lines.on(line):
            line.uses(ours)
        line.cut()
        ours.sendall(b"still open")
        assert theirs.recv(100) == b"still open"
        with pytest.raises(CutError):
            line.uses(ours)
        with pytest.raises(CutError):
            line.left_s()


def test_another_call_of_the_service_goes_on_when_one_is_cut(caller, toy):
    word = caller.interruption()
    hanging = Aside(lambda: caller.call(spec(toy.url), "/faults/hang", interruption=word))
    _until(lambda: toy.journal.counts()["calls"])
    assert caller.call(spec(toy.url)).status == 200
    word.interrupt(CANCEL)
    assert isinstance(hanging.outcome(), Interrupted)
    assert caller.call(spec(toy.url)).status == 200


def test_closing_lets_calls_under_way_end(caller, listener):
    word = caller.interruption()
    service = spec(f"http://127.0.0.1:{listener.port}")
    call = Aside(lambda: caller.call(service, interruption=word))
    assert listener.heard.wait(LONG_S)
    caller.downstreams.close()
    caller.downstreams.close()
    assert caller.downstreams.states() == []
    assert not call.is_over
    word.interrupt(STOP)
    assert isinstance(call.outcome(), Interrupted)


def _until(condition) -> None:
    """Wait for what another thread brings about; ends with the first look that finds it."""
    tick = threading.Event()
    for _ in range(int(LONG_S / 0.005)):
        if condition():
            return
        tick.wait(0.005)
    raise AssertionError("it did not come about")
