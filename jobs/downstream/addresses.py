"""The addresses and headers that calls are made with: what they may be made of.  Pure.

Paths and header values come rendered from payloads.  Whoever renders them encodes; here it is
checked once more, last of all, that a call goes where the operator meant it to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from control.outbound.urls import url_problem

MAX_URL = 8_000
MAX_HEADERS = 64
MAX_VALUE = 8_000
# What the connection itself needs.
RESERVED = frozenset(
    {
        "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive",
        "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip

_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@/%?\[\]{}|^\"`<>]*")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_ACTIVE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def base_url_problem(url: str) -> str:
    """What is wrong with a base URL; "" when nothing is."""
    problem = url_problem(url)
    if problem:
        return problem
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        return "has a user or a password in it; put them into a secret header"
    if parts.query or parts.fragment or "?" in url or "#" in url:
        return "has a query or a fragment; those belong to a step's path"
    return _dots(parts.path)


def path_problem(path: str) -> str:
    """What is wrong with a rendered path (and query); "" when nothing is."""
    if not path.startswith("/"):
        return "must begin with /"
    if len(path) > MAX_URL:
        return f"is longer than {MAX_URL} characters"
    if not _PATH.fullmatch(path):
        return "has a character in it that must be percent-encoded"
    return _dots(path.partition("?")[0])


def _dots(path: str) -> str:
    """Refuse what a server, or the client, would take for a way up."""
    plain = unquote(unquote(path)).replace("\\", "/")
    if any(segment.partition(";")[0] in (".", "..") for segment in plain.split("/")):
        return "leads up, by a segment . or .."
    return ""


def header_problem(name: str, value: object) -> str:
    """What is wrong with a header; "" when nothing is.  The value is not repeated."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"{name!r:.120} is not a header's name"
    if name.lower() in RESERVED:
        return f"{name} cannot be set: it is the connection's own"
    if not isinstance(value, str):
        return f"{name} must be text"
    if len(value) > MAX_VALUE:
        return f"{name} is longer than {MAX_VALUE} characters"
    if _ACTIVE.search(value) or any(0xD800 <= ord(one) <= 0xDFFF for one in value):
        return f"{name} has a line break or another control character in it"
    return ""


def headers_problem(headers: Mapping[str, object]) -> str:
    """The first that is wrong with any of these; "" when nothing is."""
    if len(headers) > MAX_HEADERS:
        return f"there are more than {MAX_HEADERS} headers"
    for name, value in headers.items():
        problem = header_problem(name, value)
        if problem:
            return problem
    return ""
