"""The sending commands' Idempotency-Keys: one a chunk, the same for each of its attempts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.client.response import rest_of_head
from ingest.loadtest.tally import ACKNOWLEDGED
from tests.commands.recording import Answer, Drop, Received, RecordingServer, accept
from tests.commands.test_generator import generate
from tests.commands.test_shipper import Shipment

LOST: list[Any] = [Drop(), Drop(reset=True), Answer(503), Answer(429), Answer(409)]


def keys_of(server: RecordingServer) -> list[str]:
    return [request.headers.get("idempotency-key", "") for request in server.requests]


def test_the_rest_of_a_head() -> None:
    assert rest_of_head(5) == b"5\r\n\r\n"
    assert rest_of_head(5, key="k") == b"5\r\nIdempotency-Key: k\r\n\r\n"


@pytest.mark.parametrize("trouble", LOST)
def test_a_load_tests_repeat_is_the_same_request(trouble: Any) -> None:
    def answer(received: Received) -> Any:
        return trouble if received.number == 0 else accept(received)

    with RecordingServer(answer) as server:
        tally = generate(server, records=6, clients=1, batch=3, keys=True)
        keys = keys_of(server)
        first, *others = server.requests
        (again,) = [one for one, key in zip(others, keys[1:], strict=True) if key == keys[0]]
        assert again.body == first.body
    assert len(keys) == 3
    assert len(set(keys)) == 2
    assert tally.succeeded


def test_with_keys_a_lost_answer_allows_nothing_twice() -> None:
    def answer(received: Received) -> Any:
        return Drop() if received.number == 0 else accept(received)

    with RecordingServer(answer) as server:
        tally = generate(server, records=2, clients=1, keys=True)
    assert tally.fates == bytes([ACKNOWLEDGED]) * 2
    assert set(tally.allowed.values()) <= {1}


def test_answers_that_were_given_before_are_counted() -> None:
    def answer(received: Received) -> Answer:
        said = accept(received)
        said.headers["Idempotency-Replayed"] = "true"
        return said

    with RecordingServer(answer) as server:
        tally = generate(server, records=2, clients=1, keys=True)
    assert tally.summary()["replayed"] == 2
    assert json.dumps(tally.summary())


def test_without_the_option_a_load_test_sends_none() -> None:
    with RecordingServer() as server:
        generate(server, records=2, clients=1)
        assert keys_of(server) == ["", ""]


@pytest.mark.parametrize("trouble", LOST)
def test_a_shipped_batchs_repeat_is_the_same_request(tmp_path: Path, trouble: Any) -> None:
    (tmp_path / "app.log").write_text("".join(f"line {n}\n" for n in range(25)))

    def answer(received: Received) -> Any:
        return trouble if received.number == 1 else accept(received)

    with RecordingServer(answer) as server:
        counts = Shipment(server, tmp_path, max_records=10, run="ship-1").run()
        assert keys_of(server) == ["ship-1-1", "ship-1-2", "ship-1-2", "ship-1-3"]
        assert server.requests[1].body == server.requests[2].body
    assert counts.records_accepted == 25
    assert counts.records_rejected == 0


def test_halves_of_a_batch_that_is_too_large_have_keys_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "app.log").write_text("one\ntwo\n")

    def answer(received: Received) -> Answer:
        return Answer(413) if len(received.lines) > 1 else accept(received)

    with RecordingServer(answer) as server:
        counts = Shipment(server, tmp_path, run="ship-1").run()
        assert len(set(keys_of(server))) == 3
    assert counts.records_accepted == 2


def test_without_a_run_a_shipper_sends_none(tmp_path: Path) -> None:
    (tmp_path / "app.log").write_text("one\n")
    with RecordingServer() as server:
        Shipment(server, tmp_path).run()
        assert keys_of(server) == [""]


@pytest.mark.parametrize(("command", "keyed"), [("ship", True), ("loadtest", False)])
def test_both_commands_share_their_arguments(command: str, keyed: bool) -> None:
    from django.core.management import load_command_class

    parser = load_command_class("ingest", command).create_parser("manage.py", command)
    needed = ["1", "1"] if command == "loadtest" else ["app.log"]
    for ack in ("memory", "wal", "stored"):
        assert parser.parse_args([*needed, "--ack", ack]).ack == ack
    assert parser.parse_args(needed).idempotency_keys is keyed
    assert parser.parse_args([*needed, "--no-idempotency-keys"]).idempotency_keys is False
    assert parser.parse_args([*needed, "--idempotency-keys"]).idempotency_keys is True
