"""Bytes of frames as segments hold them, put together by hand."""

from __future__ import annotations

import struct
import zlib

import msgspec


def frame_bytes(
    *,
    count: int = 1,
    position: int = 0,
    payload: bytes = b"\x90",
    tenant: str = "default",
    sink: str = "sink",
) -> bytes:
    """One frame by the table of offsets in docs/log-format.md."""
    meta = msgspec.msgpack.encode(
        ["log", tenant, "request", "", "", [[sink, count, len(payload), 0, True]]]
    )
    header = struct.pack(
        "<4sBBHIIIIQQqQI",
        b"CLfr", 1, 1, 0, len(meta), len(payload), count, 0, position, 0,
        1_790_000_000_000_000, 1 << 40, zlib.crc32(payload, zlib.crc32(meta)),
    )  # fmt: skip
    data = header + struct.pack("<I", zlib.crc32(header)) + meta + payload
    return data + b"\0" * (-len(data) % 8)
