"""Content codings: taken off, never further than the bound."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from healthmon.probes.http.encodings import decode
from healthmon.probes.http.errors import AnswerError

BOUND = 10_000
CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}


def _decoded(body: bytes, coding: str, *, cut: bool = False) -> tuple[bytes, bool]:
    return decode(body, {"content-encoding": coding}, cut=cut, bound=BOUND)


@pytest.mark.parametrize("coding", CODERS)
def test_a_bomb_costs_no_more_memory_than_the_bound(coding: str) -> None:
    bomb = CODERS[coding](b"\0" * 20_000_000)
    tracemalloc.start()
    try:
        assert _decoded(bomb, coding) == (b"\0" * BOUND, True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_a_bomb_within_a_bomb() -> None:
    bomb = gzip.compress(gzip.compress(b"\0" * 20_000_000))
    body, cut = _decoded(bomb, "gzip, gzip")
    assert cut
    assert len(body) == BOUND


def test_many_small_members_are_one_body() -> None:
    assert _decoded(gzip.compress(b"ab") * 50, "gzip") == (b"ab" * 50, False)
    assert _decoded(zstandard.compress(b"ab") * 50, "zstd") == (b"ab" * 50, False)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_countless_members_are_refused(coding: str) -> None:
    """Each costs a copy of what follows it: a body of nothing but members would be quadratic."""
    with pytest.raises(AnswerError, match="100"):
        _decoded(CODERS[coding](b"") * 10_000, coding)


@given(st.binary(max_size=300), st.sampled_from(sorted(CODERS)), st.data())
def test_a_body_that_ends_too_early(payload: bytes, coding: str, data: st.DataObject) -> None:
    """Torn off by the server it is an error or a beginning; torn off by the bound a beginning."""
    whole = CODERS[coding](payload)
    torn = whole[: data.draw(st.integers(0, len(whole) - 1))]
    body, cut = _decoded(torn, coding, cut=True)
    assert cut
    assert payload.startswith(body)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_one_torn_off_by_the_server_is_told(coding: str) -> None:
    torn = CODERS[coding](b"hello, world" * 100)[:-6]
    with pytest.raises(AnswerError, match=f"the {coding} body ends too early"):
        _decoded(torn, coding)


@given(st.binary(max_size=200), st.sampled_from(sorted(CODERS)))
def test_any_bytes_stay_in_bounds(body: bytes, coding: str) -> None:
    try:
        decoded, _ = _decoded(body, coding)
    except AnswerError:
        return
    assert len(decoded) <= BOUND


@pytest.mark.parametrize(
    ("coding", "words"),
    [
        ("br", "encoded with 'br', which is not understood"),
        ("gzip, gzip, gzip, gzip", "encoded more than 3 times"),
    ],
)
def test_what_is_not_understood(coding: str, words: str) -> None:
    with pytest.raises(AnswerError, match=words):
        _decoded(b"x", coding)
