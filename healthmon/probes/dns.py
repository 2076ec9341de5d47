"""DNS: asks one question and compares the answer.

Asked afresh each time, of the nameserver that the options name or of this machine's own; the
resolver's cache is for other probes.  A nameserver that the options name is judged by the address
policy, this machine's own are not: they are asked for every name anyway.

Runs on the checker's event loop, inside its deadline; keeps nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Annotated, Literal

import msgspec

from healthmon.probes.kind import FAILED, ProbeKind, ProbeOptions, Request, Result
from healthmon.probes.net.names import (
    HostError,
    ascii_host,
    host_problem,
    literal,
    split,
    split_problem,
)
from healthmon.probes.net.question import Reply
from healthmon.probes.net.resolver import ResolveError
from healthmon.probes.tools import Tools

DNS_PORT = 53
MAX_EXPECTED = 50
SHOWN_CHARS = 200

RecordType = Literal["A", "AAAA", "CNAME", "MX", "NS", "TXT", "SOA", "SRV", "CAA", "PTR"]


class DnsOptions(ProbeOptions, frozen=True, kw_only=True):
    record_type: Annotated[RecordType, msgspec.Meta(description="What is asked for.")] = "A"
    server: Annotated[
        str,
        msgspec.Meta(
            max_length=300,
            description="The nameserver to ask, a port after it if not 53. Empty: this machine's.",
        ),
    ] = ""
    expect: Annotated[
        list[str],
        msgspec.Meta(max_length=MAX_EXPECTED, description="Records, as `dig +short` shows them."),
    ] = []
    match: Annotated[
        Literal["any", "contains", "equals"],
        msgspec.Meta(
            description="any: there is an answer; contains: every expected record is in it;"
            " equals: and no others."
        ),
    ] = "any"
    nxdomain: Annotated[
        bool, msgspec.Meta(description="The name must not exist (NXDOMAIN) instead.")
    ] = False

    def __post_init__(self) -> None:
        if self.server:
            wrong = split_problem(self.server, default_port=DNS_PORT)
            if wrong:
                raise ValueError(f"server: {wrong}")
        if self.nxdomain and (self.expect or self.match != "any"):
            raise ValueError("nxdomain: a name that must not exist has no expected records")
        if self.match != "any" and not self.expect:
            raise ValueError(f"expect: match {self.match!r} needs at least one record")
        if self.match == "any" and self.expect:
            raise ValueError("match: choose contains or equals to compare the expected records")


async def probe(request: Request, tools: Tools) -> Result:
    options = request.options
    assert isinstance(options, DnsOptions)
    clock = tools.monotonic
    began = clock()
    server, port = "", 0
    try:
        name = _question(request.address, options.record_type)
    except HostError as error:
        return Result(outcome=FAILED, error=str(error))
    try:
        if options.server:
            server, port = await _server(options.server, tools)
        reply = await tools.resolver.query(name, options.record_type, server=server, port=port)
    except ResolveError as error:
        return Result(outcome=FAILED, error=str(error), address=server)
    except asyncio.CancelledError as error:
        if not getattr(error, "__notes__", None):
            error.add_note(f"waiting for {server or 'a nameserver'} to answer for {name}")
        raise
    took_ms = (clock() - began) * 1000
    problem = _problem(reply, name, options)
    return Result(
        outcome=FAILED if problem else "ok",
        error=problem,
        address=reply.server,
        dns_ms=took_ms,
        total_ms=took_ms,
    )


async def _server(text: str, tools: Tools) -> tuple[str, int]:
    host, port = split(text, default_port=DNS_PORT)
    addresses = await tools.resolver.resolve(host)
    problem = ""
    for address in addresses:
        found = tools.policy.problem(address)
        if not found:
            return address, port
        problem = problem or found
    raise ResolveError(problem)


def _question(address: str, record_type: str) -> str:
    ip = literal(address.strip())
    if ip is not None and record_type == "PTR":
        return ipaddress.ip_address(ip).reverse_pointer
    return ascii_host(address)


def _problem(reply: Reply, name: str, options: DnsOptions) -> str:
    kind = options.record_type
    if options.nxdomain:
        return "" if reply.rcode == "NXDOMAIN" else f"{name} exists, or so {reply.server} says"
    if reply.rcode == "NXDOMAIN":
        return f"{name} does not exist (NXDOMAIN)"
    if reply.rcode != "NOERROR":
        return f"{reply.server} answered {reply.rcode} for {name}"
    if not reply.records:
        return f"{name} has no {kind} record"
    if options.match == "any":
        return ""
    got = {normal(record, kind) for record in reply.records}
    wanted = {normal(record, kind) for record in options.expect}
    missing, extra = wanted - got, got - wanted
    if missing:
        return f"the {kind} answer for {name} lacks {_listed(missing)}; it is {_listed(got)}"
    if extra and options.match == "equals":
        return f"the {kind} answer for {name} has {_listed(extra)} besides what is expected"
    return ""


def normal(record: str, kind: str) -> str:
    """A record in a form that can be compared: case, final dots, quotes and spaces apart."""
    if kind == "TXT":
        text = record.strip()
        if text.startswith('"') and text.endswith('"') and len(text) > 1:
            text = text[1:-1].replace('" "', "")
        return text.replace('\\"', '"')
    words = record.lower().replace('"', "").split()
    if kind in ("A", "AAAA") and len(words) == 1:
        return literal(words[0]) or words[0]
    return " ".join(word.rstrip(".") or "." for word in words)


def _listed(records: set[str]) -> str:
    return ", ".join(sorted(records))[:SHOWN_CHARS]


KIND = ProbeKind(
    name="dns",
    label="DNS",
    description="Asks a nameserver one question and compares the answer.",
    Options=DnsOptions,
    address_label="Name to ask for",
    address_example="www.example.org",
    address_problem=lambda address: host_problem(address.strip()),
    host=lambda address: address.strip().lower(),
    probe=probe,
)
