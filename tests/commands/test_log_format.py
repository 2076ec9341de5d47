"""docs/log-format.md is true: a real log is read by the tables of that page and nothing else."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.log.log import Log
from pipeline.log.manifest import Read
from pipeline.record import Part
from tests.commands.test_wal_command import LOG_ID, append, living_log
from tests.servers.collector import ROOT

PAGE = (ROOT / "docs" / "log-format.md").read_text(encoding="utf-8")
CODES = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "i64": "<q"}
Table = list[tuple[int, int, str, str]]


def table(heading: str) -> Table:
    """The table of offsets under a heading, which must have no gap and no overlap."""
    section = re.split(r"\n#+ ", PAGE.split(f"# {heading}\n", 1)[1])[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\w+) \| ([^|]+?) \|$", section, re.M)
    fields = [(int(offset), int(size), kind, name) for offset, size, kind, name in rows]
    assert fields, heading
    at = 0
    for offset, size, kind, name in fields:
        assert offset == at, name
        assert kind == "bytes" or struct.calcsize(CODES[kind]) == size, name
        at += size
    return fields


def parse(fields: Table, data: bytes, begin: int) -> tuple[dict[str, Any], int]:
    """Every field by its name up to a comma, and where what follows begins."""
    values = {}
    for offset, size, kind, name in fields:
        raw = data[begin + offset : begin + offset + size]
        values[name.split(",")[0]] = raw if kind == "bytes" else struct.unpack(CODES[kind], raw)[0]
    return values, begin + sum(size for _, size, _, _ in fields)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("format") / "wal"
    with living_log(root) as log:
        for number in range(4):
            append(log, "a", "b", count=number + 1, tenant=f"tenant-{number}")
        overtaking, line = log.read_many(log.cursor("a"), 1, 1)
        parts = [Part.of_extent(of, owed, 0, owed.count) for of, owed in [*line, *overtaking]]
        end(log, parts[0], read=(1, 0))
        end(log, parts[2], read=(1, 0))
        log.checkpoint()
        end(log, parts[1], read=(3, 0))
    return root / LOG_ID


def end(log: Log, part: Part, *, read: Read) -> None:
    """A batch of one frame was formed for the sink "a" and has ended."""
    number = log.form("a", [part], read)
    log.end("a", [part], [], number=number)
    log.commit(sync=True)


def test_a_segment_is_read_by_the_page(log: Path) -> None:
    data = (log / "segment-000000000001.seg").read_bytes()
    head, at = parse(table("Segment head"), data, 0)
    assert head["magic"] == b"CLsg"
    assert head["version"] == 1
    assert head["log id"] == LOG_ID.encode()
    assert head["number of the segment"] == 1
    assert head["CRC-32 of the 48 bytes before"] == zlib.crc32(data[:48])
    fields, before = table("Frame header"), 0
    assert at == 64
    for number in range(4):
        header, meta_at = parse(fields, data, at)
        assert header["magic"] == b"CLfr"
        assert (header["version"], header["kind"]) == (1, 1)
        assert header["CRC-32 of the 60 bytes before"] == zlib.crc32(data[at : at + 60])
        payload_at = meta_at + header["bytes of meta"]
        end = payload_at + header["bytes of payload"]
        assert header["CRC-32 of meta"] == zlib.crc32(data[meta_at:payload_at])
        assert header["CRC-32 of the payload"] == zlib.crc32(data[payload_at:end])
        assert (header["position"], header["records"]) == (number, number + 1)
        assert header["records before"] == before
        before += number + 1
        kind, tenant, _, _, key, shares = msgspec.msgpack.decode(data[meta_at:payload_at])
        assert (kind, tenant, key) == ("log", f"tenant-{number}", "")
        assert [(sink, count) for sink, count, *_ in shares] == [
            ("a", number + 1),
            ("b", number + 1),
        ]
        records = msgspec.msgpack.decode(data[payload_at:end])
        assert len(records) == number + 1
        timestamp, severity, service, message, _, _, payload, no_id = records[0]
        assert isinstance(timestamp, int)
        assert 1 <= severity <= 24
        assert (service, message[:2], payload, no_id) == ("svc", "m-", b"{}", 0)
        at = -(-end // 8) * 8
        assert not any(data[end:at])
    assert not any(data[at:])


def test_the_state_is_read_by_the_page(log: Path) -> None:
    best: dict[str, Any] = {"generation": 0}
    body = b""
    for slot in (0, 1):
        data = (log / f"checkpoint.{slot}").read_bytes()
        head, at = parse(table("Checkpoint"), data, 0)
        if head["generation"] > best["generation"]:
            best, body = head, data[at : at + head["bytes of the body"]]
    assert (best["magic"], best["version"]) == (b"CLcp", 1)
    generation = best["generation"]
    seed = zlib.crc32(struct.pack("<Q", generation))
    assert best["CRC-32 of generation and body"] == zlib.crc32(body, seed)
    state = msgspec.msgpack.decode(body)
    section = PAGE.split("The body is a MessagePack map:", 1)[1].split("\n\n", 1)[0]
    assert set(state) <= set(re.findall(r"`(\w+)`", section))
    assert state["log_id"] == LOG_ID
    assert state["next_position"] == 4
    assert state["reads"]["a"] == [1, 0]
    assert state["ahead"] == {"a": {2: 3}}
    assert state["batches"] == []
    entries = []
    data = (log / f"journal.{generation % 2}").read_bytes()
    fields, at = table("Journal entry"), 0
    while True:
        head, begin = parse(fields, data, at)
        if not head["bytes of the body"] or head["generation"] != generation:
            break
        end = begin + head["bytes of the body"]
        assert head["CRC-32 of generation and body"] == zlib.crc32(data[begin:end], seed)
        entries.append(msgspec.msgpack.decode(data[begin:end]))
        at = -(-end // 8) * 8
    (formed, number, sink, extents, read), ended = entries
    assert (formed, sink, extents, read) == ("formed", "a", [[1, 0, 2]], [3, 0])
    assert ended[:4] == ["ended", number, "a", None]
    assert len(ended) == len(re.split(", ", row_of("ended").group(1))) + 1
    for kind in ("formed", "split", "ended", "cut"):
        assert f"| `{kind}` |" in PAGE


def row_of(kind: str) -> re.Match[str]:
    found = re.search(rf"^\| `{kind}` \| ([^|]+) \|", PAGE, re.M)
    assert found, kind
    return found
