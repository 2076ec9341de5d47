"""TLS: certificates judged, names asked for, days counted."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import time
from typing import Any

import pytest

from healthmon.probes.http.certificate import judge_certificate
from healthmon.probes.http.options import HttpOptions
from healthmon.probes.kind import Result
from healthmon.probes.tools import Tools
from sinks.options import decode_options
from tests.healthmon.probes.http.probing import probe_url
from tests.healthmon.probes.http.scripted import Client, answer, serving
from tests.healthmon.probes.listeners.authority import authority

NOW_US = 1_700_000_000_000_000
DAY_US = 86_400_000_000


def _visit(context: ssl.SSLContext, tools: Tools, **options: Any) -> Result:
    async def run() -> Result:
        async with serving(answer(b"safe"), context=context) as server:
            return await probe_url(server.url(), tools, **options)

    return asyncio.run(run())


def test_a_trusted_certificate(tools: Tools) -> None:
    context = authority().server_context("127.0.0.1", days=60)
    result = _visit(context, tools, ca_file=authority().ca_file, body_contains=["safe"])
    assert (result.outcome, result.error, result.code) == ("ok", "", 200)
    assert result.tls_ms > 0
    left = dt.timedelta(microseconds=result.cert_expires_us - time.time() * 1_000_000)
    assert dt.timedelta(days=59) < left < dt.timedelta(days=61)


@pytest.mark.parametrize(
    ("days", "outcome", "error"),
    [
        (10, "degraded", "in 9 days"),
        (2, "failed", "in 1 day"),
    ],
)
def test_one_that_expires_soon(tools: Tools, days: int, outcome: str, error: str) -> None:
    context = authority().server_context("127.0.0.1", days=days)
    result = _visit(context, tools, ca_file=authority().ca_file, cert_days_failed=3)
    assert result.outcome == outcome
    assert result.error.startswith("the certificate expires on ")
    assert result.error.endswith(error)


def test_an_expired_one(tools: Tools) -> None:
    context = authority().server_context("127.0.0.1", days=-0.5, begins_days=-3)
    result = _visit(context, tools, ca_file=authority().ca_file)
    assert result.outcome == "failed"
    assert "expired" in result.error
    assert result.connect_ms >= 0
    unchecked = _visit(context, tools, verify_tls=False)
    day = dt.datetime.fromtimestamp(unchecked.cert_expires_us / 1_000_000, dt.UTC).date()
    assert unchecked.outcome == "degraded"
    assert unchecked.error == f"the certificate expired on {day}"
    assert _visit(context, tools, verify_tls=False, cert_days_degraded=0).outcome == "ok"


def test_one_of_an_unknown_authority(tools: Tools) -> None:
    context = authority().server_context("127.0.0.1")
    result = _visit(context, tools)
    assert (result.outcome, result.code) == ("failed", 0)
    assert "unknown authority" in result.error
    unchecked = _visit(context, tools, verify_tls=False)
    assert unchecked.outcome == "ok"
    assert unchecked.cert_expires_us > 0


def test_one_for_another_name(tools: Tools) -> None:
    context = authority().server_context("elsewhere.test")
    result = _visit(context, tools, ca_file=authority().ca_file)
    assert "another host" in result.error


def test_the_server_name_that_is_asked_for(tools: Tools) -> None:
    asked: list[str | None] = []
    context = authority().server_context("service.test")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    result = _visit(context, tools, ca_file=authority().ca_file, server_name="service.test")
    assert (result.outcome, result.error) == ("ok", "")
    assert asked == ["service.test"]


def test_plain_http_where_tls_is_expected_and_the_other_way_round(tools: Tools) -> None:
    async def run() -> tuple[Result, Result]:
        async def hello(client: Client) -> None:
            await client.reader.read(1)
            await client.send(answer(status="400 Bad Request"))

        context = authority().server_context("127.0.0.1")
        async with serving(hello) as plain, serving(answer(), context=context) as secure:
            return (
                await probe_url(plain.url().replace("http:", "https:"), tools),
                await probe_url(secure.url().replace("https:", "http:"), tools),
            )

    to_plain, to_secure = asyncio.run(run())
    assert "does not speak TLS" in to_plain.error
    assert to_secure.outcome == "failed"


def test_a_file_of_authorities_that_is_not_there(tools: Tools) -> None:
    result = _visit(authority().server_context("127.0.0.1"), tools, ca_file="/nowhere/ca.pem")
    assert result.outcome == "failed"
    assert "/nowhere/ca.pem" in result.error


@pytest.mark.parametrize(
    ("left_us", "outcome"),
    [
        (15 * DAY_US, "ok"),
        (14 * DAY_US, "ok"),
        (14 * DAY_US - 1, "degraded"),
        (3 * DAY_US - 1, "failed"),
        (-1, "failed"),
    ],
)
def test_days_left(left_us: int, outcome: str) -> None:
    options = decode_options(HttpOptions, {"cert_days_failed": 3})
    assert judge_certificate(NOW_US + left_us, options, NOW_US)[0] == outcome
