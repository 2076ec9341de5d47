"""Servers that misbehave in every phase: one sentence for each, nothing left open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from healthmon.probes.net.dial import deadline_text
from healthmon.probes.tools import Tools
from tests.healthmon.probes.http.probing import probe_url, probed
from tests.healthmon.probes.http.scripted import Client, Script, answer, serving

Cut = Callable[[Client], Awaitable[None]]


async def _reset(client: Client) -> None:
    client.reset()


async def _close(client: Client) -> None:
    client.writer.close()


def _after(sent: bytes, cut: Cut, *, reads: bool = True) -> Script:
    async def script(client: Client) -> None:
        if reads:
            await client.request()
        await client.send(sent)
        if sent and cut is _reset:
            # The probe has what was sent before the reset overtakes it.
            await client.reader.read(0)
            await asyncio.sleep(0)
        await cut(client)

    return script


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
NOT_HTTP = "the answer is not HTTP: it begins with "
NO_HEADER = "the head of the answer has a line that is not a header"
NO_LENGTH = "the answer's Content-Length is not a length: "
TOO_MUCH = "the chunks of the body carry more extensions than body"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", "the connection was closed without an answer"),
        (b"HTT", "the connection was closed in the middle of the answer's head"),
        (b"HTTP/1.1 200 OK\r\nX: ", "the connection was closed in the middle of the answer's head"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "the connection was closed after an interim answer"),
        (
            HEAD + b"x" * 10,
            "the connection was closed after 10 of the 100 bytes that the body should have",
        ),
        (CHUNKED, "the connection was closed in the middle of a chunked body"),
        (CHUNKED + b"5\r\nhel", "the connection was closed in the middle of a chunked body"),
        (CHUNKED + b"2\r\nok\r\n", "the connection was closed in the middle of a chunked body"),
        (CHUNKED + b"0\r\n", "the connection was closed in the middle of a chunked body"),
    ],
)
def test_a_connection_closed_too_early(tools: Tools, sent: bytes, error: str) -> None:
    result = probed(_after(sent, _close), tools)
    assert (result.outcome, result.error) == ("failed", error)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"SSH-2.0-Open\r\n", NOT_HTTP + "'SSH-2.0-Open\\r\\n'"),
        (b"\x15\x03\x03\x00\x02", NOT_HTTP + "'\\x15\\x03\\x03\\x00\\x02'"),
        (b"HTTP/2 200 OK\r\n\r\n", "the answer's first line is not HTTP/1: 'HTTP/2 200 OK'"),
        (b"HTTP/1.1 2OO OK\r\n\r\n", "the answer's first line is not HTTP/1: 'HTTP/1.1 2OO OK'"),
        (OK + b"no colon\r\n\r\n", NO_HEADER),
        (OK + b"bad name: x\r\n\r\n", NO_HEADER),
        (OK + b"X: \0\r\n\r\n", "the head of the answer has a NUL byte in it"),
        (OK + b"Content-Length: -1\r\n\r\n", NO_LENGTH + "-1"),
        (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", NO_LENGTH + "1, 2"),
        (CHUNKED + b"zz\r\n", "the body is said to be chunked, but has no chunk size"),
        (CHUNKED + b"1\r\nab\r\n", "a chunk of the body is longer than its size says"),
        (CHUNKED + b"1;" + b"x" * 5000, "a chunk of the body has a line over 4096 bytes"),
        (CHUNKED + (b"1;" + b"x" * 4000 + b"\r\na\r\n") * 20, TOO_MUCH),
        (CHUNKED + b"0\r\n" + b"T: 1\r\n" * 70_000, TOO_MUCH),
    ],
)  # fmt: skip
def test_garbage(tools: Tools, sent: bytes, error: str) -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send(sent)
        await client.gone()

    result = probed(script, tools)
    assert (result.outcome, result.error) == ("failed", error)


@pytest.mark.parametrize(
    ("sent", "phases"),
    [
        (b"", {"waiting for the answer"}),
        (b"HTTP/1.1 200 OK\r\nX: ", {"reading the head", "waiting for the answer"}),
        (HEAD + b"xx", {"reading the body", "waiting for the answer"}),
    ],
)
def test_a_reset_in_each_phase(tools: Tools, sent: bytes, phases: set[str]) -> None:
    result = probed(_after(sent, _reset), tools)
    assert result.outcome == "failed"
    assert result.error in {f"the connection was reset while {phase}" for phase in phases}


def test_a_reset_right_after_accepting(tools: Tools) -> None:
    result = probed(_after(b"", _reset, reads=False), tools)
    assert result.outcome == "failed"
    assert result.error == "the connection was reset while waiting for the answer"


def test_nothing_listens(tools: Tools) -> None:
    async def run() -> tuple[str, str, int]:
        async with serving(answer()) as server:
            url, port = server.url(), server.port
        result = await probe_url(url, tools)
        return result.outcome, result.error, port

    outcome, error, port = asyncio.run(run())
    assert outcome == "failed"
    assert error == f"127.0.0.1:{port} refused the connection: nothing listens there"


@pytest.mark.parametrize(
    ("sent", "doing"),
    [
        (b"", "waiting for the answer"),
        (b"HTTP/1.1 200", "reading the head"),
        (HEAD + b"a", "reading the body"),
        (CHUNKED + b"5\r\nh", "reading the body"),
    ],
)
def test_a_slow_server_ends_with_the_caller_s_deadline(
    tools: Tools, sent: bytes, doing: str
) -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send(sent)
        await client.gone()

    async def run() -> str:
        async with serving(script) as server:
            probing = asyncio.create_task(probe_url(server.url(), tools))
            with pytest.raises(TimeoutError) as failure:
                async with asyncio.timeout(0.2):
                    await probing
            async with asyncio.timeout(10):
                await server.seen_gone.wait()  # the connection is not left open
            return deadline_text(failure.value, 0.2)

    assert asyncio.run(run()) == f"no answer within 0.2 s: still {doing}"


def test_bytes_that_keep_dripping_do_not_move_the_deadline(tools: Tools) -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send(OK + b"X-Endless: ")
        while not client.writer.transport.is_closing():
            await client.send(b"x")
            await asyncio.sleep(0.005)

    async def run() -> None:
        async with serving(script) as server:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await probe_url(server.url(), tools)

    asyncio.run(run())
