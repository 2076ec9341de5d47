"""One DNS question asked of given nameservers: over UDP, again over TCP when the answer is cut off.

Runs on the caller's event loop, inside its deadline; keeps nothing.
"""

from __future__ import annotations

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import msgspec

TRIES = 3
MAX_RECORDS = 100
MAX_RECORD_CHARS = 500


class Reply(msgspec.Struct, kw_only=True, frozen=True):
    """What a nameserver said.  `records` are of the type asked for, aliases followed."""

    rcode: str
    records: tuple[str, ...]
    ttl_s: int
    server: str
    authoritative: bool


async def ask(name: str, rdtype: str, servers: list[str], *, port: int, try_s: float) -> Reply:
    """The first readable answer; a server that is silent or unreadable gives way to the next.

    Raises dns.exception.DNSException or OSError when there was none after TRIES rounds.
    """
    question = dns.name.from_text(name)
    kind = dns.rdatatype.from_text(rdtype)
    last: Exception = OSError("no nameserver was asked")
    for _ in range(TRIES):
        for server in servers:
            request = dns.message.make_query(question, kind, use_edns=0, payload=1232)
            try:
                response, _ = await dns.asyncquery.udp_with_fallback(
                    request,
                    server,
                    port=port,
                    timeout=try_s,
                    ignore_unexpected=True,
                    backend=dns.asyncbackend.get_backend("asyncio"),
                )
            except (dns.exception.DNSException, OSError, EOFError) as error:
                last = OSError(str(error)) if isinstance(error, EOFError) else error
                continue
            if response.rcode() == dns.rcode.SERVFAIL and server != servers[-1]:
                continue
            return _reply(response, server)
    raise last


def _reply(response: dns.message.Message, server: str) -> Reply:
    records: tuple[str, ...] = ()
    ttl = 0
    if isinstance(response, dns.message.QueryMessage) and response.rcode() == dns.rcode.NOERROR:
        chain = response.resolve_chaining()
        ttl = chain.minimum_ttl
        if chain.answer is not None:
            texts = [record.to_text()[:MAX_RECORD_CHARS] for record in chain.answer]
            records = tuple(texts[:MAX_RECORDS])
    return Reply(
        rcode=dns.rcode.to_text(response.rcode()),
        records=records,
        ttl_s=ttl,
        server=server,
        authoritative=bool(response.flags & dns.flags.AA),
    )
