"""Django's DATABASES from the typed settings: `default` (control) and `records`.

On SQLite they are two files, so that bulk writes of records never hold up the control plane. One
PostgreSQL URL serves both: `records` is then a second alias to the same database.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ

from control.config.rules import DATABASE_SCHEMES
from control.config.settings import DatabaseSettings

CONTROL_FILE = "control.sqlite3"
RECORDS_FILE = "records.sqlite3"

# WAL lets readers go on beside the one writer; FULL makes a commit survive a power cut.
_SQLITE_START = (
    "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA busy_timeout=5000;"
    "PRAGMA foreign_keys=ON;PRAGMA journal_size_limit=67108864;"
)


def databases(settings: DatabaseSettings, data_dir: Path) -> dict[str, dict[str, Any]]:
    control, records = _usable(settings.control), _usable(settings.records)
    if not _is_postgresql(control):
        base, ours, theirs = _sqlite_files(control, data_dir)
        default = _sqlite(base / ours)
        return {
            "default": default,
            "records": _postgresql(records, settings)
            if _is_postgresql(records)
            else _sqlite(base / theirs),
        }
    default = _postgresql(control, settings)
    if records and not records.startswith("sqlite"):
        return {"default": default, "records": _postgresql(records, settings)}
    if records:
        base, _, theirs = _sqlite_files(records, data_dir)
        return {"default": default, "records": _sqlite(base / theirs)}
    shared = _postgresql(control, settings)
    shared["TEST"] = {"MIRROR": "default"}
    return {"default": default, "records": shared}


def is_shared(databases: dict[str, dict[str, Any]]) -> bool:
    """Whether one PostgreSQL database serves both aliases."""
    default, records = databases["default"], databases["records"]
    return "sqlite" not in default["ENGINE"] and _place(default) == _place(records)


def _place(config: dict[str, Any]) -> tuple[Any, ...]:
    options = config.get("OPTIONS", {})
    host = config.get("HOST") or options.get("host")
    return config["ENGINE"], config["NAME"], host, str(config.get("PORT") or 5432)


def _usable(url: str) -> str:
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    return url if scheme in DATABASE_SCHEMES else ""


def _is_postgresql(url: str) -> bool:
    return bool(url) and not url.startswith("sqlite")


def _sqlite_files(url: str, data_dir: Path) -> tuple[Path, str, str]:
    """Directory and file names. A URL naming a file gives its stem to both files."""
    path = Path(environ.Env.db_url_config(url)["NAME"]) if urlsplit(url).path.strip("/") else None
    if path is None:
        return data_dir, CONTROL_FILE, RECORDS_FILE
    base = path if path.is_absolute() else data_dir / path
    if base.suffix in (".sqlite3", ".sqlite", ".db"):
        return base.parent, f"{base.stem}-{CONTROL_FILE}", f"{base.stem}-{RECORDS_FILE}"
    return base, CONTROL_FILE, RECORDS_FILE


def _sqlite(path: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {
            "timeout": 5,
            # A transaction that begins deferred and then writes fails at once when another wrote
            # meanwhile, without waiting for busy_timeout.
            "transaction_mode": "IMMEDIATE",
            "init_command": _SQLITE_START,
        },
        # Threads of one process cannot wait for each other in an in-memory database.
        "TEST": {"NAME": str(path.with_name(f"test-{path.name}"))},
    }


def _postgresql(url: str, settings: DatabaseSettings) -> dict[str, Any]:
    config: dict[str, Any] = environ.Env.db_url_config(url)
    options = config.setdefault("OPTIONS", {})
    config["ENGINE"] = "control.databases.postgresql"
    options.setdefault("connect_timeout", 3)
    # A machine that vanished is noticed without waiting for the kernel's quarter of an hour.
    options.setdefault("tcp_user_timeout", 15_000)
    options.setdefault("keepalives_idle", 10)
    options.setdefault("keepalives_interval", 5)
    options.setdefault("keepalives_count", 3)
    options.setdefault("application_name", "collector")
    if settings.pool_size:
        # What comes from the pool is checked by our backend, which does not wait for ever.
        options["pool"] = {"min_size": 0, "max_size": settings.pool_size, "timeout": 5}
    else:
        config["CONN_MAX_AGE"] = 60
    config["CONN_HEALTH_CHECKS"] = not settings.pool_size
    return config
