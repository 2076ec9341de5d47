"""How the third party's sink is told what to do: one word in a file that it reads at each write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Mode = Literal["ok", "hang", "deaf", "fail", "dead"]
_FILE = "mode"


def set_mode(directory: Path, mode: Mode) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    written = directory / f"{_FILE}.new"
    written.write_text(mode)
    os.replace(written, directory / _FILE)


def mode_in(directory: Path) -> str:
    try:
        return (directory / _FILE).read_text()
    except OSError:
        return "ok"
