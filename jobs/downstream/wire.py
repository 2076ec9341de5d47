"""Connections for httpcore: each address judged before it is connected to, each wait ended by the
deadline of the call that waits, each socket within reach of a cut.

Used by the thread that makes the call; `Lines` says which call that is.  A connection that was
kept and is used again belongs to the next call from its first byte on.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from control.outbound.policy import AddressPolicy
from jobs.downstream.faults import DeniedError, NotSentError, OutOfTimeError
from jobs.downstream.line import Line, Lines
from jobs.downstream.names import Names

# While other addresses are left, one that does not answer is given this long.
CONNECT_SLICE_S = 3.0


class Backend(httpcore.NetworkBackend):
    """`policy_for` answers which policy judges the addresses of a host and port."""

    def __init__(
        self, *, lines: Lines, names: Names, policy_for: Callable[[str, int], AddressPolicy]
    ) -> None:
        self._lines = lines
        self._names = names
        self._policy_for = policy_for

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        line = self._lines.current
        policy = self._policy_for(host, port)
        denied = failed = ""
        addresses = []
        for address in self._names.addresses(host, line):
            problem = policy.problem(address)
            if problem:
                # Which names the address; the host too, where that is another word.
                is_named = host.strip("[]") != address
                denied = denied or (
                    f"{host} has an address that is denied: {problem}" if is_named else problem
                )
            else:
                addresses.append(address)
        for others, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
            left = line.left_s()
            wait_s = min(left, CONNECT_SLICE_S) if others else left
            try:
                sock = _connected(address, port, line, wait_s)
                return Stream(sock, lines=self._lines)
            except OSError as error:
                failed = f"cannot connect to {_place(host, address, port)}: {cause(error)}"
        line.left_s()  # what failed may have been the deadline, or the cut
        if failed:
            raise httpcore.ConnectError(failed)
        raise DeniedError(denied)


def _connected(address: str, port: int, line: Line, timeout_s: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        line.uses(sock)
        sock.settimeout(timeout_s)
        sock.connect((address, port))
        # Nagle's algorithm would hold a body back until the head is acknowledged.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        line.done(sock)
        sock.close()
        raise
    return sock


class Stream(httpcore.NetworkStream):
    def __init__(self, sock: socket.socket, *, lines: Lines) -> None:
        self._sock = sock
        self._lines = lines
        self._line: Line | None = lines.current  # whose connection it was made for
        self._is_kept = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        line = self._on_line()
        self._sock.settimeout(line.left_s())
        try:
            return self._sock.recv(max_bytes)
        except TimeoutError:
            raise OutOfTimeError from None
        except (OSError, ValueError) as error:
            raise httpcore.ReadError(cause(error)) from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        line = self._on_line()
        unsent = memoryview(buffer)
        try:
            while unsent:
                self._sock.settimeout(line.left_s())
                unsent = unsent[self._sock.send(unsent) :]
                line.sent = True
        except TimeoutError:
            raise OutOfTimeError from None
        except (OSError, ValueError) as error:
            if self._is_kept and not line.sent:
                raise NotSentError from None
            raise httpcore.WriteError(cause(error)) from None

    def close(self) -> None:
        if self._line is not None:
            self._line.done(self._sock)
            self._line = None
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        line = self._on_line()
        try:
            self._sock.settimeout(line.left_s())
            # By hand, so that a cut reaches the handshake: wrapping takes the socket's place.
            secured = ssl_context.wrap_socket(
                self._sock, server_hostname=server_hostname, do_handshake_on_connect=False
            )
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, ValueError)):
                raise httpcore.ConnectError(f"no TLS: {cause(error)}") from None
            raise
        line.done(self._sock)
        self._sock = secured
        try:
            line.uses(secured)
            secured.settimeout(line.left_s())
            secured.do_handshake()
        except TimeoutError:
            self.close()
            raise OutOfTimeError from None
        except ssl.SSLCertVerificationError as error:
            self.close()
            words = f"its certificate is not trusted: {error.verify_message}"
            raise httpcore.ConnectError(words) from None
        except (OSError, ValueError) as error:
            self.close()
            raise httpcore.ConnectError(f"the TLS handshake failed: {cause(error)}") from None
        except BaseException:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._is_readable()
        if info == "ssl_object":
            return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
        return self._sock if info == "socket" else None

    def _is_readable(self) -> bool:
        """Whether an idle connection has something to say: that it is closed."""
        fd = self._sock.fileno()
        if fd < 0:
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def _on_line(self) -> Line:
        line = self._lines.current
        if line is not self._line:
            line.uses(self._sock)
            self._line = line
            self._is_kept = True
        return line


def _place(host: str, address: str, port: int) -> str:
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{port}" if host.strip("[]") == address else f"{host} ({shown}:{port})"


def cause(error: BaseException) -> str:
    """Why, in the system's words."""
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
