"""What an HTTP/1.1 client must understand, byte for byte, over real connections."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib

import pytest
import zstandard

from healthmon.probes.http.answer import MAX_HEAD_BYTES, MAX_INTERIM
from healthmon.probes.tools import Tools
from tests.healthmon.probes.http.probing import probe_url, probed, probed_by
from tests.healthmon.probes.http.scripted import Client, answer, serving

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5;name=value;other="x"\r\nhello\r\n7 \r\n, world\r\n0\r\nExpires: never\r\nX-T: 1\r\n\r\n'
)


def test_a_usual_answer(tools: Tools) -> None:
    result, server = probed_by(answer(b"all is well"), tools, path="/health?deep=1")

    assert (result.outcome, result.error, result.code) == ("ok", "", 200)
    assert result.address == "127.0.0.1"
    assert result.connect_ms >= 0
    assert result.first_byte_ms >= 0
    assert result.total_ms >= result.connect_ms + result.first_byte_ms
    assert (result.dns_ms, result.tls_ms, result.cert_expires_us) == (-1.0, -1.0, 0)
    assert server.requests == [
        b"GET /health?deep=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: Collector\r\n"
        b"Accept: */*\r\nConnection: close\r\n\r\n" % server.port
    ]


def test_chunked_with_extensions_and_trailers(tools: Tools) -> None:
    result = probed(CHUNKED, tools, body_contains=["hello, world"])
    assert (result.outcome, result.error) == ("ok", "")


@pytest.mark.parametrize("payload", [CHUNKED, answer(b"hello, world")])
def test_an_answer_that_comes_byte_by_byte(tools: Tools, payload: bytes) -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send_bytewise(payload)

    assert probed(script, tools, body_contains=["hello, world"]).outcome == "ok"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"hello, world")),
        ("x-gzip", gzip.compress(b"hello, ") + gzip.compress(b"world")),
        ("deflate", zlib.compress(b"hello, world")),
        ("deflate", zlib.compress(b"hello, world", wbits=-15)),
        ("zstd", zstandard.compress(b"hello, world")),
        ("gzip, deflate", zlib.compress(gzip.compress(b"hello, world"))),
        ("identity", b"hello, world"),
    ],
    # A compressed body has the time in it; the parallel run wants the same names everywhere.
    ids=["gzip", "two members", "deflate", "raw deflate", "zstd", "two codings", "identity"],
)
def test_content_codings(tools: Tools, coding: str, body: bytes) -> None:
    result = probed(
        answer(body, headers=f"Content-Encoding: {coding}\r\n"),
        tools,
        body_contains=["hello, world"],
    )
    assert (result.outcome, result.error) == ("ok", "")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_body_that_is_not_what_it_says(tools: Tools, coding: str) -> None:
    result = probed(
        answer(b"plain text", headers=f"Content-Encoding: {coding}\r\n"), tools, body_contains=["x"]
    )
    assert (result.outcome, result.error) == (
        "failed",
        f"the body is said to be {coding}, but is not",
    )


def test_a_decompression_bomb_is_bounded(tools: Tools) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)[:4000]
    result = probed(
        answer(bomb, headers="Content-Encoding: gzip\r\n"), tools, body_contains=["needle"]
    )
    assert result.outcome == "failed"
    assert result.error == (
        "the body is longer than the 4096 bytes that are read, and 'needle' is not among them"
    )


def test_interim_answers_are_skipped(tools: Tools) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    result = probed(interim + answer(b"done"), tools, body_contains=["done"])
    assert (result.outcome, result.code) == ("ok", 200)


def test_endless_interim_answers_are_not(tools: Tools) -> None:
    result = probed(b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM + 1), tools)
    assert result.error == f"more than {MAX_INTERIM} interim answers, and none that counts"


def test_http_1_0_and_a_body_until_the_end(tools: Tools) -> None:
    result = probed(b"HTTP/1.0 200 OK\r\n\r\nhello, world", tools, body_contains=["world"])
    assert (result.outcome, result.error) == ("ok", "")


def test_bare_newlines_and_folded_headers(tools: Tools) -> None:
    result = probed(
        b"HTTP/1.1 200 OK\nContent-Length: 2\nX-Long: a\n\tb\n\nok",
        tools,
        body_contains=["ok"],
        response_headers=["X-Long: =a b"],
    )
    assert (result.outcome, result.error) == ("ok", "")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_a_body(tools: Tools, status: str) -> None:
    """The connection stays open: who waits for a body waits forever."""

    async def script(client: Client) -> None:
        await client.request()
        await client.send(f"HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n".encode())
        await client.gone()

    result = probed(script, tools, expected_status="204,304")
    assert (result.outcome, result.error) == ("ok", "")


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"", b"content-LENGTH: 0\r\n"],
)
def test_an_answer_to_head_has_no_body(tools: Tools, head: bytes) -> None:
    async def script(client: Client) -> None:
        assert (await client.request()).startswith(b"HEAD / HTTP/1.1\r\n")
        await client.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        await client.gone()

    assert probed(script, tools, method="HEAD").outcome == "ok"


def test_an_empty_body_is_known_by_its_length(tools: Tools) -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send(answer())
        await client.gone()

    assert probed(script, tools).outcome == "ok"


def test_ipv6_addresses(tools: Tools) -> None:
    if not socket.has_ipv6:
        pytest.fail("this machine has no IPv6")
    result, server = probed_by(answer(), tools, host="::1")
    assert (result.outcome, result.address) == ("ok", "::1")
    assert f"Host: [::1]:{server.port}\r\n".encode() in server.requests[0]


def test_an_early_answer_counts_though_the_body_was_not_read(tools: Tools) -> None:
    async def script(client: Client) -> None:
        await client.reader.readuntil(b"\r\n\r\n")
        await client.send(answer(status="413 Content Too Large"))
        await client.gone()

    result = probed(script, tools, method="POST", body="x" * 60_000, expected_status="413")
    assert (result.outcome, result.error) == ("ok", "")


def test_an_answer_that_nobody_asked_for(tools: Tools) -> None:
    async def script(client: Client) -> None:
        await client.send(answer(b"busy", status="503 Service Unavailable"))

    result = probed(script, tools, expected_status="503")
    assert (result.outcome, result.error) == ("ok", "")


def test_a_posted_body_and_headers_of_the_operator(tools: Tools) -> None:
    result, server = probed_by(
        answer(status="201 Created"),
        tools,
        method="POST",
        body='{"name":"é"}',
        headers={"Content-Type": "application/json", "user-agent": "ours", "Host": "other.test"},
        secret_headers="X-Key: k1\n\nX-Other: k2\n",
        username="jo",
        password="secret",
    )
    assert result.outcome == "ok"
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == '{"name":"é"}'.encode()
    assert head.split(b"\r\n") == [
        b"POST / HTTP/1.1",
        b"Host: other.test",
        b"user-agent: ours",
        b"Accept: */*",
        b"Authorization: Basic am86c2VjcmV0",
        b"Content-Type: application/json",
        b"X-Key: k1",
        b"X-Other: k2",
        b"Connection: close",
        b"Content-Length: 13",
    ]


def test_each_probe_is_a_connection_of_its_own(tools: Tools) -> None:
    async def run() -> int:
        async with serving(answer(headers="Connection: keep-alive\r\n")) as server:
            await probe_url(server.url(), tools)
            await probe_url(server.url(), tools)
            return server.connections

    assert asyncio.run(run()) == 2


def test_a_head_that_is_too_long(tools: Tools) -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send(b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 1_000_000)
        await client.gone()

    result = probed(script, tools)
    assert result.error == f"the head of the answer is over {MAX_HEAD_BYTES} bytes"


@pytest.mark.parametrize("chunked", [False, True])
def test_an_endless_body_is_read_up_to_the_bound(tools: Tools, chunked: bool) -> None:
    piece = b"400\r\n" + b"y" * 0x400 + b"\r\n" if chunked else b"y" * 0x400

    async def script(client: Client) -> None:
        await client.request()
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        await client.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
        while True:  # ends when the probe closes the connection
            await client.send(piece)

    async def run() -> list[tuple[str, str]]:
        async with serving(script) as server:
            found = []
            for options in ({}, {"body_contains": ["yy"]}, {"body_not_contains": ["zz"]},
                            {"body_regex": "z+"}, {"json_path": "$.a"}):  # fmt: skip
                result = await probe_url(server.url(), tools, **options)
                found.append((result.outcome, result.error))
            return found

    beyond = "the body is longer than the 4096 bytes that are read, "
    assert asyncio.run(run()) == [
        ("ok", ""),
        ("ok", ""),
        ("degraded", beyond + "and whether 'zz' comes later is not known"),
        ("failed", beyond + "and 'z+' does not match within them"),
        ("failed", beyond + "so that its JSON cannot be judged"),
    ]
