"""However an answer is cut into pieces, the same comes out; whatever comes, it stays in bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from healthmon.probes.http.answer import MAX_HEAD_BYTES, AnswerReader
from healthmon.probes.http.errors import AnswerError

BOUND = 64

_token = st.text(alphabet="abcXYZ-09", min_size=1, max_size=8)
_value = st.text(alphabet="abc 09,;=/\t\xe9", max_size=20)
_newline = st.sampled_from([b"\r\n", b"\n"])
_payload = st.binary(max_size=120)


@st.composite
def _chunked(draw: st.DrawFn) -> bytes:
    out = b""
    for piece in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5)):
        extension = draw(st.sampled_from([b"", b";a=b", b' ; q="x y"']))
        out += b"%x" % len(piece) + extension + draw(_newline) + piece + draw(_newline)
    trailers = draw(st.sampled_from([b"", b"T: 1\r\n"]))
    return out + b"0" + draw(_newline) + trailers + draw(_newline)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Good answers, and some that are torn off or have a byte changed."""
    newline = draw(_newline)
    interim = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * draw(st.integers(0, 2))
    status = draw(st.sampled_from([b"200 OK", b"204 None", b"404", b"302 Found", b"101 Switching"]))
    head = interim + b"HTTP/1.1 " + status + newline
    for name, value in draw(st.lists(st.tuples(_token, _value), max_size=4)):
        head += f"{name}: {value}".encode("latin-1") + newline
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if framing == "chunked":
        whole = head + b"Transfer-Encoding: chunked" + newline + newline + draw(_chunked())
    else:
        body = draw(_payload)
        length = b"Content-Length: %d" % len(body) + newline if framing == "length" else b""
        whole = head + length + newline + body
    whole = whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole
    if whole and draw(st.booleans()):
        at = draw(st.integers(0, len(whole) - 1))
        whole = whole[:at] + bytes([draw(st.integers(0, 255))]) + whole[at + 1 :]
    return whole


def _read(pieces: list[bytes], *, bodiless: bool) -> tuple[object, ...]:
    reader = AnswerReader(max_body_bytes=BOUND, bodiless=bodiless)
    try:
        for piece in pieces:
            if piece and reader.feed(piece):
                break
        reader.end()
    except AnswerError as error:
        # A glimpse of what is not HTTP is as long as what had come by then.
        return ("error", str(error).partition("begins with")[0])
    assert len(reader.body) <= BOUND
    return (reader.status, reader.headers, bytes(reader.body), reader.cut)


@given(answers(), st.data(), st.booleans())
def test_where_it_is_cut_does_not_matter(whole: bytes, data: st.DataObject, bodiless: bool) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])]
    bytewise = [whole[at : at + 1] for at in range(len(whole))]

    uncut = _read([whole], bodiless=bodiless)
    assert _read(pieces, bodiless=bodiless) == uncut
    assert _read(bytewise, bodiless=bodiless) == uncut


@given(st.lists(st.binary(max_size=50), max_size=10))
@example([b"HTTP/1.1 200 OK\r\n\r\n", b"x"])
def test_any_bytes_give_an_answer_or_a_sentence(pieces: list[bytes]) -> None:
    _read(pieces, bodiless=False)
    _read([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *pieces], bodiless=False)


@given(_payload, st.integers(1, 30))
def test_a_chunked_body_is_the_body(payload: bytes, size: int) -> None:
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    reader = AnswerReader(max_body_bytes=1000)
    assert reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded)
    assert (bytes(reader.body), reader.cut) == (payload, False)


def test_a_head_of_just_the_bound_is_taken_wherever_it_is_cut() -> None:
    begin = b"HTTP/1.1 204 None\r\nX: "
    head = begin + b"x" * (MAX_HEAD_BYTES - len(begin) - 1) + b"\r\n\r\n"
    for missing in range(5):
        reader = AnswerReader(max_body_bytes=BOUND)
        assert reader.feed(head[: len(head) - missing]) == (missing == 0)
        if missing:
            assert reader.feed(head[len(head) - missing :])
    with pytest.raises(AnswerError, match="is over"):
        AnswerReader(max_body_bytes=BOUND).feed(head.replace(b"X: ", b"X: x"))


def test_what_comes_beyond_the_bound_is_not_judged() -> None:
    body = b"%x\r\n" % (BOUND + 1) + b"y" * (BOUND + 1) + b"no chunk at all"
    reader = AnswerReader(max_body_bytes=BOUND)
    assert reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert (bytes(reader.body), reader.cut) == (b"y" * BOUND, True)
