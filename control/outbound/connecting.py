"""Connections to other machines: each address is judged before it is connected to, and all that is
done over a connection shares one deadline.

An Outbound belongs to the one thread that makes and uses it.  Names are resolved by the operating
system, on that thread: a resolver that hangs costs its own time-out, once.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from control.outbound.policy import AddressPolicy
from pipeline.errors import PermanentError, RetryableError

CONNECT_S = 10.0


class Outbound:
    """What one delivery may use of the network, and until when."""

    def __init__(
        self,
        *,
        policy: AddressPolicy,
        deadline_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._monotonic = monotonic
        self._deadline_s = deadline_s
        self._until = monotonic() + deadline_s

    def left_s(self) -> float:
        """Seconds that are left.  Raises RetryableError when there are none."""
        left = self._until - self._monotonic()
        if left <= 0:
            raise RetryableError(f"no full answer within {self._deadline_s:g} s")
        return left

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to the first address of `host` that may be used and answers."""
        denied = failed = ""
        for address in self._addresses(host, port):
            problem = self._policy.problem(address)
            if problem:
                denied = denied or f"{host}: {problem}"
                continue
            try:
                return socket.create_connection(
                    (address, port), timeout=min(CONNECT_S, self.left_s())
                )
            except OSError as error:
                failed = f"cannot connect to {_place(host, address, port)}: {_cause(error)}"
        if failed:
            raise RetryableError(failed)
        raise PermanentError(f"may not be connected to: {denied}")

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise RetryableError(f"{host} cannot be resolved: {_cause(error)}") from None
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Backend(httpcore.NetworkBackend):
    """For httpcore: its connections are made by an Outbound, and end with its deadline."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._outbound.connect(host, port), self._outbound)


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends with the deadline, however slowly the other end drips."""

    def __init__(self, sock: socket.socket, outbound: Outbound) -> None:
        self._sock = sock
        self._outbound = outbound

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        received: bytes = self._within(lambda: self._sock.recv(max_bytes), timeout)
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._within(lambda: self._sock.sendall(buffer), timeout)

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        def handshake() -> ssl.SSLSocket:
            return ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)

        try:
            return _Stream(self._within(handshake, timeout), self._outbound)
        except BaseException:
            self.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._sock if info == "socket" else None

    def _within(self, act: Callable[[], Any], timeout: float | None) -> Any:
        left = self._outbound.left_s()
        self._sock.settimeout(left if timeout is None else min(left, timeout))
        return act()


def _place(host: str, address: str, port: int) -> str:
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{port}" if host == address else f"{host} ({shown}:{port})"


def _cause(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
