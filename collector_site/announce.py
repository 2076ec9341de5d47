"""What the server says to whoever started it: one ready line. And what it hears: stop signals.

The arbiter arms this before it forks; workers inherit a pipe holding one token, and the worker
that takes the token prints the line, so that several workers print one. Main threads only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

READY_FD = "COLLECTOR_READY_FD"  # the supervisor's pipe, where one runs
# One Ctrl-C reaches a process more than once: from the terminal and from its parent.
SAME_PRESS_S = 0.5

_token_read = -1
_loss_read = _loss_write = -1
_stop_asked = False


def arm(arbiter: Any) -> None:
    """Put the token in place and make the arbiter take INT and QUIT, also repeated, as TERM.

    gunicorn's arbiter answers a second INT or QUIT by killing its workers two seconds later, in
    the middle of their drain. Here a second INT, a person's second Ctrl-C, is passed on as INT:
    the workers then leave what they hold in the log and end. Repeated TERM and QUIT, as service
    managers send them, change nothing.
    """
    global _token_read, _loss_read, _loss_write
    _loss_read, _loss_write = os.pipe()
    os.set_blocking(_loss_read, False)
    _token_read, write = os.pipe()
    os.set_blocking(_token_read, False)
    os.write(write, b"1")
    os.close(write)

    stopping_since: list[float] = []

    def on_stop(number: int, frame: FrameType | None) -> None:
        global _stop_asked
        if os.getpid() != arbiter.pid:
            _stop_asked = True
            return
        now = time.monotonic()
        if not stopping_since:
            stopping_since.append(now)
        elif number == signal.SIGINT and now - stopping_since[0] > SAME_PRESS_S:
            for pid in list(arbiter.WORKERS):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
            return
        arbiter.signal(signal.SIGTERM, frame)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, on_stop)


def loss() -> None:
    """In a worker: acknowledged records are lost with this process: neither stored nor logged."""
    if _loss_write >= 0:
        os.write(_loss_write, b"1")


def loss_was_told() -> bool:
    """In the arbiter: whether any worker lost records, which its exit status must tell."""
    try:
        return _loss_read >= 0 and bool(os.read(_loss_read, 1))
    except BlockingIOError:
        return False


def stop_was_asked() -> bool:
    """Whether a stop signal reached this forked worker before it had handlers of its own."""
    return _stop_asked


def ready(sockets: list[socket.socket]) -> None:
    try:
        first = _token_read < 0 or bool(os.read(_token_read, 1))
    except BlockingIOError:
        first = False
    if not first:
        return
    pipe = os.environ.pop(READY_FD, "")
    if pipe.isdigit():
        os.write(int(pipe), url_of(sockets).encode())
        os.close(int(pipe))
    else:
        # In one write: other processes share this stream.
        sys.stdout.write(f"ready {url_of(sockets)}\n")
        sys.stdout.flush()


def url_of(sockets: list[Any]) -> str:
    address = getattr(sockets[0], "sock", sockets[0]).getsockname()
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host, port = address[0], address[1]
    if host in ("0.0.0.0", "::"):  # noqa: S104  shown, not bound: an address one can open
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
