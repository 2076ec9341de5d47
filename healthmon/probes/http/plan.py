"""What is sent for a target: built once from its address and options, then sent again and again.

A plan belongs to its options and lives as long as they do.  Pure; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from healthmon.probes.http.address import Url, parse
from healthmon.probes.http.conditions import Conditions
from healthmon.probes.http.options import HttpOptions
from healthmon.probes.http.sending import build_request


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`request` asks for `url`; what redirects ask for is made when they come."""

    address: str
    url: Url
    options: HttpOptions
    conditions: Conditions
    agent: str
    request: bytes = field(repr=False)  # holds the credentials

    def redirected(self, url: Url, method: str) -> bytes:
        """A request that follows a redirect: credentials go nowhere but where they were meant for.

        Neither do the operator's own headers, which may well be credentials under another name.
        """
        own = url.origin == self.url.origin
        return _request(url, method, self.options, self.agent, own=own)


def plan_for(address: str, options: HttpOptions, agent: str) -> Plan:
    """The plan of a target.  Raises AddressError."""
    plan: Plan | None = options.__dict__.get("plan")
    if plan is not None and plan.address == address and plan.agent == agent:
        return plan
    url = parse(address)
    plan = Plan(
        address=address,
        url=url,
        options=options,
        conditions=options.conditions,
        agent=agent,
        request=_request(url, options.method, options, agent, own=True),
    )
    options.__dict__["plan"] = plan
    return plan


def _request(url: Url, method: str, options: HttpOptions, agent: str, *, own: bool) -> bytes:
    """`own` when it goes to the origin that the target names."""
    body = options.body.encode() if method == options.method else b""
    last = [("Connection", "close")]
    if body or method in ("POST", "PUT", "PATCH"):
        last.append(("Content-Length", str(len(body))))
    pairs = options.sent_headers if own else []
    return build_request(method, url, agent, pairs, last=last, body=body)
