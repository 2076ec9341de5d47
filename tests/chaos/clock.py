"""A system clock for the server that a test can set: a preloaded shim and a file with the shift.

Everything in the process sees the jump, C code as well. Needs a C compiler; `make_shim` says so.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


class MissingCompiler(Exception):
    """The shim cannot be made here; the text says what to install."""


def make_shim(directory: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MissingCompiler(
            "a clock that jumps needs a C compiler: apt-get install gcc libc6-dev"
        )
    shim = directory / "clock.so"
    if not shim.exists():
        subprocess.run(
            (compiler, "-shared", "-fPIC", "-O1", "-o", str(shim), str(_SOURCE), "-ldl"), check=True
        )
    return shim


class JumpingClock:
    """The shift of one server's clock, in a file that the shim has mapped."""

    def __init__(self, *, directory: Path, shim: Path) -> None:
        self._path = directory / "clock"
        self._path.write_bytes(struct.pack("=q", 0))
        self.environ = {"LD_PRELOAD": str(shim), "CHAOS_CLOCK": str(self._path)}

    def shift(self, seconds: float) -> None:
        fd = os.open(self._path, os.O_WRONLY)
        try:
            os.pwrite(fd, struct.pack("=q", int(seconds * 1e9)), 0)
        finally:
            os.close(fd)
