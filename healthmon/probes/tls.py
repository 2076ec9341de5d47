"""TLS: a full handshake, and how long the certificate is still good.

Runs on the checker's event loop, inside its deadline; keeps nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import msgspec

from healthmon.probes.kind import DEGRADED, FAILED, ProbeKind, ProbeOptions, Request, Result
from healthmon.probes.net.dial import DialError, Dialled, dial
from healthmon.probes.net.names import split, split_problem
from healthmon.probes.net.tls import Certificate, ContextError
from healthmon.probes.tcp import failed
from healthmon.probes.tools import Tools

DEFAULT_PORT = 443
SECOND_LOOK_S = 2.0

_DAY_S = 86_400


class TlsOptions(ProbeOptions, frozen=True, kw_only=True):
    verify_tls: Annotated[
        bool,
        msgspec.Meta(description="The certificate must be trusted and made out for the name."),
    ] = True
    cert_days_degraded: Annotated[
        int,
        msgspec.Meta(ge=0, le=3650, description="Degraded when it expires within so many days."),
    ] = 14
    cert_days_failed: Annotated[
        int, msgspec.Meta(ge=0, le=3650, description="Failed when it expires within so many days.")
    ] = 0
    server_name: Annotated[
        str, msgspec.Meta(max_length=253, description="The name to ask for. Empty: the host.")
    ] = ""
    ca_file: Annotated[
        str,
        msgspec.Meta(
            max_length=500,
            description="A PEM file of the authorities to trust. Empty: this machine's.",
        ),
    ] = ""

    def __post_init__(self) -> None:
        if self.cert_days_failed > self.cert_days_degraded:
            raise ValueError("cert_days_failed: cannot be more than cert_days_degraded")


async def probe(request: Request, tools: Tools) -> Result:
    options = request.options
    assert isinstance(options, TlsOptions)
    clock = tools.monotonic
    began = clock()
    try:
        dialled = await _handshake(request, tools, verify=options.verify_tls)
    except ContextError as error:
        return Result(outcome=FAILED, error=str(error))
    except DialError as error:
        result = failed(error)
        if error.tls_code:
            await _look_again(request, tools, result)
        result.total_ms = (clock() - began) * 1000
        return result
    dialled.transport.abort()
    result = Result(
        address=dialled.address,
        dns_ms=dialled.dns_ms,
        connect_ms=dialled.connect_ms,
        tls_ms=dialled.tls_ms,
        total_ms=(clock() - began) * 1000,
    )
    certificate = tools.contexts.certificate(dialled.peer_certificate() or b"")
    if certificate is None:
        result.outcome, result.error = FAILED, "the server's certificate cannot be read"
    else:
        result.cert_expires_us = certificate.expires_us
        _judge(result, certificate, options, time.time())
    return result


def _judge(result: Result, certificate: Certificate, options: TlsOptions, now: float) -> None:
    left_s = certificate.expires_us / 1e6 - now
    days = int(left_s // _DAY_S)
    if left_s <= 0:
        result.outcome, result.error = FAILED, f"the certificate expired on {_day(certificate)}"
    elif left_s <= options.cert_days_degraded * _DAY_S:
        within = FAILED if left_s <= options.cert_days_failed * _DAY_S else DEGRADED
        result.outcome = within
        result.error = (
            f"the certificate expires on {_day(certificate)},"
            f" in {days} day{'' if days == 1 else 's'}"
        )


async def _look_again(request: Request, tools: Tools, result: Result) -> None:
    """A certificate that was not trusted is read by a second handshake, to say what is in it."""
    try:
        async with asyncio.timeout(SECOND_LOOK_S):
            dialled = await _handshake(request, tools, verify=False)
    except (DialError, ContextError, TimeoutError):
        return  # the first handshake's reason stands
    dialled.transport.abort()
    certificate = tools.contexts.certificate(dialled.peer_certificate() or b"")
    if certificate is not None:
        result.cert_expires_us = certificate.expires_us
        names = ", ".join(certificate.names[:5]) or certificate.subject
        result.error += (
            f" (names {names[:200]}; issued by {certificate.issuer[:100]};"
            f" expires on {_day(certificate)})"
        )


async def _handshake(request: Request, tools: Tools, *, verify: bool) -> Dialled[asyncio.Protocol]:
    options = request.options
    assert isinstance(options, TlsOptions)
    host, port = split(request.address, default_port=DEFAULT_PORT)
    return await dial(
        asyncio.Protocol,
        host=host,
        port=port,
        tools=tools,
        tls=tools.contexts.get(verify, options.ca_file if verify else ""),
        server_name=options.server_name,
    )


def _day(certificate: Certificate) -> str:
    return f"{certificate.expires:%Y-%m-%d}"


KIND = ProbeKind(
    name="tls",
    label="TLS certificate",
    description="Makes a TLS handshake and counts the days that the certificate is still good.",
    Options=TlsOptions,
    address_label="Host and port",
    address_example="www.example.org:443",
    address_problem=lambda address: split_problem(address, default_port=DEFAULT_PORT),
    host=lambda address: split(address, default_port=DEFAULT_PORT)[0],
    probe=probe,
)
