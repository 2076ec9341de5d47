"""What comes before the processes: a free address, a look at who else is here, the preparation.

Used by the supervisor only, on its one thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

LOCK_NAME = "supervisor.lock"
_PORTS_TRIED = 20
# The preparation's exit status when a database is away: EX_TEMPFAIL of sysexits.h.
PUT_OFF = 75


def address_fault(host: str, port: int) -> str:
    """Why the server could not listen there and what to do about it; "" when it could."""
    error = _bind(host, port)
    if error is None:
        return ""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{place} is already in use: stop the other server or choose another port, "
            f"for example PORT={_free_port(host, port)} make run"
        )
    if error.errno == errno.EACCES:
        return (
            f"{place} cannot be used: ports below 1024 take privileges; "
            "choose another port, for example PORT=8000 make run"
        )
    return (
        f"{place} cannot be used ({error.strerror or error}): "
        "set HOST to an address of this machine, for example HOST=127.0.0.1 make run"
    )


def _free_port(host: str, port: int) -> int:
    following = range(port + 1, min(port + 1 + _PORTS_TRIED, 65536))
    return next((number for number in following if _bind(host, number) is None), 8000)


def _bind(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the server does: connections that are still closing are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None


class DataDirectory:
    """Marks the data directory as one that a supervisor serves, for as long as this lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def enter(self) -> str:
        """A line about another supervisor that is already there, which is allowed; else ""."""
        try:
            self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(self._path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return ""  # the preparation that follows says what is wrong with the directory
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = os.read(self._descriptor, 20).decode("ascii", "replace").strip()
            return (
                f"another supervisor (process {other or 'unknown'}) already serves the data "
                f"directory {self._path}; set COLLECTOR_DATA_DIR to keep this one apart"
            )
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())
        return ""

    def leave(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def prepare(directory: Path) -> tuple[int, str]:
    """Bring the installation up to date: the exit status, and what is to be said about it.

    `PUT_OFF` says that a database is away: the rest is done, and the server can start. What it
    prints may hold a password that is shown once, so it is kept whatever happens here.
    """
    command = (sys.executable, "manage.py", "prepare", "--put-off")
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        said, _ = process.communicate()
    except KeyboardInterrupt:
        process.terminate()
        said, _ = process.communicate()
        return 130, said
    finally:
        signal.signal(signal.SIGTERM, before)
    return process.returncode, said
