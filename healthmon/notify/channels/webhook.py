"""Webhook: a POST of JSON to an address, signed.

    X-Collector-Timestamp: seconds since 1970, when this attempt was made
    X-Collector-Signature: hex of HMAC-SHA256 by the secret over `timestamp.body`
    X-Collector-Delivery: the same for each repeat of one message

Without a template the body is the whole notification.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec

from control.outbound.posting import post
from control.outbound.signing import signature
from control.outbound.urls import url_problem
from healthmon.notify import template, wording
from healthmon.notify.kind import ChannelKind, ChannelOptions, Delivery
from pipeline.errors import PermanentError
from sinks.options import Secret

_RESERVED = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})
MAX_HEADERS = 20


class WebhookOptions(ChannelOptions, frozen=True, kw_only=True):
    url: Annotated[
        Secret,
        msgspec.Meta(description="Where to post. Kept secret, as such addresses often hold a key."),
    ]
    secret: Annotated[
        Secret | None, msgspec.Meta(description="Signs each message. Empty: no signature.")
    ] = None
    authorization: Annotated[
        Secret | None,
        msgspec.Meta(description="The Authorization header, such as “Bearer …”. Empty: none."),
    ] = None
    headers: Annotated[
        dict[str, str], msgspec.Meta(description="More headers, none of them secret.")
    ] = {}
    body: Annotated[
        Any,
        msgspec.Meta(
            description="The body as JSON, with fields such as ${target} in its texts. Known: "
            + ", ".join(template.FIELDS)
            + ". Empty: the whole notification."
        ),
    ] = None
    verify_tls: Annotated[bool, msgspec.Meta(description="Check the server's certificate.")] = True

    def __post_init__(self) -> None:
        wrong = url_problem(self.url.reveal())
        if wrong:
            raise ValueError(f"url: {wrong}")
        if self.authorization and not _is_header_text(self.authorization.reveal()):
            raise ValueError("authorization: must be one line of ASCII")
        if len(self.headers) > MAX_HEADERS:
            raise ValueError(f"headers: at most {MAX_HEADERS}")
        for name, text in self.headers.items():
            plain = name.replace("-", "").replace("_", "")
            if not (plain.isascii() and plain.isalnum()) or name.lower() in _RESERVED:
                raise ValueError(f"headers: {name!r} cannot be set")
            if name.lower().startswith("x-collector-") or not _is_header_text(text):
                raise ValueError(f"headers: {name!r} cannot be set to this")
        if self.body is not None:
            try:
                template.check(self.body)
            except template.TemplateError as error:
                raise ValueError(f"body: {error}") from None


def send(delivery: Delivery) -> str:
    options = cast(WebhookOptions, delivery.options)
    body = body_of(delivery)
    headers = {
        **options.headers,
        "Content-Type": "application/json",
        "User-Agent": "Collector",
        "X-Collector-Delivery": delivery.key,
        "X-Collector-Timestamp": str(delivery.now_s),
    }
    if options.authorization:
        headers["Authorization"] = options.authorization.reveal()
    if options.secret:
        headers["X-Collector-Signature"] = signature(
            options.secret.reveal(), timestamp=delivery.now_s, body=body
        )
    return post(
        options.url.reveal(),
        body=body,
        headers=headers,
        outbound=delivery.outbound,
        verify=options.verify_tls,
        now_s=delivery.now_s,
    )


def body_of(delivery: Delivery) -> bytes:
    """What is posted.  Raises PermanentError when the template makes too much of it."""
    options = cast(WebhookOptions, delivery.options)
    text = wording.plain(delivery.notification, link_base=options.link_base)
    values = template.values_of(delivery, text=text)
    if options.body is None:
        names = ("delivery", "timestamp", "channel", "rule", "title", "text", "test", "count",
                 "more", "counts", "url", "events")  # fmt: skip
        return msgspec.json.encode({name: values[name] for name in names})
    try:
        return template.fill(options.body, values)
    except template.TemplateError as error:
        raise PermanentError(f"its body {error}") from None


def _is_header_text(text: str) -> bool:
    return text.isascii() and text.isprintable() and len(text) <= 4_000


KIND = ChannelKind(
    name="webhook",
    label="Webhook",
    description="A signed POST of JSON to any address; its body may be a template.",
    Options=WebhookOptions,
    send=send,
)
