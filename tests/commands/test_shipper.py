"""Shipping files to a server that answers as told. No Django, no real waiting."""

from __future__ import annotations

import gzip
import json
import random

import pytest

from ingest.client.response import request_head
from ingest.client.sender import NoAnswer, Sender
from ingest.client.target import resolve
from ingest.shipper.lines import as_ndjson, as_text
from ingest.shipper.shipper import ShipError, ShipOptions, ShippedFile, Shipper
from ingest.shipper.state import StateFile
from ingest.shipper.tail import Tail
from tests.commands.clocks import SleepingClock
from tests.commands.recording import (
    Answer,
    Drop,
    RecordingServer,
    accept,
    accepted,
)


class Shipment:
    """One run of the shipper over the files of a directory."""

    def __init__(self, server, tmp_path, names=("app.log",), *, encode=as_text, **options):
        self.warnings: list[str] = []
        self.clock = SleepingClock()
        self.files = []
        for name in names:
            state = StateFile(tmp_path / "ship", tmp_path / name)
            state.acquire()
            saved = state.load()
            tail = Tail(
                tmp_path / name,
                position=saved,
                max_line_bytes=options.get("max_line_bytes", 10_000),
                warn=self.warnings.append,
            )
            self.files.append(ShippedFile(tail=tail, state=state, saved=saved))
        options.pop("max_line_bytes", None)
        target = resolve(server.url)
        self.sender = Sender(target, timeout_s=10)
        self.shipper = Shipper(
            files=self.files,
            sender=self.sender,
            head=request_head(
                path="/logs", authority=target.authority, content_type="text/plain", extra={}
            ),
            encode=encode,
            options=ShipOptions(**options),
            clock=self.clock,
            rng=random.Random(1),
            warn=self.warnings.append,
        )

    def run(self):
        try:
            return self.shipper.run()
        finally:
            self.sender.close()
            for file in self.files:
                file.tail.close()
                file.state.release()

    @property
    def offset(self):
        saved = self.files[0].state.load()
        return None if saved is None else saved.offset


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "app.log"
    path.write_text("".join(f"line {n}\n" for n in range(25)))
    return path


def lines_of(server, requests=None):
    return [line.decode() for r in (requests or server.requests) for line in r.lines]


def test_a_file_is_sent_once_in_batches_and_not_again(tmp_path, log):
    with RecordingServer() as server:
        shipment = Shipment(server, tmp_path, max_records=10)
        counts = shipment.run()
        assert [len(r.lines) for r in server.requests] == [10, 10, 5]
        assert lines_of(server) == [f"line {n}" for n in range(25)]
        assert server.connections == 1
        assert counts.records_accepted == 25
        assert shipment.offset == log.stat().st_size
        assert Shipment(server, tmp_path).run().requests == 0
        with open(log, "a") as file:
            file.write("line 25")
        assert Shipment(server, tmp_path).run().records_accepted == 1
        assert lines_of(server)[-1] == "line 25"


def test_batches_are_bounded_by_bytes(tmp_path, log):
    with RecordingServer() as server:
        Shipment(server, tmp_path, max_bytes=40).run()
        assert max(len(r.body) for r in server.requests) <= 40
        assert lines_of(server) == [f"line {n}" for n in range(25)]


def test_several_files_keep_their_own_places(tmp_path, log):
    (tmp_path / "other.log").write_text("a\nb\n")
    with RecordingServer() as server:
        shipment = Shipment(server, tmp_path, ("app.log", "other.log"))
        assert shipment.run().records_accepted == 27
        assert [file.saved and file.saved.offset for file in shipment.files] == [
            log.stat().st_size,
            4,
        ]
        assert {len(r.lines) for r in server.requests} == {25, 2}


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_is_waited_out_and_the_place_waits_too(tmp_path, log, status):
    shipments: list[Shipment] = []
    places = []

    def answer(received):
        places.append(shipments[0].offset)
        if received.number in (1, 2):
            return Answer(status, headers={"Retry-After": "4"})
        return accept(received)

    with RecordingServer(answer) as server:
        shipments.append(Shipment(server, tmp_path, max_records=10))
        counts = shipments[0].run()
        assert [r.body for r in server.requests[1:4]] == [server.requests[1].body] * 3
    assert places == [None, 70, 70, 70, 150]
    assert counts.retries == 2
    assert counts.records_accepted == 25
    assert sum(shipments[0].clock.slept) >= 8.0


@pytest.mark.parametrize(
    "trouble", [Drop(), Drop(reset=True), Answer(500), Answer(raw=b"?\r\n\r\n")]
)
def test_a_lost_answer_means_sending_again(tmp_path, log, trouble):
    def answer(received):
        return trouble if received.number == 0 else accept(received)

    with RecordingServer(answer) as server:
        counts = Shipment(server, tmp_path).run()
        assert server.requests[0].body == server.requests[1].body
    assert counts.records_accepted == 25


def test_a_refusal_before_the_body_is_read_is_a_refusal(tmp_path, log):
    log.write_text("x" * 99 + "\n" + ("y" * 999 + "\n") * 5000)
    early = Answer(429, headers={"Retry-After": "3"}, close=True)
    with RecordingServer(refuse_early=early) as server:
        shipment = Shipment(server, tmp_path, max_records=9999, max_bytes=10**8)
        assert shipment.run().records_accepted == 5001
    assert shipment.offset == log.stat().st_size


def test_giving_up_says_so_and_leaves_the_place(tmp_path, log):
    with RecordingServer(lambda _: Answer(503, headers={"Retry-After": "5"})) as server:
        shipment = Shipment(server, tmp_path, retry_for_s=12)
        with pytest.raises(ShipError, match="no success within 12 s, last: 503"):
            shipment.run()
        assert shipment.offset is None
        server.answer = accept
        assert Shipment(server, tmp_path).run().records_accepted == 25


def test_nobody_listening_is_tried_again(tmp_path, log):
    with RecordingServer() as server:
        target = resolve(server.url)
    with pytest.raises(NoAnswer, match="cannot connect"):
        Sender(target, timeout_s=1).post(b"POST / HTTP/1.1\r\nContent-Length: ", b"")


@pytest.mark.parametrize("status", [401, 403, 404, 415, 301])
def test_a_mistaken_request_ends_it_and_no_line_is_passed_over(tmp_path, log, status):
    with RecordingServer(lambda _: Answer(status, body=b"why")) as server:
        shipment = Shipment(server, tmp_path)
        with pytest.raises(ShipError, match=f"{status}: why"):
            shipment.run()
        assert shipment.offset is None
        assert len(server.requests) == 1


def test_a_success_that_counts_wrong_is_not_believed(tmp_path, log):
    with RecordingServer(lambda _: accepted(24)) as server:
        shipment = Shipment(server, tmp_path)
        with pytest.raises(ShipError, match="without saying that it took all 25"):
            shipment.run()
        assert shipment.offset is None


def test_rejected_lines_are_named_and_passed(tmp_path, log):
    with RecordingServer(lambda r: accepted(len(r.lines), rejected={3: "no"})) as server:
        shipment = Shipment(server, tmp_path)
        counts = shipment.run()
    assert (counts.records_accepted, counts.records_rejected) == (24, 1)
    assert "ends at byte 28 was rejected: bad no" in shipment.warnings[0]
    assert shipment.offset == log.stat().st_size


def test_nothing_valid_in_a_batch_passes_over_that_batch_only(tmp_path, log):
    def answer(received):
        return Answer(400, body=b"no JSON") if received.number == 0 else accept(received)

    with RecordingServer(answer) as server:
        counts = Shipment(server, tmp_path, max_records=10).run()
    assert (counts.records_accepted, counts.records_rejected) == (15, 10)


def test_a_batch_that_is_too_large_is_halved(tmp_path, log):
    def answer(received):
        return Answer(413) if len(received.body) > 60 else accept(received)

    with RecordingServer(answer) as server:
        shipment = Shipment(server, tmp_path)
        counts = shipment.run()
        taken = [r for r in server.requests if len(r.body) <= 60]
        assert lines_of(server, taken) == [f"line {n}" for n in range(25)]
    assert counts.records_accepted == 25
    assert shipment.offset == log.stat().st_size


def test_rubbish_is_sent_as_text_and_empty_lines_are_not_sent(tmp_path):
    log = tmp_path / "app.log"
    log.write_bytes(b"\xff\xfe\x00 bin\n\n\r\nplain\r\n" + b"z" * 500 + b"\nend")
    with RecordingServer() as server:
        counts = Shipment(server, tmp_path, max_line_bytes=100).run()
        assert server.requests[0].lines == [
            rb"\xff\xfe" + b"\x00 bin",
            b"plain",
            b"z" * 100 + b" [cut by ship: 400 bytes more]",
            b"end",
        ]
    assert counts.empty_lines == 2
    assert counts.lines_cut == 1


def test_only_empty_lines_move_the_place_without_a_request(tmp_path):
    (tmp_path / "app.log").write_text("\n\n\n")
    with RecordingServer() as server:
        shipment = Shipment(server, tmp_path)
        assert shipment.run().requests == 0
    assert shipment.offset == 3


def test_gzip_bodies_are_the_same_lines(tmp_path, log):
    def answer(received):
        return accepted(len(gzip.decompress(received.body).split(b"\n")))

    with RecordingServer(answer) as server:
        assert Shipment(server, tmp_path, gzip=True).run().records_accepted == 25


def test_following_waits_for_a_batch_to_fill_or_age(tmp_path, log):
    shipments: list[Shipment] = []

    def answer(received):
        shipments[0].shipper.stop()
        return accept(received)

    class Growing(SleepingClock):
        def sleep(self, seconds):
            super().sleep(seconds)
            if len(self.slept) == 1:
                with open(log, "a") as file:
                    file.write("late\nunfinished")

    with RecordingServer(answer) as server:
        shipment = Shipment(server, tmp_path, follow=True, max_wait_s=2.0, poll_s=0.5)
        shipments.append(shipment)
        shipment.clock = shipment.shipper._clock = Growing()
        shipment.run()
        assert len(server.requests) == 1
        assert lines_of(server) == [*(f"line {n}" for n in range(25)), "late"]
    assert sum(shipment.clock.slept) == pytest.approx(2.0)
    assert shipment.offset == log.stat().st_size - len("unfinished")


def test_stopping_sends_what_waits_and_saves(tmp_path, log):
    with RecordingServer() as server:
        shipment = Shipment(server, tmp_path, follow=True, max_wait_s=3600)

        class Stopping(SleepingClock):
            def sleep(self, seconds):
                shipment.shipper.stop()

        shipment.shipper._clock = Stopping()
        assert shipment.run().records_accepted == 25
    assert shipment.offset == log.stat().st_size


def test_stopping_while_refused_leaves_the_batch_for_next_time(tmp_path, log):
    with RecordingServer(lambda _: Answer(429, headers={"Retry-After": "60"})) as server:
        shipment = Shipment(server, tmp_path, max_records=10)

        class Stopping(SleepingClock):
            def sleep(self, seconds):
                shipment.shipper.stop()

        shipment.shipper._clock = Stopping()
        counts = shipment.run()
        assert counts.records_accepted == 0
        assert shipment.offset is None
        server.answer = accept
        assert Shipment(server, tmp_path).run().records_accepted == 25


def test_a_rotation_is_followed_and_remembered(tmp_path, log):
    with RecordingServer() as server:
        shipment = Shipment(server, tmp_path, follow=True, max_wait_s=0.1)

        class Rotating(SleepingClock):
            def sleep(self, seconds):
                super().sleep(seconds)
                if len(self.slept) == 3:
                    log.rename(tmp_path / "app.log.1")
                    log.write_text("new\n")
                if len(self.slept) == 12:
                    shipment.shipper.stop()

        shipment.shipper._clock = Rotating()
        assert shipment.run().records_accepted == 26
        assert lines_of(server)[-1] == "new"
        assert shipment.offset == 4
        assert Shipment(server, tmp_path).run().requests == 0


def test_ndjson_lines_go_as_they_are(tmp_path):
    records = [{"message": "a"}, {"message": "b"}]
    (tmp_path / "app.log").write_text("".join(json.dumps(record) + "\n" for record in records))
    with RecordingServer() as server:
        Shipment(server, tmp_path, encode=as_ndjson).run()
        assert server.requests[0].records == records
