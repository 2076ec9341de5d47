"""Typed settings: environment over TOML file over defaults.

The one place that reads the environment. `load()` never raises on what an operator wrote: each
mistake becomes a `Mistake` with a number and a hint, and the default stands in for it while the
project's system checks report all of them at once; a server does not start with one. Read once
while Django's settings load, then immutable, so it needs no lock. Plain Python: importable
without Django.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from control.config.values import coerce
from pipeline.settings import PipelineSettings

KIB = 1024
MIB = 1024 * KIB
MAX_SHOWN_CHARS = 20  # what is longer may be a key or a password

# Read outside the typed settings, so not misspellings of one.
OTHER_VARIABLES = frozenset(
    {
        "COLLECTOR_CONFIG",
        "COLLECTOR_ENV_FILE",
        "COLLECTOR_API_KEY",
        "COLLECTOR_BOOTSTRAP_API_KEY",
        "COLLECTOR_READY_FD",
        "COLLECTOR_TEST_DB",
        "COLLECTOR_TEST_POSTGRES_URL",
    }
)


def setting(
    default: Any,
    *,
    env: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """A dataclass field with the environment name and limits that `load()` applies."""
    limits = {"env": env, "low": low, "high": high, "choices": choices}
    return field(default=default, repr=not secret, metadata=limits)


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing that is wrong in the settings, as a numbered system check will show it."""

    id: str
    message: str
    hint: str
    fatal: bool = True


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    host: str = setting("127.0.0.1", env="HOST")
    port: int = setting(8000, env="PORT", low=0, high=65535)
    workers: int = setting(1, low=1, high=64)
    threads: int = setting(32, low=2, high=1024)
    reserved_threads: int = setting(4, low=1)  # never given to ingest: probes always answer
    data_dir: Path = setting(Path("data"))  # noqa: RUF009  a Path is immutable
    secret_key: str = setting("", secret=True)
    read_deadline_s: float = setting(20.0, low=0.1)
    stop_deadline_s: float = setting(30.0, low=1)
    allowed_hosts: tuple[str, ...] = setting(())
    trusted_proxies: tuple[str, ...] = setting(())
    public_metrics: bool = setting(False)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    max_body_bytes: int = setting(32 * MIB, low=KIB)
    max_inflated_bytes: int = setting(64 * MIB, low=KIB)
    max_record_bytes: int = setting(MIB, low=256)
    max_records: int = setting(100_000, low=1)
    max_depth: int = setting(64, low=2, high=500)
    max_counters: int = setting(10_000, low=1, high=1_000_000)
    gate_bytes: int = setting(256 * MIB, low=KIB)
    default_ack: str = setting("wal", choices=("memory", "wal", "stored"))
    ack_timeout_s: float = setting(10.0, low=0.01)
    admission_wait_s: float = setting(0.0, low=0, high=5)
    idempotency_wait_s: float = setting(2.0, low=0.05, high=30)
    require_key: str = setting("auto", choices=("auto", "always", "never"))


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """The log of records in files: where it is, when it is synced, how much it may hold."""

    # None: data_dir/wal
    directory: Path | None = setting(None, env="COLLECTOR_WAL_DIRECTORY")  # noqa: RUF009
    fsync: str = setting("group", env="COLLECTOR_WAL_FSYNC", choices=("group", "interval", "never"))
    fsync_interval_s: float = setting(1.0, env="COLLECTOR_WAL_FSYNC_INTERVAL_S", low=0.01, high=60)
    segment_bytes: int = setting(
        16 * MIB, env="COLLECTOR_WAL_SEGMENT_BYTES", low=64 * KIB, high=1024 * MIB
    )
    cache_bytes: int = setting(64 * MIB, env="COLLECTOR_WAL_CACHE_BYTES", low=MIB)
    max_bytes: int = setting(4096 * MIB, env="COLLECTOR_WAL_MAX_BYTES", low=MIB)
    adopt_every_s: float = setting(15.0, env="COLLECTOR_WAL_ADOPT_EVERY_S", low=0.1, high=300)


@dataclass(frozen=True, kw_only=True)
class RetentionSettings:
    records_days: int = setting(30, low=1)
    samples_hours: int = setting(24, low=1)
    idempotency_hours: int = setting(24, low=1)
    worker_runs_days: int = setting(14, low=1)
    # Dead letters that nobody decides about, and the rows of those that have ended.
    dead_letters_days: int = setting(30, low=1)
    search_index: str = setting("live", choices=("live", "closed", "off"))


@dataclass(frozen=True, kw_only=True)
class LoggingSettings:
    format: str = setting("json", env="COLLECTOR_LOG_FORMAT", choices=("json", "console"))
    level: str = setting(
        "INFO", env="COLLECTOR_LOG_LEVEL", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    )


@dataclass(frozen=True, kw_only=True)
class TracingSettings:
    otlp_endpoint: str = setting("")  # empty: tracing is off
    sample_ratio: float = setting(1.0, env="COLLECTOR_TRACE_SAMPLE_RATIO", low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    control: str = setting("", env="COLLECTOR_DATABASE_URL", secret=True)
    records: str = setting("", env="COLLECTOR_RECORDS_DATABASE_URL", secret=True)
    pool_size: int = setting(12, env="COLLECTOR_DATABASE_POOL_SIZE", low=0, high=1000)


@dataclass(frozen=True, kw_only=True)
class SinksSettings:
    allowed_paths: tuple[str, ...] = setting(
        ("sinks.backends.*",), env="COLLECTOR_SINK_ALLOWED_PATHS"
    )
    poll_s: float = setting(2.0, env="COLLECTOR_SINK_POLL_S", low=0.05, high=5)


@dataclass(frozen=True, kw_only=True)
class MonitoringSettings:
    """Probing: what runs at once, where probes may go, how long history is kept."""

    run_checker: bool = setting(True)  # `make run` starts one
    probe_concurrency: int = setting(4_000, low=1, high=50_000)
    probe_per_host: int = setting(64, low=1)
    probe_per_group: int = setting(0, low=0)  # 0: no limit
    probe_max_body_bytes: int = setting(256 * KIB, low=KIB, high=16 * MIB)
    # Networks (CIDR) beside the defaults; link-local and metadata addresses are always denied.
    probe_allow: tuple[str, ...] = setting(())
    probe_deny: tuple[str, ...] = setting(())
    # Dotted paths of probe kinds besides the built-in ones.
    probe_kinds: tuple[str, ...] = setting(())
    channel_kinds: tuple[str, ...] = setting(())
    # Names or addresses that answer whenever this machine has a network; empty: its nameservers.
    network_witnesses: tuple[str, ...] = setting(())
    lease_s: float = setting(10.0, env="COLLECTOR_CHECKER_LEASE_S", low=1, high=60)
    # auto: uvloop where it is installed
    event_loop: str = setting(
        "auto", env="COLLECTOR_CHECKER_EVENT_LOOP", choices=("auto", "asyncio", "uvloop")
    )
    results_days: int = setting(3, low=1)
    minute_rollups_days: int = setting(3, low=1)
    hour_rollups_days: int = setting(120, low=1)
    day_rollups_days: int = setting(1_100, low=1)
    flips_days: int = setting(400, low=90)


@dataclass(frozen=True, kw_only=True)
class JobsSettings:
    """Running jobs: who runs them, how many at once, what is taken in, how long it is kept."""

    run_jobs: bool = setting(True)  # `make run` starts one
    in_server: bool = setting(False, env="COLLECTOR_JOBS")  # the server's workers run jobs too
    min_workers: int = setting(1, env="COLLECTOR_JOBS_MIN_WORKERS", low=1, high=1000)
    max_workers: int = setting(16, env="COLLECTOR_JOBS_MAX_WORKERS", low=1, high=1000)
    poll_s: float = setting(1.0, env="COLLECTOR_JOBS_POLL_S", low=0.01, high=60)
    lease_s: float = setting(10.0, env="COLLECTOR_JOBS_LEASE_S", low=1, high=300)
    stop_s: float = setting(20.0, env="COLLECTOR_JOBS_STOP_S", low=0, high=3600)
    # Jobs that have not ended: POST /jobs answers 429 from capacity on, down to resume of it.
    capacity: int = setting(100_000, env="COLLECTOR_JOBS_CAPACITY", low=1)
    resume: float = setting(0.8, env="COLLECTOR_JOBS_RESUME", low=0.01, high=1)
    max_payload_bytes: int = setting(
        256 * KIB, env="COLLECTOR_JOBS_MAX_PAYLOAD_BYTES", low=KIB, high=16 * MIB
    )
    max_depth: int = setting(20, env="COLLECTOR_JOBS_MAX_DEPTH", low=2, high=100)
    max_result_bytes: int = setting(
        256 * KIB, env="COLLECTOR_JOBS_MAX_RESULT_BYTES", low=KIB, high=16 * MIB
    )
    # Dotted paths of functions that steps may run; a * stands for any name.
    handlers: tuple[str, ...] = setting(("jobs.examples.*",), env="COLLECTOR_JOBS_HANDLERS")
    # Networks (CIDR) that webhooks and redirects may, and that no call may go to.
    allow: tuple[str, ...] = setting((), env="COLLECTOR_JOBS_ALLOW")
    deny: tuple[str, ...] = setting((), env="COLLECTOR_JOBS_DENY")
    succeeded_days: int = setting(7, env="COLLECTOR_JOBS_SUCCEEDED_DAYS", low=1)
    dead_days: int = setting(90, env="COLLECTOR_JOBS_DEAD_DAYS", low=1)
    cancelled_days: int = setting(7, env="COLLECTOR_JOBS_CANCELLED_DAYS", low=1)
    minutes_days: int = setting(14, env="COLLECTOR_JOBS_MINUTES_DAYS", low=1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    server: ServerSettings = field(default_factory=ServerSettings)
    pipeline: PipelineSettings = field(default_factory=PipelineSettings)
    log: LogSettings = field(default_factory=LogSettings)
    ingest: IngestSettings = field(default_factory=IngestSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    databases: DatabaseSettings = field(default_factory=DatabaseSettings)
    sinks: SinksSettings = field(default_factory=SinksSettings)
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    jobs: JobsSettings = field(default_factory=JobsSettings)
    mistakes: tuple[Mistake, ...] = ()

    @property
    def wal_directory(self) -> Path:
        """Where the logs of this data directory's processes are."""
        return self.log.directory or self.server.data_dir / "wal"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def load(environ: Mapping[str, str], toml_path: Path | str | None = None) -> Settings:
    """Settings from `environ` over the TOML file over the defaults; mistakes are collected."""
    mistakes: list[Mistake] = []
    tables = _read_toml(toml_path, mistakes)
    concerns: dict[str, Any] = {}
    known: set[str] = set(OTHER_VARIABLES)
    hints = typing.get_type_hints(Settings)
    for concern in dataclasses.fields(Settings):
        if concern.name != "mistakes":
            table = tables.pop(concern.name, {})
            concerns[concern.name] = _Reader(concern.name, environ, mistakes, known).read(
                hints[concern.name], table, concern.name
            )
    mistakes.extend(_unknown_key(name, concerns, where="the configuration file") for name in tables)
    mistakes.extend(_unknown_variables(environ, known))
    settings = Settings(**concerns)
    mistakes.extend(_rules(settings))
    return dataclasses.replace(settings, mistakes=tuple(mistakes))


def _read_toml(path: Path | str | None, mistakes: list[Mistake]) -> dict[str, Any]:
    if not path:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        mistakes.append(
            Mistake(
                id="collector.E001",
                message=f"The configuration file {path} cannot be read: {error}",
                hint="Correct the file, or unset COLLECTOR_CONFIG to run on defaults.",
            )
        )
        return {}


_Concern = TypeVar("_Concern")


class _Reader:
    """Reads one concern's fields; a nested dataclass is a nested table and a longer name."""

    def __init__(
        self, concern: str, environ: Mapping[str, str], mistakes: list[Mistake], known: set[str]
    ) -> None:
        self._concern = concern
        self._environ = environ
        self._mistakes = mistakes
        self._known = known

    def read(self, cls: type[_Concern], table: object, path: str) -> _Concern:
        if not isinstance(table, dict):
            self._add("E002", f"[{path}] in the configuration file is not a table.", "Use a table.")
            table = {}
        hints = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for name, item in fields.items():
            if dataclasses.is_dataclass(hints[name]):
                nested = typing.cast("type[Any]", hints[name])
                values[name] = self.read(nested, table.get(name, {}), f"{path}.{name}")
                continue
            variable = item.metadata.get("env") or self._variable(path, name)
            self._known.add(variable)
            if variable in self._environ and self._environ[variable] != "":
                raw, source = self._environ[variable], variable
            elif name in table:
                raw, source = table[name], f"[{path}] {name}"
            else:
                continue
            try:
                values[name] = _within(coerce(hints[name], raw, name=name), item.metadata)
            except ValueError as error:
                shown = _shown(raw, secret=not item.repr)
                self._add("E003", f"{source}{shown}: {error}.", _remedy(item.default))
        for name in table.keys() - fields.keys():
            self._mistakes.append(_unknown_key(name, fields, where=f"[{path}]"))
        try:
            return cls(**values)
        except ValueError as error:
            self._add(
                "E004", f"[{path}]: {error}", "Correct these values so that they fit together."
            )
            return cls()

    def _variable(self, path: str, name: str) -> str:
        # Engine limits share names with those of requests, so they carry their table's name.
        prefix = path.replace(".", "_") + "_" if self._concern == "pipeline" else ""
        return f"COLLECTOR_{prefix}{name}".upper()

    def _add(self, number: str, message: str, hint: str) -> None:
        self._mistakes.append(Mistake(id=f"collector.{number}", message=message, hint=hint))


def _shown(raw: object, *, secret: bool) -> str:
    """The value as it was written, unless it may be a password, be it in the wrong variable."""
    quoted = ascii(raw)
    if secret or "://" in quoted or "@" in quoted or len(quoted) > MAX_SHOWN_CHARS:
        return ""
    return f" = {quoted}"


def _remedy(default: object) -> str:
    if default in ((), "", None, dataclasses.MISSING):
        return "Correct it, or unset it."
    shown = ",".join(default) if isinstance(default, tuple) else str(default)
    shown = shown.lower() if isinstance(default, bool) else shown
    return f"Correct it, or unset it to use the default, {shown}."


def _within(value: Any, limits: Mapping[str, Any]) -> Any:
    low, high = limits.get("low"), limits.get("high")
    if low is not None and value < low:
        raise ValueError(f"must be at least {low:g}")
    if high is not None and value > high:
        raise ValueError(f"must be at most {high:g}")
    if limits.get("choices") and value not in limits["choices"]:
        raise ValueError(f"must be one of {', '.join(limits['choices'])}")
    return value


def _unknown_key(name: str, known: Mapping[str, object], *, where: str) -> Mistake:
    near = difflib.get_close_matches(name, known, n=1)
    return Mistake(
        id="collector.E002",
        message=f"{where} has an unknown name: {name}.",
        hint=f"Did you mean {near[0]}?" if near else f"Known names: {', '.join(sorted(known))}.",
    )


def _unknown_variables(environ: Mapping[str, str], known: set[str]) -> Iterator[Mistake]:
    for name in sorted(environ):
        if name.startswith("COLLECTOR_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            yield Mistake(
                id="collector.W001",
                message=f"The environment variable {name} is not a setting of Collector.",
                hint=f"Did you mean {near[0]}?" if near else "See .env.example for all names.",
                fatal=False,
            )


def _rules(settings: Settings) -> Iterator[Mistake]:
    from control.config.rules import mistakes_across

    yield from mistakes_across(settings)
