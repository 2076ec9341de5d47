"""Redirects: followed within bounds, each hop judged anew, credentials kept from others."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from control.outbound.policy import AddressPolicy
from healthmon.probes.kind import Result
from healthmon.probes.tools import Tools
from tests.healthmon.probes.http.probing import probe_url
from tests.healthmon.probes.http.scripted import Client, Server, answer, serving

Pages = dict[str, bytes]


def _to(location: str, status: int = 302) -> bytes:
    return answer(status=f"{status} Moved", headers=f"Location: {location}\r\n")


def _visit(pages: Pages, tools: Tools, path: str = "/", **options: object) -> tuple[Result, Server]:
    async def script(client: Client) -> None:
        request = await client.request()
        await client.send(pages[request.split(b" ")[1].decode()])

    async def run() -> tuple[Result, Server]:
        async with serving(script) as server:
            return await probe_url(server.url(path), tools, **options), server

    return asyncio.run(run())


def _asked(server: Server) -> list[str]:
    return [request.split(b" HTTP")[0].decode() for request in server.requests]


def test_relative_and_absolute_ones_are_followed(tools: Tools) -> None:
    pages = {"/": _to("a/b?x=1"), "/a/b?x=1": _to("../c#part"), "/c": answer(b"here")}
    result, server = _visit(pages, tools, body_contains=["here"])
    assert (result.outcome, result.error, result.code) == ("ok", "", 200)
    assert _asked(server) == ["GET /", "GET /a/b?x=1", "GET /c"]
    assert server.connections == 3


@pytest.mark.parametrize(
    ("status", "method", "second"),
    [
        (301, "POST", "GET /there"),
        (302, "POST", "GET /there"),
        (303, "PUT", "GET /there"),
        (303, "HEAD", "HEAD /there"),
        (302, "HEAD", "HEAD /there"),
        (307, "POST", "POST /there"),
        (308, "PUT", "PUT /there"),
    ],
)
def test_the_method_that_follows(tools: Tools, status: int, method: str, second: str) -> None:
    pages = {"/": _to("/there", status), "/there": answer()}
    body = "data" if method in ("POST", "PUT") else ""
    result, server = _visit(pages, tools, method=method, body=body)
    assert result.outcome == "ok"
    assert _asked(server)[1] == second
    assert server.requests[1].endswith(b"data") == (second.split()[0] == method and bool(body))


def test_an_expected_redirect_is_not_followed(tools: Tools) -> None:
    result, server = _visit({"/": _to("/x", 301)}, tools, expected_status="301")
    assert (result.outcome, result.code, len(server.requests)) == ("ok", 301, 1)


def test_redirects_may_be_switched_off(tools: Tools) -> None:
    result, _ = _visit({"/": _to("/x")}, tools, follow_redirects=False)
    assert result.error == "the status is 302, which is not expected"


def test_one_without_a_location_is_judged_as_it_is(tools: Tools) -> None:
    result, _ = _visit({"/": answer(status="302 Found")}, tools)
    assert (result.error, result.code) == ("the status is 302, which is not expected", 302)


def test_a_circle_is_seen(tools: Tools) -> None:
    result, server = _visit({"/": _to("/a"), "/a": _to("/?")}, tools)
    assert result.error == (
        f"the redirects go round in a circle, back to http://127.0.0.1:{server.port}/"
    )


def test_no_more_than_the_maximum(tools: Tools) -> None:
    pages = {f"/{step}": _to(f"/{step + 1}") for step in range(9)} | {"/": _to("/0")}
    result, server = _visit(pages, tools, max_redirects=3)
    assert (result.error, len(server.requests)) == ("more than 3 redirects", 4)


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("file:///etc/passwd", "the address must begin with http:// or https://"),
        ("http://[::bad/", "a redirect to something that is not a URL"),
        ("http://127.1/", "'127.1' is neither a host name nor an IP address"),
    ],
)
def test_where_none_can_lead(tools: Tools, location: str, error: str) -> None:
    result, _ = _visit({"/": _to(location)}, tools)
    assert result.outcome == "failed"
    assert result.error.endswith(error)


@pytest.mark.parametrize("location", ["http://169.254.169.254/latest", "http://[fe80::1]/"])
def test_a_redirect_to_a_forbidden_address_is_not_connected_to(tools: Tools, location: str) -> None:
    result, _ = _visit({"/": _to(location)}, tools)
    assert result.outcome == "failed"
    assert result.error.startswith(f"redirected to {location}: ")
    assert "never probed" in result.error


def test_a_redirect_to_a_private_address_is_judged_by_the_policy(tools: Tools) -> None:
    strict = replace(
        tools, policy=AddressPolicy(allow=["127.0.0.1/32"], deny=[], loopback_bound=False)
    )

    async def run() -> tuple[Result, int]:
        async with (
            serving(answer(), host="127.0.0.2") as inner,
            serving(_to(inner.url("/"))) as outer,
        ):
            return await probe_url(outer.url(), strict), inner.connections

    result, connections = asyncio.run(run())
    assert (result.outcome, connections) == ("failed", 0)
    assert "127.0.0.2" in result.error


def test_credentials_are_kept_from_another_origin(tools: Tools) -> None:
    async def run() -> list[bytes]:
        async with (
            serving(answer(), host="127.0.0.2") as other,
            serving(_to(other.url("/"))) as first,
        ):
            await probe_url(
                first.url(),
                tools,
                bearer_token="tok-1",
                secret_headers="X-Key: tok-2",
                headers={"X-Api-Key": "tok-3"},
            )
            return first.requests + other.requests

    first, second = asyncio.run(run())
    assert all(token in first for token in (b"tok-1", b"tok-2", b"tok-3"))
    assert b"tok-" not in second


def test_credentials_go_with_a_redirect_to_the_same_origin(tools: Tools) -> None:
    _, server = _visit({"/": _to("/a"), "/a": answer()}, tools, bearer_token="tok-1")
    assert all(b"Authorization: Bearer tok-1\r\n" in request for request in server.requests)


def test_errors_show_neither_queries_nor_user_names(tools: Tools) -> None:
    pages = {"/": _to("http://jo:secret@127.0.0.1:1/x?token=secret")}
    result, _ = _visit(pages, tools)
    assert result.error.startswith("redirected to http://127.0.0.1:1/x: ")
    assert "secret" not in result.error
