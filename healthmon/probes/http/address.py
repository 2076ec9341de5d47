"""URLs as probes use them: taken apart once, checked, and shown without their secrets.

Pure functions; any thread may call them.  Parsed URLs are kept (bounded), since the same ones are
probed again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urljoin, urlsplit

from healthmon.probes.net.names import HostError, ascii_host, literal

MAX_CHARS = 2000
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
HTTP_SCHEMES = ("http", "https")
WEBSOCKET_SCHEMES = ("ws", "wss")

# What may stand in a request target as it is; everything else is percent-encoded.
_TARGET_SAFE = "!#$%&'()*+,/:;=?@[]~"


class AddressError(ValueError):
    """The address cannot be probed; the text says why, and shows no secret part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """`host` is ASCII without brackets; `authority` what a Host header says of it."""

    scheme: str
    host: str
    port: int
    authority: str
    target: str

    @property
    def tls(self) -> bool:
        return self.scheme in ("https", "wss")

    @property
    def origin(self) -> tuple[str, str, int]:
        return (self.scheme, self.host, self.port)

    @property
    def text(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def shown(self) -> str:
        """For people: without the query, which may hold a token."""
        return f"{self.scheme}://{self.authority}{self.target.partition('?')[0]}"


@lru_cache(maxsize=16_384)
def parse(text: str, schemes: tuple[str, ...] = HTTP_SCHEMES) -> Url:
    """The parts of an operator's URL, kept for the next time.  Raises AddressError."""
    return _parse(text, schemes)


def _parse(text: str, schemes: tuple[str, ...]) -> Url:
    if not text:
        raise AddressError("an address is needed")
    if len(text) > MAX_CHARS:
        raise AddressError(f"the address is longer than {MAX_CHARS} characters")
    if any(char <= " " or char in "\x7f\\" for char in text):
        raise AddressError("an address has no spaces, backslashes or control characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise AddressError(_of_urlsplit(error)) from None
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    if parts.scheme not in schemes:
        raise AddressError(f"the address must begin with {wanted}")
    if parts.username is not None or parts.password is not None:
        raise AddressError("a user name and password belong into the options, not into the address")
    if not parts.hostname:
        raise AddressError(f"the address names no host after {wanted}")
    host = _ascii_host(parts.hostname)
    if port == 0:
        raise AddressError("the port must be from 1 to 65535")
    bracketed = f"[{host}]" if ":" in host else host
    usual = DEFAULT_PORTS[parts.scheme]
    target = quote(parts.path or "/", safe=_TARGET_SAFE)
    if parts.query:
        target += "?" + quote(parts.query, safe=_TARGET_SAFE)
    return Url(
        scheme=parts.scheme,
        host=host,
        port=port or usual,
        authority=bracketed if port in (None, usual) else f"{bracketed}:{port}",
        target=target,
    )


def _of_urlsplit(error: ValueError) -> str:
    words = str(error)
    if "ort" in words:
        return "the port must be a number from 1 to 65535"
    if "IPv6" in words or "brackets" in words or "appear to be" in words:
        return "the address in brackets is not an IPv6 address"
    return "the address is not a URL"


def _ascii_host(host: str) -> str:
    """A host name in ASCII (IDNA 2008), or an IP address in its usual form."""
    address = literal(host)
    if address is not None and "%" not in address:
        return address
    if ":" in host:
        raise AddressError("the address in brackets is not an IPv6 address")
    try:
        return ascii_host(host)
    except HostError as error:
        raise AddressError(str(error)) from None


def follow(url: Url, location: str) -> Url:
    """Where a redirect leads; user information in it is left out.  Raises AddressError."""
    if len(location) > MAX_CHARS:
        raise AddressError(f"a redirect longer than {MAX_CHARS} characters")
    try:
        joined = urlsplit(urljoin(url.text, location.strip()))
        bare = joined._replace(netloc=joined.netloc.rpartition("@")[2], fragment="")
        text = quote(bare.geturl(), safe=_TARGET_SAFE) if bare.netloc.isascii() else bare.geturl()
        return _parse(text, HTTP_SCHEMES)  # a server could fill what is kept
    except AddressError as error:
        raise AddressError(f"a redirect that cannot be followed: {error}") from None
    except ValueError:
        raise AddressError("a redirect to something that is not a URL") from None


def problem(text: str) -> str:
    """What is wrong with the address of an HTTP target; "" when nothing is."""
    return _problem(text, HTTP_SCHEMES)


def websocket_problem(text: str) -> str:
    """What is wrong with the address of a WebSocket target; "" when nothing is."""
    return _problem(text, WEBSOCKET_SCHEMES)


def host_of(text: str) -> str:
    """What the limits per host count by; "" when the address is wrong."""
    for schemes in (HTTP_SCHEMES, WEBSOCKET_SCHEMES):
        try:
            return parse(text, schemes).host
        except AddressError:
            continue
    return ""


def _problem(text: str, schemes: tuple[str, ...]) -> str:
    try:
        parse(text, schemes)
    except AddressError as error:
        return str(error)
    return ""
