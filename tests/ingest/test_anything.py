"""Whatever is sent, the answer is one of those the schema names, and what was accepted is kept."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ingest.bodies import one, take
from tests.ingest.front import Front

WAIT_S = 180.0
DOCUMENTED = {202, 400, 401, 403, 408, 411, 413, 415, 429, 503}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
field_names = st.sampled_from(
    ["timestamp", "ts", "time", "@timestamp", "level", "severity", "service", "message", "msg",
     "body", "tenant", "trace_id", "span_id", "status", "latency_ms", "user_id", "action", "x"]
)  # fmt: skip
records = st.dictionaries(field_names, json_values, max_size=6)
fragments = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\n", b"\r", b" ", b"\\u0000", b"\\ud800",
     b"1e999999", b"NaN", b"\xff", b"\xef\xbb\xbf", b"\0", b"null", b'{"message":"m"}',
     b'{"service":"s","status":"up"}', b'{"user_id":1,"action":"a"}', b"[" * 500]
)  # fmt: skip
bodies = (
    st.binary(max_size=300)
    | st.lists(fragments, max_size=12).map(b"".join)
    | records.map(lambda fields: json.dumps(fields).encode())
    | st.lists(records, max_size=4).map(lambda items: json.dumps(items).encode())
    | st.lists(records, max_size=4).map(
        lambda items: b"\n".join(json.dumps(item).encode() for item in items)
    )
)
content_types = st.sampled_from(
    ["application/json", "application/x-ndjson", "text/plain", "application/json; charset=utf-8",
     "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "", "image/png"]
) | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)  # fmt: skip
packers: dict[str, Any] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
}
encodings = st.sampled_from(["", "gzip", "zstd", "identity", "br"]) | st.text(
    st.characters(min_codepoint=32, max_codepoint=126), max_size=10
)
lengths = st.sampled_from(["", "0", "-1", "1e3", "99999999999999999999", "x", "5"])


@given(
    path=st.sampled_from(["/logs", "/health", "/event"]),
    body=bodies,
    content_type=content_types,
    encoding=encodings,
    packed=st.booleans(),
    ack=st.sampled_from(["", "?ack=memory", "?ack=stored", "?ack=wal", "?ack", "?%ff=&ack=\x7f"]),
    length=st.none() | lengths,
)
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_only_documented_answers(
    front: Front,
    path: str,
    body: bytes,
    content_type: str,
    encoding: str,
    packed: bool,
    ack: str,
    length: str | None,
) -> None:
    front.limits(ack_timeout_s=0.01)
    if packed and encoding in packers:
        body = packers[encoding](body)
    extra: Any = {"CONTENT_LENGTH": length} if length is not None and len(body) >= 5 else {}
    before = _accepted(front)
    response = front.client.generic(
        "POST",
        path + ack,
        body,
        content_type=content_type,
        headers={"Content-Encoding": encoding} if encoding else None,
        **extra,
    )
    assert response.status_code in DOCUMENTED, (response.status_code, response.content)
    told = json.loads(response.content)
    taken = _accepted(front) - before
    if response.status_code == 202:
        assert told["accepted"] == taken > 0
        assert len(told["errors"]) == min(told["rejected"], 100)
    else:
        assert taken == 0
        assert told["status"] == response.status_code
        assert told["code"]


def _accepted(front: Front) -> int:
    """With `ack=memory` the answer comes before the record is in the log, and so in the ledger."""
    assert front.engine.flush(WAIT_S)
    rows: Any = front.engine.stats()["ledger"]
    return sum(int(row["accepted"]) for row in rows)


@given(records)
@settings(max_examples=300, deadline=None)
def test_a_record_is_judged_alike_alone_and_in_company(fields: dict[str, Any]) -> None:
    body = json.dumps(fields)
    alone = take(body)
    crowd = take("\n".join(['{"message":"before"}', body, '{"message":"after"}']))
    if alone.rejected:
        assert [(entry.index, entry.code) for entry in crowd.rejections] == [
            (1, alone.rejections[0].code)
        ]
    else:
        assert crowd.records["default"][1] == alone.records["default"][0]
        assert json.loads(alone.records["default"][0].payload) == fields


@given(st.binary(max_size=200))
def test_text_keeps_every_line_readable(body: bytes) -> None:
    from ingest.wire.formats import Format

    decoded = take(body, format=Format.TEXT)
    assert decoded.rejected == 0
    kept = [record.message for record in decoded.records.get("default", [])]
    assert len(kept) == sum(
        bool(line.strip(b"\r")) for line in body.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    )
    assert all("\0" not in line for line in kept)


@pytest.mark.parametrize("level", ["ERROR", 40])
def test_the_swift_and_the_careful_way_agree(level: str | int) -> None:
    swift = one(
        {"level": level, "message": "m", "service": "s", "timestamp": "2026-01-01T00:00:00Z"}
    )
    # An alias of the wrong type that does not count sends a record down the careful way.
    careful = one(
        {"level": level, "message": "m", "service": "s", "timestamp": "2026-01-01T00:00:00Z",
         "body": []}
    )  # fmt: skip
    assert swift.severity == careful.severity
    assert swift.timestamp_us == careful.timestamp_us
    assert (swift.message, swift.service) == (careful.message, careful.service)
