"""Owns: where a client sends to, and the refusal to load a machine that is not this one.

Runs on the command's main thread, before the first connection.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit


class TargetError(Exception):
    """The address cannot be used; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server, resolved once, so that every connection of a run goes to the same address."""

    scheme: str
    host: str
    port: int
    family: int
    address: str
    base_path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.base_path}"

    @property
    def is_loopback(self) -> bool:
        return _is_loopback(self.address)


def own_url(host: str, port: int) -> str:
    """Where a server that listens there is reached from its own machine."""
    if not port:
        raise TargetError(
            "this installation's server takes any free port: name the server with --url"
        )
    host = host.strip("[]")
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  every address of this machine, so this one too
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def resolve(url: str, *, allow_https: bool = False) -> Target:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetError(f"{url!r} is not a URL: {error}") from None
    schemes = ("http", "https") if allow_https else ("http",)
    if parts.scheme not in schemes or not parts.hostname:
        raise TargetError(f"{url!r} must look like {schemes[0]}://host:port")
    if parts.username is not None or parts.query or parts.fragment:
        raise TargetError("the URL must hold no user, query or fragment; give the key by --api-key")
    port = port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetError(f"cannot resolve {parts.hostname!r}: {error}") from None
    # A name with an IPv6 and an IPv4 address (localhost) is most often served on IPv4 alone.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, _, _, _, sockaddr = found[0]
    return Target(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        family=family,
        address=str(sockaddr[0]),
        base_path=parts.path.rstrip("/"),
    )


def require_loopback(target: Target, *, allow_remote: bool) -> None:
    if not target.is_loopback and not allow_remote:
        raise TargetError(
            f"{target.host} ({target.address}) is not this machine. A load test can take a server "
            "down: give --allow-remote if you answer for that one."
        )


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)
