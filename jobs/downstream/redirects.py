"""Where a redirect leads to, and what may be sent there.  Pure.

The next hop gets the secrets, and whatever else could be one, only when it is the service itself.
"""

from __future__ import annotations

import dataclasses

import httpx

from control.admin.inert import one_line
from jobs.downstream.addresses import MAX_URL, RESERVED
from jobs.downstream.faults import RefusedCall
from jobs.downstream.preparing import Prepared

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PERSONAL = frozenset({"authorization", "cookie", *RESERVED})


def origin(url: httpx.URL) -> tuple[str, str, int]:
    """Scheme, host and port."""
    host = url.raw_host.decode("ascii").strip("[]")
    return url.scheme, host, url.port or (443 if url.scheme == "https" else 80)


def is_redirect(response: httpx.Response) -> bool:
    return response.status_code in REDIRECTS and "location" in response.headers


def next_hop(sent: Prepared, response: httpx.Response) -> Prepared:
    """What to send next.  Raises RefusedCall."""
    status = response.status_code
    location = response.headers["location"]
    shown = one_line(location, limit=200)

    def refused(why: str) -> RefusedCall:
        return RefusedCall(f"answered {status}, a redirect to {shown}, {why}", status=status)

    try:
        if len(location) > MAX_URL:
            raise httpx.InvalidURL("too long")
        url = sent.url.join(location)
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise refused("which is not a URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise refused("which is not a web address")
    if url.port is not None and not 0 < url.port <= 65535:
        raise refused("which is not a URL")
    if url.userinfo:
        raise refused("which has a user in it")
    if sent.url.scheme == "https" and url.scheme == "http":
        raise refused("which leaves TLS")
    method, body, headers = sent.method, sent.body, sent.headers
    if _becomes_get(status, method):
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    secrets = sent.secrets
    if origin(url) != origin(sent.url):
        secrets = {}
        headers = {name: value for name, value in headers.items() if name.lower() not in _PERSONAL}
    return dataclasses.replace(
        sent, url=url, method=method, body=body, headers=headers, secrets=secrets
    )


def _becomes_get(status: int, method: str) -> bool:
    """As browsers do, and what was written for them expects."""
    if method == "HEAD":
        return False
    return status in (302, 303) or (status == 301 and method == "POST")
