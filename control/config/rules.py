"""Rules that hold between settings, each with a number of its own.

Pure functions over a loaded `Settings`; called once by `settings.load()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from control.config.settings import Mistake, Settings

DATABASE_SCHEMES = frozenset({"sqlite", "postgres", "postgresql", "pgsql"})


def mistakes_across(settings: Settings) -> Iterator[Mistake]:
    yield from _server_and_ingest(settings)
    yield from _log(settings)
    yield from _addresses(settings)
    yield from _jobs(settings)


def _server_and_ingest(settings: Settings) -> Iterator[Mistake]:
    from control.config.settings import Mistake

    server, ingest = settings.server, settings.ingest
    if server.reserved_threads >= server.threads:
        yield Mistake(
            id="collector.E010",
            message=f"reserved_threads ({server.reserved_threads}) leaves no thread of "
            f"{server.threads} to ingest.",
            hint="Raise COLLECTOR_THREADS or lower COLLECTOR_RESERVED_THREADS.",
        )
    if ingest.max_record_bytes > ingest.max_body_bytes:
        yield Mistake(
            id="collector.E011",
            message="max_record_bytes is larger than max_body_bytes: such a record never fits.",
            hint="Lower COLLECTOR_MAX_RECORD_BYTES or raise COLLECTOR_MAX_BODY_BYTES.",
        )
    if ingest.max_inflated_bytes < ingest.max_body_bytes:
        yield Mistake(
            id="collector.E012",
            message="max_inflated_bytes is smaller than max_body_bytes.",
            hint="A compressed body grows: raise COLLECTOR_MAX_INFLATED_BYTES.",
        )
    if ingest.gate_bytes < ingest.max_body_bytes + ingest.max_inflated_bytes:
        yield Mistake(
            id="collector.E013",
            message="gate_bytes cannot hold one request of the largest size, so it would be "
            "refused for ever.",
            hint="Raise COLLECTOR_GATE_BYTES to at least max_body_bytes + max_inflated_bytes.",
        )
    if not server.loopback and ingest.require_key == "never":
        yield Mistake(
            id="collector.E014",
            message=f"require_key is 'never' while the server listens on {server.host}: anyone "
            "who reaches it could write.",
            hint="Use COLLECTOR_REQUIRE_KEY=auto and make an API key in the admin.",
        )
    if not server.loopback and not server.allowed_hosts:
        yield Mistake(
            id="collector.W002",
            message=f"The server listens on {server.host} and answers to any Host name.",
            hint="Set COLLECTOR_ALLOWED_HOSTS to the names it is reached by.",
            fatal=False,
        )


def _log(settings: Settings) -> Iterator[Mistake]:
    from control.config.settings import Mistake

    log, ingest, pipeline = settings.log, settings.ingest, settings.pipeline
    if log.max_bytes < ingest.max_inflated_bytes + 2 * log.segment_bytes:
        yield Mistake(
            id="collector.E017",
            message=f"The log's max_bytes ({log.max_bytes}) cannot hold two segments and one "
            "request of the largest size, so it would be refused for ever.",
            hint="Raise COLLECTOR_WAL_MAX_BYTES, or lower COLLECTOR_WAL_SEGMENT_BYTES or "
            "COLLECTOR_MAX_INFLATED_BYTES.",
        )
    if log.segment_bytes % 8:
        yield Mistake(
            id="collector.E019",
            message=f"The log's segment_bytes ({log.segment_bytes}) is not a multiple of 8.",
            hint="Frames are aligned to 8 bytes: use a size such as 16MiB.",
        )
    if log.cache_bytes < pipeline.max_bytes:
        yield Mistake(
            id="collector.E018",
            message=f"The log's cache_bytes ({log.cache_bytes}) cannot hold one batch of "
            f"{pipeline.max_bytes} bytes: every batch would be read back from the disk.",
            hint="Raise COLLECTOR_WAL_CACHE_BYTES or lower COLLECTOR_PIPELINE_MAX_BYTES.",
        )
    if log.max_bytes < pipeline.backlog_max_bytes:
        yield Mistake(
            id="collector.W003",
            message=f"The log's max_bytes ({log.max_bytes}) is less than what one sink may leave "
            f"in it ({pipeline.backlog_max_bytes}): the whole log is full before a sink's share "
            "is, and then every sink refuses.",
            hint="Raise COLLECTOR_WAL_MAX_BYTES or lower COLLECTOR_PIPELINE_BACKLOG_MAX_BYTES.",
            fatal=False,
        )
    if log.fsync != "group" and ingest.default_ack == "wal":
        yield Mistake(
            id="collector.W004",
            message=f"With fsync = {log.fsync!r} an answer does not wait for the disk: it says "
            "'wal-unsynced', and a power cut may lose what it acknowledged.",
            hint="Use COLLECTOR_WAL_FSYNC=group, or COLLECTOR_DEFAULT_ACK=memory or stored to "
            "say that this is meant.",
            fatal=False,
        )


def _addresses(settings: Settings) -> Iterator[Mistake]:
    from control.config.settings import Mistake

    databases = settings.databases
    if settings.tracing.otlp_endpoint and urlsplit(settings.tracing.otlp_endpoint).scheme not in (
        "http",
        "https",
    ):
        yield Mistake(
            id="collector.E016",
            message="otlp_endpoint is not an http(s) URL.",
            hint="For example COLLECTOR_OTLP_ENDPOINT=http://127.0.0.1:4318/v1/traces",
        )
    for variable, url in (
        ("COLLECTOR_DATABASE_URL", databases.control),
        ("COLLECTOR_RECORDS_DATABASE_URL", databases.records),
    ):
        if url and _scheme(url) not in DATABASE_SCHEMES:
            yield Mistake(
                id="collector.E015",
                message=f"{variable} is not a SQLite or PostgreSQL URL.",
                hint="postgresql://user:password@host:5432/name, or sqlite:///directory. "
                "Correct it, or unset it to use SQLite in the data directory.",
            )


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


def _jobs(settings: Settings) -> Iterator[Mistake]:
    from control.config.settings import Mistake

    jobs = settings.jobs
    if jobs.min_workers > jobs.max_workers:
        yield Mistake(
            id="collector.E030",
            message=f"jobs: min_workers ({jobs.min_workers}) is more than max_workers "
            f"({jobs.max_workers}).",
            hint="Raise COLLECTOR_JOBS_MAX_WORKERS or lower COLLECTOR_JOBS_MIN_WORKERS.",
        )
