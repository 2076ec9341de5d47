"""Reading and inflating: lengths that lie, chunks, bombs, and what is reserved meanwhile."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard

from ingest.wire.body import encoding_of, length_of, read_body
from ingest.wire.errors import RequestError
from ingest.wire.inflate import STEP_BYTES
from pipeline.errors import Saturated, TooLarge
from pipeline.intake.bytegate import ByteGate

MIB = 1024 * 1024
TEXT = b"every line of this body is like every other\n" * 20_000


class Stream:
    """A body that arrives in pieces, or breaks off with an error."""

    def __init__(self, pieces: Iterator[bytes], error: Exception | None = None) -> None:
        self._pieces = pieces
        self._rest = b""
        self._error = error

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
            if not self._rest and self._error is not None:
                raise self._error
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def read(
    stream: Any,
    *,
    length: int | None,
    encoding: str = "",
    gate: ByteGate | None = None,
    max_body_bytes: int = MIB,
    max_inflated_bytes: int = 4 * MIB,
) -> bytes:
    gate = gate or ByteGate(64 * MIB)
    with gate.reserve(length or 0) as reservation:
        body = read_body(
            {"wsgi.input": stream},
            length=length,
            encoding=encoding,
            reservation=reservation,
            max_body_bytes=max_body_bytes,
            max_inflated_bytes=max_inflated_bytes,
        )
        assert gate.held_bytes >= len(body)
    assert gate.held_bytes == 0
    return body


def refused(*args: Any, **options: Any) -> tuple[int, str]:
    with pytest.raises(RequestError) as error:
        read(*args, **options)
    return error.value.status, error.value.code


def test_a_plain_body() -> None:
    assert read(io.BytesIO(TEXT), length=len(TEXT)) == TEXT
    assert read(io.BytesIO(b""), length=0) == b""


def test_a_body_in_pieces() -> None:
    large = TEXT * 3
    for length in (len(large), None):
        pieces = (large[i : i + 70_000] for i in range(0, len(large), 70_000))
        assert read(Stream(pieces), length=length, max_body_bytes=len(large)) == large


def test_no_more_is_read_than_the_length_says() -> None:
    stream = io.BytesIO(b"first" + b"second")
    assert read(stream, length=5) == b"first"
    assert stream.read() == b"second"


@pytest.mark.parametrize("length", [12, 2 * MIB])
def test_a_length_that_promises_more_than_comes(length: int) -> None:
    assert refused(io.BytesIO(b"only this"), length=length) == (400, "incomplete_body")


def test_a_client_that_is_too_slow() -> None:
    stream = Stream(iter([b"abc"]), TimeoutError("cut"))
    assert refused(stream, length=10) == (408, "body_timeout")


@pytest.mark.parametrize("length", [10, None])
def test_a_client_that_goes_away(length: int | None) -> None:
    stream = Stream(iter([b"abc"]), ConnectionResetError("gone"))
    assert refused(stream, length=length) == (400, "broken_body")


def test_a_chunked_body_has_the_limit_of_any_other() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 10_000

    assert refused(Stream(endless()), length=None) == (413, "body_too_large")


def test_a_chunked_body_takes_room_in_the_gate_as_it_comes() -> None:
    gate = ByteGate(100_000)
    stream = Stream(iter([b"x" * 50_000] * 4))
    with gate.reserve(30_000), pytest.raises(Saturated):
        read(stream, length=None, gate=gate)
    assert gate.held_bytes == 0


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CONTENT_LENGTH": "17"}, 17),
        ({}, 0),
        ({"CONTENT_LENGTH": ""}, 0),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, None),
    ],
)
def test_lengths(environ: dict[str, Any], expected: int | None) -> None:
    assert length_of(environ, max_body_bytes=100) == expected


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"CONTENT_LENGTH": "101"}, 413),
        ({"CONTENT_LENGTH": "9" * 5000}, 413),
        ({"CONTENT_LENGTH": "-5"}, 400),
        ({"CONTENT_LENGTH": "1e3"}, 400),
        ({"CONTENT_LENGTH": "²"}, 400),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 411),
    ],
)
def test_lengths_that_are_refused_before_reading(environ: dict[str, Any], status: int) -> None:
    with pytest.raises(RequestError) as error:
        length_of(environ, max_body_bytes=100)
    assert error.value.status == status


@pytest.mark.parametrize(
    ("sent", "encoding"),
    [("", ""), ("identity", ""), ("gzip", "gzip"), ("X-GZIP", "gzip"), (" zstd ", "zstd")],
)
def test_encodings(sent: str, encoding: str) -> None:
    assert encoding_of({"HTTP_CONTENT_ENCODING": sent}) == encoding


@pytest.mark.parametrize("sent", ["br", "deflate", "gzip, gzip", "*", "\xff"])
def test_unknown_encodings(sent: str) -> None:
    with pytest.raises(RequestError) as error:
        encoding_of({"HTTP_CONTENT_ENCODING": sent})
    assert error.value.status == 415
    assert error.value.extra["supported"] == ["gzip", "zstd"]


def zstd(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def zstd_stream(data: bytes) -> bytes:
    """As a streaming client sends it: the frame's header does not tell the size."""
    compressor = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return compressor.compress(data) + compressor.flush()


SKIPPABLE = struct.pack("<II", 0x184D2A53, 4) + b"skip"
INFLATABLE = {
    "gzip": ("gzip", gzip.compress(TEXT), TEXT),
    "gzip members": ("gzip", gzip.compress(b"a\n") + gzip.compress(TEXT) + gzip.compress(b"z"),
                     b"a\n" + TEXT + b"z"),
    "gzip member of nothing": ("gzip", gzip.compress(b"") + gzip.compress(b"b"), b"b"),
    "gzip with padding": ("gzip", gzip.compress(TEXT) + b"\0" * 100_000, TEXT),
    "gzip that hardly shrinks": ("gzip", gzip.compress(bytes(range(256)) * 3000, 0),
                                 bytes(range(256)) * 3000),
    "zstd": ("zstd", zstd(TEXT), TEXT),
    "zstd stream": ("zstd", zstd_stream(TEXT), TEXT),
    "zstd frames": ("zstd", zstd(b"a\n") + SKIPPABLE + zstd_stream(TEXT), b"a\n" + TEXT),
    "zstd of nothing": ("zstd", zstd(b""), b""),
}  # fmt: skip


@pytest.mark.parametrize(("encoding", "data", "text"), INFLATABLE.values(), ids=INFLATABLE.keys())
def test_inflating(encoding: str, data: bytes, text: bytes) -> None:
    assert read(io.BytesIO(data), length=len(data), encoding=encoding) == text


@pytest.mark.parametrize(("encoding", "data", "text"), INFLATABLE.values(), ids=INFLATABLE.keys())
def test_a_compressed_body_that_breaks_off(encoding: str, data: bytes, text: bytes) -> None:
    data = data.rstrip(b"\0")
    for cut in (1, 2, 5, len(data) // 2, len(data) - 1):
        if encoding == "zstd" and data[:-cut].endswith((SKIPPABLE, zstd(b"a\n"))):
            continue  # what is left is whole
        body = data[: len(data) - cut]
        assert refused(io.BytesIO(body), length=len(body), encoding=encoding)[0] == 400


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize(
    "data", [b"not compressed at all", b"\0" * 50, b"{", b"\x1f\x8b", b"(\xb5/\xfd"]
)
def test_a_body_that_is_not_compressed(encoding: str, data: bytes) -> None:
    assert refused(io.BytesIO(data), length=len(data), encoding=encoding) == (
        400,
        "bad_compression",
    )


def test_something_else_after_a_gzip_member() -> None:
    data = gzip.compress(TEXT) + b"and more"
    assert refused(io.BytesIO(data), length=len(data), encoding="gzip") == (400, "bad_compression")


def bombs() -> dict[str, tuple[str, bytes]]:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    gz = b"".join(packer.compress(zeros) for _ in range(256)) + packer.flush()
    frames = zstd(bytes(64 * MIB)) * 50
    return {"gzip": ("gzip", gz), "zstd": ("zstd", frames),
            "gzip members": ("gzip", gzip.compress(zeros) * 300)}  # fmt: skip


@pytest.mark.parametrize(("encoding", "data"), bombs().values(), ids=bombs().keys())
def test_a_bomb_is_stopped_at_the_limit(encoding: str, data: bytes) -> None:
    gate = ByteGate(64 * MIB)
    assert refused(
        io.BytesIO(data), length=len(data), encoding=encoding, gate=gate, max_body_bytes=8 * MIB
    ) == (413, "inflated_too_large")


def test_a_bomb_stops_at_the_gate_when_that_is_nearer() -> None:
    encoding, data = bombs()["gzip"]
    gate = ByteGate(len(data) + 3 * STEP_BYTES)
    with pytest.raises(TooLarge), gate.reserve(len(data)) as reservation:
        read_body(
            {"wsgi.input": io.BytesIO(data)},
            length=len(data),
            encoding=encoding,
            reservation=reservation,
            max_body_bytes=MIB,
            max_inflated_bytes=64 * MIB,
        )
    assert gate.held_bytes == 0


def test_a_window_larger_than_every_decoder_has() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(TEXT) + compressor.flush()
    assert refused(io.BytesIO(data), length=len(data), encoding="zstd") == (400, "bad_compression")
