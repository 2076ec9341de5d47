"""What an operator can say of an HTTP target, and the rules across those options.

Decoding checks everything that can be checked without asking the target: a probe never finds out
that its own expression does not compile.  Pure; any thread.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Literal

from msgspec import Meta

from healthmon.probes.http.conditions import Conditions, compile_conditions
from healthmon.probes.http.statuses import parse_statuses
from healthmon.probes.kind import ProbeOptions
from sinks.options import Secret

MAX_BODY_CHARS = 64 * 1024
MAX_HEADERS = 50
MAX_HEADER_CHARS = 8 * 1024

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Operator = Literal["exists", "absent", "==", "!=", "<", "<=", ">", ">=", "contains", "matches"]
Text = Annotated[str, Meta(max_length=1000)]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
# Framing is the probe's own: an operator's would make an answer that cannot be read.
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "expect", "te"})


class HttpOptions(ProbeOptions, frozen=True, kw_only=True, dict=True):
    """`dict` lets what is made of the options (conditions, plan) be kept with them."""

    method: Annotated[Method, Meta(description="What is asked of the address.")] = "GET"
    headers: Annotated[
        dict[str, str], Meta(description="Sent with the request. Secrets go into secret headers.")
    ] = {}
    body: Annotated[
        str, Meta(max_length=MAX_BODY_CHARS, description="Sent with the request, as UTF-8.")
    ] = ""
    username: Annotated[str, Meta(max_length=200, description="For basic authentication.")] = ""
    password: Annotated[Secret, Meta(description="For basic authentication.")] = Secret("")
    bearer_token: Annotated[Secret, Meta(description="Sent as Authorization: Bearer …")] = Secret(
        ""
    )
    secret_headers: Annotated[
        Secret, Meta(description="Headers that nobody is shown, one a line: Name: value")
    ] = Secret("")

    expected_status: Annotated[
        str, Meta(max_length=200, description="Codes and ranges, such as 200-299,301.")
    ] = "200-299"
    body_contains: Annotated[
        list[Text], Meta(max_length=20, description="Texts that must all be in the body.")
    ] = []
    body_not_contains: Annotated[
        list[Text], Meta(max_length=20, description="Texts none of which may be in the body.")
    ] = []
    body_regex: Annotated[
        str, Meta(max_length=1000, description="Must match somewhere in the body (RE2 syntax).")
    ] = ""
    json_path: Annotated[
        str,
        Meta(max_length=300, description="What to look at in a JSON body, such as $.status."),
    ] = ""
    json_operator: Annotated[
        Operator, Meta(description="What must be true of one of the values found there.")
    ] = "exists"
    json_value: Annotated[
        str, Meta(max_length=1000, description="What they are compared with: JSON, or a text.")
    ] = ""
    response_headers: Annotated[
        list[Text],
        Meta(
            max_length=20,
            description=(
                "Conditions, one a line: Name (is there), !Name (is not), Name: text (contains), "
                "Name: =text (is), Name: ~regex (matches)."
            ),
        ),
    ] = []

    follow_redirects: Annotated[
        bool, Meta(description="Follow a redirect whose status is not itself expected.")
    ] = True
    max_redirects: Annotated[int, Meta(ge=0, le=20, description="So many in a row at most.")] = 5
    verify_tls: Annotated[
        bool, Meta(description="Refuse a certificate that cannot be trusted.")
    ] = True
    ca_file: Annotated[
        str,
        Meta(max_length=1000, description="Authorities to trust (PEM) instead of the machine's."),
    ] = ""
    server_name: Annotated[
        str,
        Meta(max_length=253, description="The name asked for in TLS. Empty: the address's host."),
    ] = ""
    cert_days_degraded: Annotated[
        int,
        Meta(ge=0, le=3650, description="Degraded when the certificate expires within days."),
    ] = 14
    cert_days_failed: Annotated[
        int, Meta(ge=0, le=3650, description="Failed when the certificate expires within days.")
    ] = 0

    def __post_init__(self) -> None:
        _ = self.sent_headers, self.conditions
        if self.username and ":" in self.username:
            raise ValueError("username: has no colon in it")
        if self.bearer_token and (self.username or self.password):
            raise ValueError("bearer_token: not together with a user name and password")
        if self.body and self.method in ("GET", "HEAD"):
            raise ValueError(f"body: a {self.method} request has none; choose POST, for instance")
        if self.method == "HEAD" and self.reads_body:
            raise ValueError("method: an answer to HEAD has no body that conditions could look at")
        for secret, name in ((self.bearer_token, "bearer_token"), (self.password, "password")):
            if not _VALUE.fullmatch(secret.reveal()):
                raise ValueError(f"{name}: has characters that a header cannot carry")

    @property
    def reads_body(self) -> bool:
        return bool(
            self.body_contains or self.body_not_contains or self.body_regex or self.json_path
        )

    @cached_property
    def sent_headers(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """The open headers and the secret ones.  Raises ValueError, never with a secret in it."""
        open_headers = [(name.strip(), value.strip()) for name, value in self.headers.items()]
        for name, value in open_headers:
            _check_header("headers", name, value)
        secret = []
        for line in self.secret_headers.reveal().splitlines():
            if not line.strip():
                continue
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError("secret_headers: each line must be like Name: value")
            _check_header("secret_headers", name.strip(), value.strip())
            secret.append((name.strip(), value.strip()))
        if len(open_headers) + len(secret) > MAX_HEADERS:
            raise ValueError(f"headers: no more than {MAX_HEADERS} can be sent")
        return open_headers, secret

    @cached_property
    def conditions(self) -> Conditions:
        """What the answer is judged by.  Raises ValueError naming the option."""
        try:
            statuses = parse_statuses(self.expected_status)
        except ValueError as error:
            raise ValueError(f"expected_status: {error}") from None
        return compile_conditions(
            statuses=statuses,
            response_headers=self.response_headers,
            contains=self.body_contains,
            not_contains=self.body_not_contains,
            regex=self.body_regex,
            json_path=self.json_path,
            json_operator=self.json_operator,
            json_value=self.json_value,
        )


def _check_header(option: str, name: str, value: str) -> None:
    shown = name if option == "headers" else "a name"
    if not _NAME.fullmatch(name) or len(name) > 200:
        raise ValueError(f"{option}: {shown[:60]!r} is not a header's name")
    if name.lower() in _OURS:
        raise ValueError(f"{option}: {name} is set by the probe itself")
    if not _VALUE.fullmatch(value) or len(value) > MAX_HEADER_CHARS:
        raise ValueError(f"{option}: the value of {name} is not one that a header can have")
