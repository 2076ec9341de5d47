"""Reading answers takes no more memory than the limit allows, whatever a body becomes."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import httpx
import pytest

from jobs.downstream.answers import GarbageError, TooLargeError, read

LIMIT = 64 * 1024


def response(body: bytes, encoding: str) -> httpx.Response:
    return httpx.Response(
        200, headers={"Content-Encoding": encoding}, stream=httpx.ByteStream(body)
    )


def test_a_bomb_is_stopped_before_it_goes_off():
    bomb = gzip.compress(b"\0" * 32 * 1024 * 1024)
    assert len(bomb) < LIMIT
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            read(response(bomb, "gzip"), limit=LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * LIMIT


def test_members_in_a_row_share_the_limit():
    member = gzip.compress(b"x" * 40_000)
    assert read(response(member, "gzip"), limit=LIMIT) == b"x" * 40_000
    with pytest.raises(TooLargeError):
        read(response(member * 2, "gzip"), limit=LIMIT)


@pytest.mark.parametrize("encoding", ["deflate", "x-gzip", "GZIP"])
def test_what_was_not_asked_for_is_read_all_the_same(encoding):
    packed = zlib.compress(b"hello") if encoding == "deflate" else gzip.compress(b"hello")
    assert read(response(packed, encoding), limit=LIMIT) == b"hello"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"plain", "gzip"), (gzip.compress(b"hello" * 50)[:-9], "gzip"), (b"x", "br"), (b"x", "zstd")],
    ids=["plain", "cut", "br", "zstd"],  # compressed bytes hold the time they were made
)
def test_what_cannot_be_read_is_garbage(body, encoding):
    with pytest.raises(GarbageError):
        read(response(body, encoding), limit=LIMIT)
