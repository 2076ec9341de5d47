"""Hosts and ports as operators write them: what is well formed, and in which form it is asked for.

Pure functions; any thread may call them.
"""

from __future__ import annotations

import functools
import ipaddress
import re

import idna

MAX_HOST_CHARS = 253

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")


class HostError(ValueError):
    """The text is not a host, or not a host with a port; it says why."""


def literal(host: str) -> str | None:
    """`host` as an address in its usual form, brackets taken off; None when it is a name."""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


@functools.lru_cache(maxsize=16_384)
def ascii_host(host: str) -> str:
    """A name in the form that is asked for: lower case, IDNA 2008.  Raises HostError.

    Forms that only look like IPv4 addresses (`127.1`, `0x7f000001`) are no names.
    """
    text = host.strip()
    if not text:
        raise HostError("there is no host")
    if len(text) > MAX_HOST_CHARS + 1:
        raise HostError(f"a host has at most {MAX_HOST_CHARS} characters")
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise HostError(f"{host!r} is not a host name") from None
    text = text.lower()
    labels = text.removesuffix(".").split(".")
    if len(text) > MAX_HOST_CHARS + 1 or not all(_LABEL.match(label) for label in labels):
        raise HostError(f"{host[:80]!r} is not a host name")
    if _NUMBER.match(labels[-1]):
        raise HostError(f"{host[:80]!r} is neither a host name nor an IP address")
    return text


def host_problem(host: str) -> str:
    """What is wrong with a host, a name or an address; "" when nothing is."""
    if literal(host) is not None:
        return ""
    try:
        ascii_host(host)
    except HostError as error:
        return str(error)
    return ""


def split(address: str, *, default_port: int = 0) -> tuple[str, int]:
    """`host:port`, `[v6]:port`, or a host alone where there is a default.  Raises HostError."""
    text = address.strip()
    if any(mark in text for mark in "/@?# \t"):
        raise HostError(f"{address[:80]!r} is not a host with a port; write it like host:443")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise HostError(f"{address[:80]!r} lacks a closing bracket")
        port_text = rest[1:]
        given = bool(rest)
    elif text.count(":") > 1:
        if not default_port:
            raise HostError("write an IPv6 address with its port in brackets: [::1]:443")
        host, port_text, given = text, "", False
    else:
        host, colon, port_text = text.partition(":")
        given = bool(colon)
    wrong = host_problem(host)
    if wrong:
        raise HostError(wrong)
    if not given:
        if not default_port:
            raise HostError(f"{address[:80]!r} lacks a port; write it like {host[:60]}:443")
        return host, default_port
    if not (port_text.isascii() and port_text.isdecimal() and 0 < int(port_text[:6]) < 65_536):
        raise HostError(f"{port_text[:20]!r} is not a port: a number from 1 to 65535")
    return host, int(port_text)


def split_problem(address: str, *, default_port: int = 0) -> str:
    """What is wrong with a host and port; "" when nothing is."""
    try:
        split(address, default_port=default_port)
    except HostError as error:
        return str(error)
    return ""
