"""Probing an HTTP address: request, answer, redirects, conditions, the certificate's days.

Runs on the checker's event loop.  Each hop is a connection of its own (keep-alive would hide
connect failures), its name resolved and its address judged anew.  `time.time` is asked only for
the days that a certificate has left.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

from healthmon.probes.http.address import AddressError, Url, follow, host_of, problem
from healthmon.probes.http.answer import AnswerReader
from healthmon.probes.http.certificate import judge_certificate
from healthmon.probes.http.conditions import judge
from healthmon.probes.http.errors import AnswerError
from healthmon.probes.http.exchange import Exchange
from healthmon.probes.http.options import HttpOptions
from healthmon.probes.http.plan import Plan, plan_for
from healthmon.probes.kind import (
    ERROR_CHARS,
    FAILED,
    OK,
    ProbeKind,
    Request,
    Result,
)
from healthmon.probes.net.dial import DialError, Dialled, dial
from healthmon.probes.net.tls import ContextError
from healthmon.probes.tools import Tools

REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def probe(request: Request, tools: Tools) -> Result:
    """Never raises for what a target does; cancellable at any await."""
    options = cast(HttpOptions, request.options)
    began = tools.monotonic()
    result = Result()
    try:
        plan = plan_for(request.address, options, tools.user_agent)
        answer = await _walk(plan, tools, result)
        outcome, error = await judge(answer, plan.conditions)
        if outcome != FAILED and result.cert_expires_us:
            worse = judge_certificate(result.cert_expires_us, options, int(time.time() * 1_000_000))
            outcome, error = worse if worse[0] != OK else (outcome, error)
    except (DialError, AddressError, AnswerError, ContextError) as failure:
        outcome, error = FAILED, str(failure)
    result.outcome = outcome
    result.error = error[:ERROR_CHARS]
    result.total_ms = (tools.monotonic() - began) * 1000
    return result


async def _walk(plan: Plan, tools: Tools, result: Result) -> AnswerReader:
    """The last answer of the chain of redirects.  Times of all hops are added up in `result`."""
    url, method, request = plan.url, plan.options.method, plan.request
    seen: set[tuple[str, str]] = set()
    while True:
        try:
            answer = await _hop(url, method, request, plan, tools, result)
        except (DialError, AnswerError) as failure:
            if seen:
                raise AnswerError(f"redirected to {url.shown[:200]}: {failure}") from None
            raise
        result.code = answer.status
        location = answer.headers.get("location")
        if (
            answer.status not in REDIRECTS
            or not plan.options.follow_redirects
            or location is None
            or answer.status in plan.conditions.statuses
        ):
            return answer
        seen.add((method, url.text))
        if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
            method = "HEAD" if method == "HEAD" else "GET"
        url = follow(url, location.encode("latin-1").decode("utf-8", "replace"))
        if (method, url.text) in seen:
            raise AnswerError(f"the redirects go round in a circle, back to {url.shown[:200]}")
        if len(seen) > plan.options.max_redirects:
            raise AnswerError(f"more than {plan.options.max_redirects} redirects")
        request = plan.redirected(url, method)


async def _hop(
    url: Url, method: str, request: bytes, plan: Plan, tools: Tools, result: Result
) -> AnswerReader:
    """One connection, one exchange.  Raises DialError or AnswerError."""
    options = plan.options
    loop = asyncio.get_running_loop()
    answer = AnswerReader(max_body_bytes=tools.max_body_bytes, bodiless=method == "HEAD")

    def exchange_of() -> Exchange:
        return Exchange(request=request, answer=answer, clock=tools.monotonic, loop=loop)

    try:
        dialled = await dial(
            exchange_of,
            host=url.host,
            port=url.port,
            tools=tools,
            tls=tools.contexts.get(options.verify_tls, options.ca_file) if url.tls else None,
            server_name=options.server_name if url.host == plan.url.host else "",
        )
    except DialError as failure:
        _add_times(result, failure)
        raise
    _add_times(result, dialled)
    try:
        if url.tls:
            expires_us = tools.contexts.expires_us(dialled.peer_certificate())
            known = (each for each in (expires_us, result.cert_expires_us) if each)
            result.cert_expires_us = min(known, default=0)
        await dialled.protocol.finished()
    finally:
        dialled.transport.abort()
        result.first_byte_ms = _sum(result.first_byte_ms, dialled.protocol.first_byte_ms)
    return answer


def _add_times(result: Result, phases: DialError | Dialled[Exchange]) -> None:
    result.address = phases.address or result.address
    result.dns_ms = _sum(result.dns_ms, phases.dns_ms)
    result.connect_ms = _sum(result.connect_ms, phases.connect_ms)
    result.tls_ms = _sum(result.tls_ms, phases.tls_ms)


def _sum(so_far: float, more: float) -> float:
    return more if so_far < 0 else so_far if more < 0 else so_far + more


KIND = ProbeKind(
    name="http",
    label="HTTP(S)",
    description="Asks a web server for an address and judges its answer.",
    Options=HttpOptions,
    address_label="URL",
    address_example="https://example.com/health",
    address_problem=problem,
    host=host_of,
    probe=probe,
)
