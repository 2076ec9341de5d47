"""The load generator against a server that answers as told. No Django, no real waiting."""

from __future__ import annotations

import json
import random
import select
import socket

import pytest

from ingest.client.target import TargetError, own_url, require_loopback, resolve
from ingest.loadtest.connection import Connection
from ingest.loadtest.generator import Generator, Load, Unreachable
from ingest.loadtest.records import RecordMaker
from ingest.loadtest.tally import ACKNOWLEDGED, MAYBE, REFUSED, REJECTED, percentile
from tests.commands.clocks import SleepingClock
from tests.commands.recording import (
    Answer,
    Drop,
    RecordingServer,
    Silence,
    accept,
    accepted,
)


def generate(server, *, path="/logs", clock=None, rng=None, **load):
    generator = Generator(
        target=resolve(server.url),
        load=Load(**{"records": 20, "clients": 4, **load}),
        maker=RecordMaker(path=path, run="run1"),
        clock=clock or SleepingClock(),
        rng=rng or random.Random(1),
    )
    return generator.run()


def sequences(server):
    return sorted(record["loadtest_seq"] for r in server.requests for record in r.records)


@pytest.mark.parametrize("path", ["/logs", "/health", "/event"])
def test_each_record_is_sent_once_over_connections_that_are_kept(path):
    with RecordingServer() as server:
        tally = generate(server, path=path, records=50, clients=3)
        assert sequences(server) == list(range(50))
        assert server.connections == 3
        assert {r.path for r in server.requests} == {path}
        assert {r.headers["content-type"] for r in server.requests} == {"application/json"}
        record = server.requests[0].records[0]
    assert record["loadtest_run"] == "run1"
    required = {"/logs": "message", "/health": "status", "/event": "user_id"}
    assert required[path] in record
    assert tally.succeeded
    assert tally.records_accepted == 50
    assert tally.statuses == {202: 50}
    assert len(tally.latencies) == 50


def test_a_batch_is_ndjson_and_the_last_one_is_short():
    with RecordingServer() as server:
        tally = generate(server, records=25, clients=2, batch=10, ack="stored", api_key="ck_a_b")
        assert sorted(len(r.records) for r in server.requests) == [5, 10, 10]
        request = server.requests[0]
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.headers["authorization"] == "Bearer ck_a_b"
    assert request.path == "/logs?ack=stored"
    assert tally.succeeded


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_waits_at_least_as_long_as_the_server_asked(status):
    def answer(received):
        if received.number == 0:
            return Answer(status, headers={"Retry-After": "7"})
        return accept(received)

    clock = SleepingClock()
    with RecordingServer(answer) as server:
        tally = generate(server, records=1, clients=1, clock=clock)
        assert sequences(server) == [0, 0]
    assert 7.0 <= sum(clock.slept) <= 7.0 * 1.25 + 0.01
    assert tally.retries == {str(status): 1}
    assert tally.succeeded
    assert not tally.allowed  # a refused request was not stored: a second copy is a duplicate


def test_a_waiting_client_is_a_busy_client():
    """Refused clients must not be replaced by others: that would be more load, not less."""

    def answer(received):
        return (
            Answer(429, headers={"Retry-After": "1"}) if received.number < 4 else accept(received)
        )

    with RecordingServer(answer) as server:
        tally = generate(server, records=12, clients=4)
        first = [record["loadtest_seq"] for r in server.requests[:4] for record in r.records]
        again = [record["loadtest_seq"] for r in server.requests[4:8] for record in r.records]
    assert sorted(first) == [0, 1, 2, 3]
    assert set(again) & set(first)
    assert tally.retries["429"] == 4
    assert tally.succeeded


def test_a_server_that_goes_on_refusing_is_given_up():
    with RecordingServer(lambda _: Answer(429, headers={"Retry-After": "5"})) as server:
        tally = generate(server, records=2, clients=1, retry_for_s=12)
    assert not tally.succeeded
    assert tally.records_unaccepted == 2
    assert list(tally.fates) == [REFUSED, REFUSED]
    assert "gave up" in tally.rejections[0]


def test_a_busy_server_is_not_given_up_while_it_takes_others_records():
    def answer(received):
        # One request in three is taken: the rest wait far longer than a request may be retried.
        return accept(received) if received.number % 3 == 0 else busy

    busy = Answer(429, headers={"Retry-After": "5"})
    with RecordingServer(answer) as server:
        tally = generate(server, records=20, clients=4, retry_for_s=12)
    assert tally.succeeded
    assert tally.retries["429"] > 20


def test_what_a_server_sheds_is_counted_apart():
    body = b'{"accepted":3,"rejected":0,"errors":[],"shed":2}'
    with RecordingServer(lambda _: Answer(202, body=body)) as server:
        tally = generate(server, records=10, clients=1, batch=5)
    summary = tally.summary()
    assert (summary["records_accepted"], summary["records_shed"]) == (6, 4)
    assert (summary["records_unaccepted"], summary["records"]) == (0, 10)
    assert list(tally.fates) == [MAYBE] * 10
    assert not tally.succeeded


def test_a_silent_server_ends_the_run_after_one_window():
    """It answers once and dies: 998 further requests must not each wait for it."""

    def answer(received):
        return accept(received) if received.number == 0 else Drop()

    clock = SleepingClock()
    with RecordingServer(answer) as server:
        tally = generate(server, records=1000, clients=2, retry_for_s=10, clock=clock)
    assert sum(clock.slept) <= 10
    assert tally.ended == "the run was ended: no answer came for 10 s (--retry-for)"
    assert tally.rejections == []  # one line says it all
    assert not tally.succeeded
    assert tally.records_accepted == 1
    assert tally.records_unaccepted + tally.records_unsent == 999
    assert tally.records_unsent >= 996
    assert tally.summary()["records_unsent"] == tally.records_unsent


def test_one_request_that_loses_its_connections_does_not_end_the_run():
    """The others are answered, each a second after the one before."""

    clock = SleepingClock()

    def answer(received):
        if received.records[0]["loadtest_seq"] == 0:
            return Drop()
        clock.advance(1)
        return accept(received)

    with RecordingServer(answer) as server:
        tally = generate(server, records=40, clients=2, retry_for_s=5, timeout_s=999, clock=clock)
    assert tally.ended == ""
    assert (tally.records_accepted, tally.records_unaccepted, tally.records_unsent) == (39, 1, 0)
    assert "gave up after" in tally.rejections[0]


def test_one_attempt_is_one():
    with RecordingServer(lambda _: Answer(429, headers={"Retry-After": "5"})) as server:
        tally = generate(server, records=1, clients=1, retry_for_s=1)
    assert tally.rejections == ["gave up after 1 attempt, last: 429"]


def test_reasons_that_are_the_same_are_one_with_a_count():
    with RecordingServer(lambda _: Answer(400, body=b'{"detail":"no","code":"x"}')) as server:
        tally = generate(server, records=1200, clients=2)
    assert tally.rejections == ["400 no (1,200 times)"]


def test_reasons_beyond_the_first_few_are_counted():
    def answer(received):
        return Answer(400, body=b'{"detail":"number %d"}' % received.number)

    with RecordingServer(answer) as server:
        tally = generate(server, records=8, clients=1)
    assert len(tally.rejections) == 6
    assert tally.rejections[-1] == "other reasons (3 times)"


def test_a_missing_key_is_said_in_words():
    body = b'{"type":"about:blank","title":"Unauthorized","detail":"An API key is required."}'
    with RecordingServer(lambda _: Answer(401, body=body)) as server:
        tally = generate(server, records=1, clients=1)
    (said,) = tally.rejections
    assert said.startswith("401 An API key is required. ")
    assert "COLLECTOR_API_KEY" in said
    assert "{" not in said


@pytest.mark.parametrize("close", [True, False])
def test_a_refusal_before_the_body_is_read_is_still_read(close):
    early = Answer(429, headers={"Retry-After": "1"}, close=close)
    with RecordingServer(refuse_early=early) as server:
        tally = generate(server, records=100_000, clients=1, batch=100_000)
        assert len(server.requests) == 2
        assert server.connections == 2
    assert tally.statuses == {202: 1, 429: 1}
    # Not all was sent, so the server cannot have kept it.
    assert not tally.allowed
    assert tally.succeeded


def test_an_answer_is_read_though_sending_failed():
    """The peer has answered and gone: writing fails, and the answer waits to be read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(resolve(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        connection.open()
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n")
        watch = select.poll()
        watch.register(connection.sock, 0)
        connection.flush()
        connection.send(b"the head")  # answered by a reset, as nobody reads any more
        assert watch.poll(10_000)
        connection.send(b"the body")
        assert connection.wants_write
        response = connection.receive()
        connection.close()
    assert response is not None
    assert response.status == 429
    assert not response.keep_alive


@pytest.mark.parametrize("reset", [True, False])
def test_a_lost_answer_is_sent_again_and_allowed_twice(reset):
    def answer(received):
        return Drop(reset=reset) if received.number == 0 else accept(received)

    with RecordingServer(answer) as server:
        tally = generate(server, records=3, clients=1)
        assert sequences(server) == [0, 0, 1, 2]
    assert tally.allowed == {0: 2}
    assert tally.lost_connections == 1
    assert tally.succeeded


def test_an_answer_that_does_not_come_in_time_is_lost():
    class Impatient(SleepingClock):
        """Each look at the time moves it: the answer is overdue at once."""

        def now(self):
            self.advance(0.05)
            return super().now()

    def answer(received):
        return Silence() if received.number == 0 else accept(received)

    with RecordingServer(answer) as server:
        tally = generate(server, records=1, clients=1, timeout_s=0.4, clock=Impatient())
        assert server.connections == 2
    assert tally.lost_connections == 1
    assert tally.allowed == {0: 2}
    assert tally.succeeded


def test_rejected_records_are_told_apart_by_index():
    def answer(received):
        first = received.records[0]["loadtest_seq"]
        return accepted(len(received.records), rejected={3: "no"} if first == 10 else {})

    with RecordingServer(answer) as server:
        tally = generate(server, records=20, clients=2, batch=10)
    assert [n for n, fate in enumerate(tally.fates) if fate == REJECTED] == [13]
    assert tally.fates.count(ACKNOWLEDGED) == 19
    assert (tally.records_accepted, tally.records_rejected) == (19, 1)
    assert not tally.succeeded
    assert tally.rejections == ["bad: no"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(400, body=b'{"title":"nothing was valid"}'), "nothing was valid"),
        (Answer(200, body=b"<html>"), "unreadable"),
        (Answer(500, body=b"oops"), "500 oops"),
    ],
)
def test_what_was_not_accepted_fails_the_run_and_says_why(answer, reason):
    with RecordingServer(lambda _: answer) as server:
        tally = generate(server, records=1, clients=1)
    assert not tally.succeeded
    assert tally.records_unaccepted == 1
    assert reason in tally.rejections[0]


def test_an_answer_that_is_not_http_is_counted_and_tried_again():
    def answer(received):
        return Answer(raw=b"SSH-2.0-x\r\n\r\n") if received.number == 0 else accept(received)

    with RecordingServer(answer) as server:
        tally = generate(server, records=1, clients=1)
    assert tally.bad_answers == 1
    assert tally.succeeded


def test_chunked_answers_and_closed_connections_are_understood():
    def answer(received):
        reply = accept(received)
        reply.chunked = received.number % 2 == 0
        reply.close = received.number % 3 == 0
        return reply

    with RecordingServer(answer) as server:
        tally = generate(server, records=12, clients=1)
        assert server.connections > 1
    assert tally.succeeded
    assert tally.lost_connections == 0


def test_the_schedule_decides_in_an_open_loop():
    clock = SleepingClock()
    with RecordingServer() as server:
        tally = generate(server, records=100, clients=4, batch=10, rate=50, clock=clock)
    assert sum(clock.slept) == pytest.approx(1.8, abs=0.2)  # the tenth request is due at 1.8 s
    assert tally.succeeded


def test_open_loop_latency_counts_from_the_schedule():
    """One client, and the first answer takes 10 s: the nine that waited behind it are slow too."""
    clock = SleepingClock()

    def answer(received):
        if received.number == 0:
            clock.advance(10)
        return accept(received)

    with RecordingServer(answer) as server:
        tally = generate(server, records=10, clients=1, rate=10, clock=clock)
    assert min(tally.latencies) > 8.9
    assert tally.max_late_s > 8.9


def test_duration_starts_nothing_new():
    clock = SleepingClock()
    with RecordingServer() as server:
        tally = generate(server, records=1000, clients=1, rate=10, duration_s=2, clock=clock)
        assert 19 <= len(server.requests) <= 21
    assert tally.succeeded
    assert tally.records_sent == tally.records_accepted < 1000


def test_a_server_that_is_not_there_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    generator = Generator(
        target=resolve(f"http://127.0.0.1:{port}"),
        load=Load(records=1, clients=1),
        maker=RecordMaker(path="/logs", run="r"),
        clock=SleepingClock(),
        rng=random.Random(1),
    )
    with pytest.raises(Unreachable, match=r"Is the server running.*name the server with --url$"):
        generator.run()


def test_stopping_answers_what_was_sent_and_starts_nothing_new():
    generator: list[Generator] = []

    def answer(received):
        if received.number == 2:
            generator[0].stop()
        return accept(received)

    with RecordingServer(answer) as server:
        generator.append(
            Generator(
                target=resolve(server.url),
                load=Load(records=1000, clients=1),
                maker=RecordMaker(path="/logs", run="r"),
                clock=SleepingClock(),
                rng=random.Random(1),
            )
        )
        tally = generator[0].run()
        assert len(server.requests) == 3
    assert tally.records_accepted == 3
    assert tally.interrupted
    assert not tally.succeeded


def test_the_summary_is_json_and_adds_up():
    with RecordingServer() as server:
        summary = json.loads(json.dumps(generate(server).summary()))
    assert summary["records"] == summary["records_accepted"] == 20
    assert summary["statuses"] == {"202": 20}
    assert 0 <= summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.5, 2.0), (0.51, 3.0), (0.99, 4.0), (1.0, 4.0), (0.01, 1.0)]
)
def test_percentile_is_a_value_that_occurred(fraction, expected):
    assert percentile([1.0, 2.0, 3.0, 4.0], fraction) == expected
    assert percentile([], fraction) is None


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://localhost", "http://[::1]:80", "http://127.9.9.9/base/"]
)
def test_this_machine_may_be_loaded(url):
    require_loopback(resolve(url), allow_remote=False)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8123"),
        ("0.0.0.0", "http://127.0.0.1:8123"),
        ("::", "http://127.0.0.1:8123"),
        ("::1", "http://[::1]:8123"),
        ("logs.internal", "http://logs.internal:8123"),
    ],
)
def test_the_servers_own_address_can_be_connected_to(host, url):
    assert own_url(host, 8123) == url


def test_a_port_that_is_not_known_yet_must_be_named():
    with pytest.raises(TargetError, match="--url"):
        own_url("127.0.0.1", 0)


def test_another_machine_needs_a_word():
    target = resolve("http://192.0.2.1:8000")
    with pytest.raises(TargetError, match="--allow-remote"):
        require_loopback(target, allow_remote=False)
    require_loopback(target, allow_remote=True)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "https://127.0.0.1",
        "http://:1",
        "http://h:99999",
        "http://user:secret@127.0.0.1",
        "http://127.0.0.1/?a=1",
        "http://[::1",
    ],
)
def test_an_address_that_cannot_be_used_is_said(url):
    with pytest.raises(TargetError) as caught:
        resolve(url)
    assert "secret" not in str(caught.value)
