"""An SMTP client whose connection an Outbound makes, and which ends with the Outbound's deadline.

smtplib waits per read, so a server that drips its answers would be waited for without end: a
timer's thread cuts the connection at the deadline.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from control.outbound.connecting import Outbound

Security = Literal["starttls", "tls", "none"]


class _Client(smtplib.SMTP):
    def __init__(
        self, *, host: str, outbound: Outbound, security: Security, context: ssl.SSLContext
    ) -> None:
        # Without a host nothing is connected to yet; the machine's name is not looked up.
        super().__init__(local_hostname=_own_name(), timeout=outbound.left_s())
        self._host = host  # what TLS checks the certificate against
        self._outbound = outbound
        self._security = security
        self._context = context

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        sock = self._outbound.connect(host, port)
        sock.settimeout(self._outbound.left_s())
        if self._security != "tls":
            return sock
        return self._context.wrap_socket(sock, server_hostname=self._host)


@contextmanager
def session(
    *, host: str, port: int, security: Security, verify: bool, outbound: Outbound
) -> Iterator[smtplib.SMTP]:
    """A greeted and, where asked for, encrypted session; closed whatever happens."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    client = _Client(host=host, outbound=outbound, security=security, context=context)
    stop = threading.Timer(outbound.left_s(), _cut, (client,))
    stop.name, stop.daemon = "smtp-deadline", True
    stop.start()
    try:
        code, text = client.connect(host, port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        if security == "starttls":
            client.starttls(context=context)
        yield client
    finally:
        stop.cancel()
        client.close()


def _cut(client: smtplib.SMTP) -> None:
    """On the timer's thread: end what is being waited for."""
    sock = client.sock
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already


def _own_name() -> str:
    name = socket.gethostname()
    plain = name.replace("-", "").replace(".", "")
    return name if plain.isascii() and plain.isalnum() else "localhost"
