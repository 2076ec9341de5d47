"""POST of MessagePack and protobuf, through the whole front door."""

from __future__ import annotations

import gzip
import json
from typing import Any

import msgspec
import pytest

from ingest.wire.protoschema import schema
from tests.ingest.front import Front

PROTOBUF = "application/x-protobuf"
MSGPACK = "application/msgpack"


def log_batch(*messages: str) -> bytes:
    batch = schema().log_batch()
    for message in messages:
        batch.records.add(message=message, level="WARN")
    return bytes(batch.SerializeToString())


def maps(*messages: str) -> bytes:
    return msgspec.msgpack.encode([{"message": message, "level": "WARN"} for message in messages])


@pytest.mark.parametrize(("content_type", "body_of"), [(PROTOBUF, log_batch), (MSGPACK, maps)])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_records_reach_the_sink_as_json(
    front: Front, content_type: str, body_of: Any, encoding: str
) -> None:
    body = body_of("a", "b")
    headers = {"Content-Encoding": encoding} if encoding else {}
    response = front.post(
        "/logs", gzip.compress(body) if encoding else body, content_type, **headers
    )
    assert response.status_code == 202, response.content
    assert json.loads(response.content)["accepted"] == 2
    assert front.sink.join(1)
    records = [record for batch in front.sink.batches for record in batch.records]
    assert [(record.message, record.severity) for record in records] == [("a", 13), ("b", 13)]
    assert [json.loads(record.payload) for record in records] == [
        {"message": "a", "level": "WARN"},
        {"message": "b", "level": "WARN"},
    ]


def test_the_bad_are_listed_by_index(front: Front) -> None:
    body = msgspec.msgpack.encode([{"message": "a"}, {"k": b"raw"}, 7, {"message": "b"}])
    told = json.loads(front.post("/logs", body, MSGPACK).content)
    assert (told["accepted"], told["rejected"]) == (2, 2)
    assert [(error["index"], error["code"]) for error in told["errors"]] == [
        (1, "not_json"),
        (2, "not_an_object"),
    ]
    assert "'k'" in told["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("content_type", "code"), [(PROTOBUF, "malformed_protobuf"), (MSGPACK, "malformed_msgpack")]
)
def test_a_body_that_is_something_else(front: Front, content_type: str, code: str) -> None:
    body = b'{"message": "m"}' if content_type == PROTOBUF else b"\xc1"
    response = front.post("/logs", body, content_type)
    assert (response.status_code, json.loads(response.content)["code"]) == (400, code)


def test_protobuf_has_no_message_for_pings(front: Front) -> None:
    response = front.post("/health", log_batch("a"), PROTOBUF)
    assert response.status_code == 415
    assert "docs/schema/collector.proto" in json.loads(response.content)["detail"]
    ping = msgspec.msgpack.encode({"service": "s", "status": "up"})
    assert front.post("/health", ping, MSGPACK).status_code == 202
