"""Owns: how fast the admin's lists of records are at 10,000 rows and at ten million.

`python -m benchmarks.admin_lists [--rows N] [--json]` starts a PostgreSQL of its own, fills the
product's own table by SQL, and fetches pages in this process through the whole of Django. Each page
of the large table is timed in turns with the first page of the small one; the database's share
stands beside it, since drawing a hundred rows costs the same at any size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.postgres import cluster

TABLE = "ingest_logrecord"
SMALL = 10_000
DAYS = 10
DEEP = 100_000
REPEATS = 9
SMALL_SCHEMA = "small"
LIST = "/admin/ingest/logrecord/"

# Rows spread evenly over the days of arrival; a rare word in one of 100,000, a service that has
# one row in 10,000; 20 services, 50,000 users.
FILL = """
INSERT INTO ingest_logrecord
    (id, timestamp, received_at, tenant, level, service, message, trace_id, span_id, payload)
SELECT
    ((%(start_ms)s + (n * %(span_ms)s) / %(rows)s - 1735689600000)::bigint << 22) + n %% 4096,
    at, at, 'default',
    (ARRAY['INFO','INFO','INFO','INFO','INFO','INFO','DEBUG','DEBUG','WARN','ERROR'])[1 + n %% 10],
    CASE WHEN n %% 10000 = 7 THEN 'rare' ELSE 'service-' || n %% 20 END,
    'order ' || n %% 100000 || ' of user ' || n %% 50000 || ' placed in ' || n %% 400 || ' ms'
        || CASE WHEN n %% 100000 = 99 THEN ' needle' ELSE '' END,
    md5((n / 5)::text), '',
    jsonb_build_object('message', 'order placed', 'n', n, 'http', jsonb_build_object('status', 200))
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n,
    LATERAL (SELECT to_timestamp((%(start_ms)s + (n * %(span_ms)s) / %(rows)s) / 1000.0) AS at) t
"""


@dataclass(frozen=True, kw_only=True)
class Timing:
    page_ms: float
    database_ms: float


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the large table")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    options = parser.parse_args(argv)
    say: Callable[[str], None] = (lambda words: None) if options.json else print
    with cluster() as url, tempfile.TemporaryDirectory(prefix="collector-bench-") as data_dir:
        start_django(url, data_dir)
        say(f"filling {SMALL:,} rows, set aside as the small table, then {options.rows:,} rows")
        began = time.monotonic()
        fill(SMALL)
        set_small_aside()
        fill(options.rows)
        say(f"filled and indexed in {time.monotonic() - began:.0f} s")
        result = measure(options.rows)
        close()
    if options.json:
        print(json.dumps({"rows": options.rows, "pages": result}, indent=2))
    else:
        print_table(result)
    return 0


def start_django(url: str, data_dir: str) -> None:
    os.environ |= {
        "COLLECTOR_DATABASE_URL": url,
        "COLLECTOR_DATA_DIR": data_dir,
        "COLLECTOR_ENV_FILE": os.devnull,
        "COLLECTOR_LOG_LEVEL": "WARNING",
        "DJANGO_SETTINGS_MODULE": "collector_site.settings",
    }
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    users = get_user_model().objects
    if not users.exists():
        users.create_superuser("admin", "", "benchmark")


def fill(rows: int) -> None:
    """Empty the table and fill it; the words index is built at the end, which is faster."""
    from django.db import connections

    from control.partitions import search, tables
    from control.partitions.days import partition_name

    connection = connections["records"]
    ends = datetime.now(UTC)
    starts = ends - timedelta(days=DAYS)
    days = [starts.date() + timedelta(days=n) for n in range(DAYS + 1)]
    tables.create(connection, TABLE, days)
    partitions = [partition_name(TABLE, day) for day in days]
    step = 250_000
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {TABLE}")
        for partition in partitions:
            cursor.execute(f"DROP INDEX IF EXISTS {search.index_name(partition)}")
        for first in range(0, rows, step):
            cursor.execute(
                FILL,
                {
                    "first": first,
                    "last": min(first + step, rows) - 1,
                    "rows": rows,
                    "start_ms": int(starts.timestamp() * 1000),
                    "span_ms": DAYS * 86_400_000,
                },
            )
        for partition in partitions:
            cursor.execute(search.create_sql(connection, partition, "message", concurrently=False))
        cursor.execute(f"VACUUM ANALYZE {TABLE}")


def _pages(rows: int) -> Iterator[tuple[str, str]]:
    from ingest.models import LogRecord

    yield "first page", LIST
    yield "first page, all that is kept", f"{LIST}?window=all"
    if rows > DEEP:
        key = LogRecord.objects.order_by("-id").values_list("id", flat=True)[DEEP]
        yield f"page {DEEP:,} rows deep (page 1,000)", f"{LIST}?window=all&before={key}"
    yield "oldest page", f"{LIST}?window=all&after=oldest"
    yield "level ERROR and above, 7 days", f"{LIST}?window=7d&level=min-ERROR"
    yield "a service with 1 row in 10,000, 24 hours", f"{LIST}?service=rare"
    yield "search a common word, 24 hours", f"{LIST}?q=placed"
    yield "search a rare word, 24 hours", f"{LIST}?q=needle"
    yield "search a rare word, 7 days", f"{LIST}?window=7d&q=needle"
    yield "search a word's beginning, 24 hours", f"{LIST}?q=needl"
    yield "search two words, 7 days", f"{LIST}?window=7d&q=12345+placed"
    yield "search a word that is absent, 7 days", f"{LIST}?window=7d&q=absent"
    yield "search inside words, 24 hours", f"{LIST}?q=~eedl"
    newest = LogRecord.objects.order_by("-id").values_list("id", flat=True)[0]
    yield "the page of a record", f"{LIST}{newest}/change/"


def set_small_aside() -> None:
    """The table as it is, copied into a schema of its own with the same indexes."""
    from django.db import connections

    from control.partitions import search

    connection = connections["records"]
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {SMALL_SCHEMA}")
        cursor.execute(f"CREATE TABLE {SMALL_SCHEMA}.{TABLE} (LIKE public.{TABLE} INCLUDING ALL)")
        cursor.execute(f"INSERT INTO {SMALL_SCHEMA}.{TABLE} SELECT * FROM public.{TABLE}")
        cursor.execute(f"SET search_path = {SMALL_SCHEMA}, public")
        cursor.execute(search.create_sql(connection, TABLE, "message", concurrently=False))
        cursor.execute(f"VACUUM ANALYZE {SMALL_SCHEMA}.{TABLE}")
        cursor.execute("SET search_path = public")


def measure(rows: int) -> dict[str, dict[str, float]]:
    """Each page in turns with the small table's first page: what slows the machine slows both."""
    from django.contrib.auth import get_user_model
    from django.test import Client

    client = Client(headers={"host": "localhost"})
    client.force_login(get_user_model().objects.get(username="admin"))
    result = {}
    for name, path in _pages(rows):
        small, large = [], []
        for attempt in range(REPEATS + 1):
            one = _time(client, LIST, schema=SMALL_SCHEMA)
            other = _time(client, path, schema="public")
            if attempt:  # the first fills the database's memory and the templates' cache
                small.append(one)
                large.append(other)
        result[name] = {
            "small_first_page_ms": _median(small, "page_ms"),
            "small_first_page_database_ms": _median(small, "database_ms"),
            "page_ms": _median(large, "page_ms"),
            "database_ms": _median(large, "database_ms"),
            "ratio": round(
                statistics.median(
                    other.page_ms / one.page_ms for one, other in zip(small, large, strict=True)
                ),
                2,
            ),
        }
    return result


def _median(timings: list[Timing], name: str) -> float:
    return round(statistics.median(getattr(one, name) for one in timings), 1)


def _time(client: Any, path: str, *, schema: str) -> Timing:
    from django.db import connections

    with connections["records"].cursor() as cursor:
        cursor.execute(f"SET search_path = {schema}, public")
    try:
        with _database_seconds() as spent:
            began = time.perf_counter()
            response = client.get(path)
            response.content  # noqa: B018 - the page is drawn when its content is asked for
            seconds = time.perf_counter() - began
    finally:
        with connections["records"].cursor() as cursor:
            cursor.execute("SET search_path = public")
    if response.status_code != 200:
        raise RuntimeError(f"{path} answered {response.status_code}")
    return Timing(page_ms=seconds * 1000, database_ms=sum(spent) * 1000)


@contextmanager
def _database_seconds() -> Iterator[list[float]]:
    from django.db import connections

    spent: list[float] = []

    def timed(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            spent.append(time.perf_counter() - began)

    with connections["records"].execute_wrapper(timed):
        yield spent


def close() -> None:
    from django.db import connections

    connections.close_all()


def print_table(result: dict[str, dict[str, float]]) -> None:
    print("ms a page, of which (ms in the database); ratio to the small table's first page")
    print(f"{'page of the large table':44} {'small, first':>16} {'large':>16} {'ratio':>6}")
    for name, row in result.items():
        small = f"{row['small_first_page_ms']} ({row['small_first_page_database_ms']})"
        large = f"{row['page_ms']} ({row['database_ms']})"
        print(f"{name:44} {small:>16} {large:>16} {row['ratio']:6.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
