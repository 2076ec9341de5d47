"""What an operator can say of an HTTP target, and the rules across those options.

Decoding checks everything that can be checked without asking the target: a probe never finds out
that its own expression does not compile.  Pure; any thread.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from msgspec import Meta

from healthmon.probes.http.conditions import Conditions, compile_conditions
from healthmon.probes.http.sending import (
    NONE,
    BearerToken,
    CaFile,
    DaysDegraded,
    DaysFailed,
    Headers,
    Pairs,
    Password,
    SecretHeaders,
    ServerName,
    Username,
    VerifyTls,
    read_headers,
)
from healthmon.probes.http.statuses import parse_statuses
from healthmon.probes.kind import ProbeOptions

MAX_BODY_CHARS = 64 * 1024

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Operator = Literal["exists", "absent", "==", "!=", "<", "<=", ">", ">=", "contains", "matches"]
Text = Annotated[str, Meta(max_length=1000)]


class HttpOptions(ProbeOptions, frozen=True, kw_only=True, dict=True):
    """`dict` lets what is made of the options (conditions, plan) be kept with them."""

    method: Annotated[Method, Meta(description="What is asked of the address.")] = "GET"
    headers: Headers = {}
    body: Annotated[
        str, Meta(max_length=MAX_BODY_CHARS, description="Sent with the request, as UTF-8.")
    ] = ""
    username: Username = ""
    password: Password = NONE
    bearer_token: BearerToken = NONE
    secret_headers: SecretHeaders = NONE

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
    verify_tls: VerifyTls = True
    ca_file: CaFile = ""
    server_name: ServerName = ""
    cert_days_degraded: DaysDegraded = 14
    cert_days_failed: DaysFailed = 0

    def __post_init__(self) -> None:
        _ = self.sent_headers, self.conditions  # both refuse what cannot be used
        if self.body and self.method in ("GET", "HEAD"):
            raise ValueError(f"body: a {self.method} request has none; choose POST, for instance")
        if self.method == "HEAD" and self.conditions.reads_body:
            raise ValueError("method: an answer to HEAD has no body that conditions could look at")

    @cached_property
    def sent_headers(self) -> Pairs:
        """Raises ValueError naming the option."""
        return read_headers(self)

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
