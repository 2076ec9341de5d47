"""The options of everything that is asked over HTTP: headers, credentials, TLS.

Shared by the kinds that begin with an HTTP request.  Errors name the option and never hold a
secret.  Pure; any thread.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Annotated, Protocol

from msgspec import Meta

from healthmon.probes.http.address import Url
from sinks.options import Secret

MAX_HEADERS = 50
MAX_HEADER_CHARS = 8 * 1024

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
# Framing is the probe's own: an operator's would make an answer that cannot be read.
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "expect", "te"})

Headers = Annotated[
    dict[str, str], Meta(description="Sent with the request. Secrets go into secret headers.")
]
Username = Annotated[str, Meta(max_length=200, description="For basic authentication.")]
Password = Annotated[Secret, Meta(description="For basic authentication.")]
BearerToken = Annotated[Secret, Meta(description="Sent as Authorization: Bearer …")]
SecretHeaders = Annotated[
    Secret, Meta(description="Headers that nobody is shown, one a line: Name: value")
]
VerifyTls = Annotated[bool, Meta(description="Refuse a certificate that cannot be trusted.")]
CaFile = Annotated[
    str, Meta(max_length=1000, description="Authorities to trust (PEM) instead of the machine's.")
]
ServerName = Annotated[
    str, Meta(max_length=253, description="The name asked for in TLS. Empty: the address's host.")
]
DaysDegraded = Annotated[
    int, Meta(ge=0, le=3650, description="Degraded when the certificate expires within days.")
]
DaysFailed = Annotated[
    int, Meta(ge=0, le=3650, description="Failed when the certificate expires within days.")
]
NONE = Secret("")

Pairs = list[tuple[str, str]]


class Sending(Protocol):
    """The options that a request is built from."""

    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def username(self) -> str: ...
    @property
    def password(self) -> Secret: ...
    @property
    def bearer_token(self) -> Secret: ...
    @property
    def secret_headers(self) -> Secret: ...


def read_headers(options: Sending) -> Pairs:
    """The operator's headers, open and secret, with those of the credentials.

    Raises ValueError for what cannot be sent, naming the option.
    """
    pairs = [(name.strip(), value.strip()) for name, value in options.headers.items()]
    for name, value in pairs:
        _check("headers", name, value)
    pairs = _credentials(options) + pairs
    for line in options.secret_headers.reveal().splitlines():
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("secret_headers: each line must be like Name: value")
        _check("secret_headers", name.strip(), value.strip())
        pairs.append((name.strip(), value.strip()))
    if len(pairs) > MAX_HEADERS:
        raise ValueError(f"headers: no more than {MAX_HEADERS} can be sent")
    return pairs


def _credentials(options: Sending) -> Pairs:
    if ":" in options.username:
        raise ValueError("username: has no colon in it")
    if options.bearer_token:
        if options.username or options.password:
            raise ValueError("bearer_token: not together with a user name and password")
        token = options.bearer_token.reveal()
        if not _VALUE.fullmatch(token) or len(token) > MAX_HEADER_CHARS:
            raise ValueError("bearer_token: has characters that a header cannot carry")
        return [("Authorization", f"Bearer {token}")]
    if options.username or options.password:
        pair = f"{options.username}:{options.password.reveal()}".encode()
        return [("Authorization", f"Basic {b64encode(pair).decode()}")]
    return []


def _check(option: str, name: str, value: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > 200:
        what = repr(name[:60]) if option == "headers" else "the text before a colon"
        raise ValueError(f"{option}: {what} is not a header's name")
    if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
        raise ValueError(f"{option}: {name} is set by the probe itself")
    if not _VALUE.fullmatch(value) or len(value) > MAX_HEADER_CHARS:
        raise ValueError(f"{option}: the value of {name} is not one that a header can have")


def build_request(
    method: str, url: Url, agent: str, pairs: Pairs, *, last: Pairs, body: bytes = b""
) -> bytes:
    """The bytes of a request.  A later header replaces an earlier one of the same name."""
    headers: dict[str, str] = {}
    usual = [("Host", url.authority), ("User-Agent", agent), ("Accept", "*/*")]
    for name, value in (*usual, *pairs, *last):
        headers[name.lower()] = f"{name}: {value}\r\n"
    lines = "".join(headers.values())
    return f"{method} {url.target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body
