"""The directory in which several workers share their metrics: a clean one for each start.

Used by the arbiter only. Its name carries the arbiter's pid, so that two servers on one data
directory do not mix, and what a killed one left is swept by the next.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_made: tuple[int, Path] | None = None


def make(data_dir: Path) -> Path:
    global _made
    if _made is not None and _made[0] == os.getpid() and _made[1].is_dir():
        return _made[1]  # a reload: the workers that are about to end still write there
    parent = data_dir / "metrics"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        if left.name.isdigit() and (int(left.name) == os.getpid() or not _alive(int(left.name))):
            shutil.rmtree(left, ignore_errors=True)
    directory = parent / str(os.getpid())
    directory.mkdir()
    _made = os.getpid(), directory
    return directory


def remove() -> None:
    if _made is not None and _made[0] == os.getpid():
        shutil.rmtree(_made[1], ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
