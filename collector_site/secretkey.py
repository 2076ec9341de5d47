"""The installation's secret key: made once, kept in the data directory, readable by its owner only.

Called while Django's settings load, possibly by several processes at once on a fresh machine: the
key is written to a private file first and linked into place, so all of them read the one that won.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from control.config.settings import Mistake

NAME = "secret_key"


def secret_key(data_dir: Path) -> tuple[str, Mistake | None]:
    """The key, and what kept it from being stored if something did."""
    path = data_dir / NAME
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = _read(path) or _make(path)
    except OSError as error:
        # The key lives only as long as this process; sessions and stored secrets would not
        # survive it, which is why the mistake is fatal for a server.
        return secrets.token_urlsafe(64), Mistake(
            id="collector.E005",
            message=f"The data directory {data_dir} cannot be used: {error.strerror or error}.",
            hint="Set COLLECTOR_DATA_DIR to a directory this user may write to.",
        )
    mode = path.stat().st_mode
    if mode & 0o077:
        return key, Mistake(
            id="collector.W003",
            message=f"{path} can be read by other users (mode {mode & 0o777:o}).",
            hint=f"chmod 600 {path}",
            fatal=False,
        )
    return key, None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _make(path: Path) -> str:
    descriptor, private = tempfile.mkstemp(prefix=".secret_key.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(64) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(private, path)
        except FileExistsError:
            if not _read(path):  # left empty by a crash before keys were linked into place
                os.replace(private, path)
                return _read(path)
    finally:
        Path(private).unlink(missing_ok=True)
    return _read(path)
