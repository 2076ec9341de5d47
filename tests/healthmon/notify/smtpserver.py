"""A real SMTP listener that records mails, and refuses when told to."""

from __future__ import annotations

import asyncio
import ssl
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

USER, PASSWORD = "mailer", "p4ssw0rd-of-mail"


class Handler:
    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.raw: list[bytes] = []
        self.envelopes: list[tuple[str, list[str]]] = []
        self.answer = "250 taken"
        self.refused: dict[str, str] = {}

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 fine"

    async def handle_DATA(self, server, session, envelope):
        if self.answer.startswith("250"):
            self.raw.append(envelope.content)
            mail = message_from_bytes(envelope.content, policy=default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
            self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
        return self.answer


def _authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any):
    fits = isinstance(data, LoginPassword) and data == LoginPassword(
        USER.encode(), PASSWORD.encode()
    )
    return AuthResult(success=fits, handled=False)


class Listener(Controller):
    """On port 0; `tls` from the start, or offered by STARTTLS, with or without a login."""

    def __init__(
        self,
        handler: Handler,
        *,
        context: ssl.SSLContext | None = None,
        starttls: bool = False,
        login: bool = False,
    ) -> None:
        self._starttls = context if starttls else None
        self._login = login
        super().__init__(
            handler, hostname="127.0.0.1", port=0, ssl_context=None if starttls else context
        )

    def factory(self) -> SMTP:
        more: dict[str, Any] = {}
        if self._starttls is not None:
            more |= {"tls_context": self._starttls, "require_starttls": True}
        if self._login:
            more |= {"authenticator": _authenticate, "auth_required": True}
            more["auth_require_tls"] = self._starttls is not None
        return SMTP(self.handler, hostname="mail.example", **more)

    def _trigger_server(self) -> None:
        # The base class asks the configured port, which is 0; what listens has said its own.
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()
