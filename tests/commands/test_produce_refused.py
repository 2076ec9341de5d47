"""The producer's manners with a server that refuses: who knocks when, and what is said of it."""

from __future__ import annotations

import logging
import threading

import pytest

from ingest.client.response import request_head
from ingest.client.target import resolve
from ingest.producer.gate import Gate, Turn
from ingest.producer.httpsink import HttpSink
from ingest.producer.progress import EngineLines, Progress
from ingest.producer.slowsink import Tally
from ingest.producer.troubles import QUIET_S, Troubles
from pipeline.errors import RetryableError
from pipeline.runtime.clock import FakeClock, SystemClock
from tests.commands.recording import Answer, RecordingServer
from tests.commands.test_produce_parts import sample
from tests.pipeline.support import PATIENCE_S

# --- the gate


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def gate(clock):
    return Gate(clock=clock)


def now(gate):
    return gate.enter(patience_s=0.0)


def refuse(gate, turn=Turn.FREE, *, seconds=3.0):
    gate.left(turn, refused_for_s=seconds)


def test_as_long_as_nothing_is_refused_all_are_free(gate):
    assert [now(gate) for _ in range(3)] == [Turn.FREE] * 3
    gate.left(Turn.FREE, refused_for_s=None)
    assert now(gate) is Turn.FREE


def test_after_a_refusal_one_finds_out_when_its_time_has_come(gate, clock):
    refuse(gate)
    assert gate.closed_for_s() == 3.0
    assert now(gate) is Turn.WAIT
    clock.advance(3.0)
    assert [now(gate) for _ in range(3)] == [Turn.PROBE, Turn.WAIT, Turn.WAIT]
    refuse(gate, Turn.PROBE, seconds=2.0)
    assert now(gate) is Turn.WAIT
    clock.advance(2.0)
    assert now(gate) is Turn.PROBE
    gate.left(Turn.PROBE, refused_for_s=None)
    assert [now(gate) for _ in range(3)] == [Turn.FREE] * 3


def test_what_was_under_way_does_not_open_it(gate):
    """One of many at once is taken, the others refused: those do not all come back."""
    refuse(gate)
    gate.left(Turn.FREE, refused_for_s=None)
    assert now(gate) is Turn.WAIT


def test_a_shorter_refusal_does_not_shorten_a_longer_one(gate, clock):
    refuse(gate, seconds=5.0)
    refuse(gate, seconds=1.0)
    assert gate.closed_for_s() == 5.0
    clock.advance(4.9)
    assert now(gate) is Turn.WAIT


def test_those_who_wait_are_let_in_by_the_one_who_found_out(gate, clock):
    refuse(gate, seconds=0.0)
    assert now(gate) is Turn.PROBE
    turns = []
    waiting = [
        threading.Thread(target=lambda: turns.append(gate.enter(patience_s=60.0))) for _ in range(3)
    ]
    for one in waiting:
        one.start()
    gate.left(Turn.PROBE, refused_for_s=None)
    for one in waiting:
        one.join(PATIENCE_S)
    assert turns == [Turn.FREE] * 3


def test_nobody_waits_when_it_is_sure_to_be_in_vain(gate):
    refuse(gate, seconds=60.0)
    assert gate.enter(patience_s=20.0) is Turn.WAIT  # at once: the clock stands still


def test_nobody_waits_after_the_end(gate):
    refuse(gate, seconds=10.0)
    turns = []
    waiting = threading.Thread(target=lambda: turns.append(gate.enter(patience_s=60.0)))
    waiting.start()
    gate.abort()
    waiting.join(PATIENCE_S)
    assert turns == [Turn.WAIT]


# --- the sink behind it


class Batch:
    """What a sink sees of one."""

    def __init__(self, number):
        self.number, self.count = number, 0
        self.records = ()


def sink_at(server):
    target = resolve(server.url)
    head = request_head(
        path="/logs", authority=target.authority, content_type="application/x-ndjson", extra=None
    )
    return HttpSink(
        target=target, head=head, timeout_s=PATIENCE_S, run="r", tally=Tally(),
        fatal=pytest.fail, clock=SystemClock(),
    )  # fmt: skip


def test_a_batch_that_waits_does_not_knock_and_says_why():
    refusal = Answer(429, body=b'{"detail":"too fast"}', headers={"Retry-After": "300"})
    with RecordingServer(lambda _: refusal) as server:
        sink = sink_at(server)
        for number in range(5):
            with pytest.raises(RetryableError, match="429 too fast") as refused:
                sink.write(Batch(number))
            assert refused.value.retry_after_s is not None
            assert 290 < refused.value.retry_after_s <= 300
        sink.close()
    assert len(server.requests) == 1


# --- what is said


def told(*samples, error="RetryableError: 429 full"):
    troubles = Troubles()
    return [said for one in samples if (said := troubles.new(one, error))]


def at(seconds, retries, processed):
    return sample(at_s=float(seconds), retries=retries, processed=processed)


BEGINS = "The sink fails, its batches are tried again: 429 full"


def test_a_trouble_has_one_line_at_its_beginning_and_one_at_its_end():
    samples = [at(0, 0, 100), *(at(n, n, 100) for n in range(1, 20))]
    samples += [at(n, 19, 100 + 10 * n) for n in range(20, 40)]
    assert told(*samples) == [BEGINS, "The sink takes batches again, after 19 s"]


def test_what_is_taken_in_between_is_no_end():
    """A key's rate: something is taken every three seconds, and the rest refused."""
    samples = [at(n, 1 + n // 3, 50 * (n // 3)) for n in range(60)]
    assert told(*samples) == [BEGINS]


def test_silence_is_no_end():
    assert told(at(0, 0, 0), at(1, 1, 0), *(at(n, 1, 0) for n in range(2, 90))) == [BEGINS]
    assert len(told(at(1, 1, 0), at(1 + QUIET_S, 1, 1))) == 2


def test_the_next_trouble_is_told_again():
    first = [at(0, 0, 0), at(1, 1, 0), at(10, 1, 9)]
    assert len(told(*first, at(11, 2, 9), at(20, 2, 18))) == 4


def test_other_figures_are_no_news_and_other_troubles_are():
    troubles = Troubles()
    said = [
        troubles.new(at(n, n, 0), error)
        for n, error in enumerate(
            ["429 holds 2,600 of 4,000", "429 holds 2,700 of 4,000", "503 the database is away"], 1
        )
    ]
    assert [bool(one) for one in said] == [True, False, True]


def test_a_talkative_server_is_not_heard_out():
    troubles = Troubles()
    said = [troubles.new(at(n, n, 0), "x" * n) for n in range(1, 50)]
    assert len([one for one in said if one]) == 5


def test_attempts_that_are_made_again_are_not_said_and_losses_are():
    lines: list[str] = []
    log = logging.getLogger("pipeline.delivery.verdict")
    text = "sink %s: batch %s of %d records, attempt %d: %s: %s"
    with EngineLines(Progress(lines.append)):
        log.warning(text, "producer", "b-1", 50, 56, "RetryableError", "429")
        log.warning(text, "producer", "b-2", 50, 1, "PermanentError", "400")
    assert lines == ["sink producer: batch b-2 of 50 records, attempt 1: PermanentError: 400"]


def test_hushed_it_says_nothing_more():
    lines: list[str] = []
    progress = Progress(lines.append)
    progress.say("one")
    progress.hush()
    progress.say("two")
    assert lines == ["one"]
