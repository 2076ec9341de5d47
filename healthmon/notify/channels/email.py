"""E-mail by SMTP: plain text and simple HTML; its Message-ID is made from the delivery's key."""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Annotated, Literal, cast

import msgspec

from control.admin.inert import one_line
from control.outbound.posting import ANSWER_CHARS
from healthmon.notify import wording
from healthmon.notify.kind import ChannelKind, ChannelOptions, Delivery
from healthmon.notify.smtp import session
from pipeline.errors import PermanentError, RetryableError
from sinks.options import Secret

SUBJECT_CHARS = 200
MAX_RECIPIENTS = 50


class EmailOptions(ChannelOptions, frozen=True, kw_only=True):
    host: Annotated[str, msgspec.Meta(description="The SMTP server.", min_length=1, max_length=253)]
    port: Annotated[int, msgspec.Meta(description="Its port.", ge=1, le=65535)] = 587
    security: Annotated[
        Literal["starttls", "tls", "none"],
        msgspec.Meta(description="starttls (port 587), tls from the start (465), or none."),
    ] = "starttls"
    username: Annotated[str, msgspec.Meta(description="Empty: no login.", max_length=200)] = ""
    password: Annotated[Secret | None, msgspec.Meta(description="For the login.")] = None
    sender: Annotated[str, msgspec.Meta(description="The address in From.", max_length=254)]
    recipients: Annotated[
        list[str], msgspec.Meta(description="Addresses, one a line.", min_length=1)
    ]
    subject_prefix: Annotated[
        str, msgspec.Meta(description="Before each subject.", max_length=50)
    ] = "[Collector]"
    verify_tls: Annotated[bool, msgspec.Meta(description="Check the server's certificate.")] = True

    def __post_init__(self) -> None:
        if len(self.recipients) > MAX_RECIPIENTS:
            raise ValueError(f"recipients: at most {MAX_RECIPIENTS}")
        for field, addresses in (("sender", [self.sender]), ("recipients", self.recipients)):
            for text in addresses:
                if not _is_address(text):
                    raise ValueError(f"{field}: {text[:100]!r} is not an e-mail address")
        if self.username and not self.password:
            raise ValueError("password: is missing, as a username is given")
        if self.username and self.security == "none":
            raise ValueError("security: a login without encryption would show the password")


def send(delivery: Delivery) -> str:
    options = cast(EmailOptions, delivery.options)
    message = message_of(delivery)
    try:
        with session(
            host=options.host,
            port=options.port,
            security=options.security,
            verify=options.verify_tls,
            outbound=delivery.outbound,
        ) as smtp:
            return _converse(smtp, options, message)
    except smtplib.SMTPRecipientsRefused as error:
        raise _refusal(list(error.recipients.values())) from None
    except smtplib.SMTPNotSupportedError as error:
        raise PermanentError(_short(f"the server cannot: {error}")) from None
    except smtplib.SMTPResponseException as error:
        raise _refusal([(error.smtp_code, error.smtp_error)]) from None
    except ssl.SSLCertVerificationError as error:
        raise RetryableError(f"its certificate is not trusted: {error.verify_message}") from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        words = str(error) or type(error).__name__
        raise RetryableError(_short(f"the connection failed: {words}")) from None


def message_of(delivery: Delivery) -> EmailMessage:
    """The message.  Everything from outside is put on one line before it is near a header."""
    options = cast(EmailOptions, delivery.options)
    told = delivery.notification
    message = EmailMessage()
    message["Subject"] = one_line(f"{options.subject_prefix} {told.title}", limit=SUBJECT_CHARS)
    message["From"] = options.sender
    message["To"] = ", ".join(options.recipients)
    message["Date"] = format_datetime(datetime.fromtimestamp(delivery.now_s, UTC))
    message["Message-ID"] = message_id(delivery.key, options.sender)
    message["Auto-Submitted"] = "auto-generated"
    message["X-Collector-Delivery"] = one_line(delivery.key, limit=200)
    message.set_content(wording.plain(told, link_base=options.link_base) or told.title)
    message.add_alternative(wording.html(told, link_base=options.link_base), subtype="html")
    return message


def message_id(key: str, sender: str) -> str:
    """The same for each repeat, so that mail programs show one."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:40]
    return f"<{digest}@{sender.rpartition('@')[2]}>"


def _converse(smtp: smtplib.SMTP, options: EmailOptions, message: EmailMessage) -> str:
    if options.username and options.password:
        smtp.login(options.username, options.password.reveal())
    refused = smtp.send_message(message)
    try:
        smtp.quit()
    except (smtplib.SMTPException, OSError):
        pass  # it has been taken
    taken = len(options.recipients) - len(refused)
    if not refused:
        return f"taken for {taken} recipient{'s' if taken != 1 else ''}"
    names = ", ".join(sorted(refused))
    return _short(f"taken for {taken} of {len(options.recipients)} recipients; refused: {names}")


def _refusal(answers: list[tuple[int, bytes | str]]) -> RetryableError | PermanentError:
    """4yz is for now, 5yz for ever; a wrong login among the latter."""
    code, text = next(((c, t) for c, t in answers if 400 <= c < 500), answers[0])
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    words = _short(f"answered {code} {said}")
    return PermanentError(words) if 500 <= code < 600 else RetryableError(words)


def _is_address(text: str) -> bool:
    try:
        address = Address(addr_spec=text)
    except (ValueError, IndexError, AttributeError):
        return False
    is_plain = text.isascii() and text.isprintable() and " " not in text
    return bool(address.username and address.domain) and is_plain and len(text) <= 254


def _short(text: str) -> str:
    return one_line(text, limit=ANSWER_CHARS)


KIND = ChannelKind(
    name="email",
    label="E-mail",
    description="By SMTP, with STARTTLS or TLS and a login.",
    Options=EmailOptions,
    send=send,
)
