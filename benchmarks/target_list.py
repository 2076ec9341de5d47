"""Owns: how long a page of the list of 5,000 targets takes, on SQLite and on PostgreSQL.

`python -m benchmarks.target_list [--targets N] [--days N] [--sqlite | --postgresql] [--json]` makes
an installation of its own, fills it with targets, states, 90 days of flips, rollups and results,
and fetches pages in this process through the whole of Django.  In turns with them it fetches a
plain list of a hundred rows of the same table with as many columns: what the admin itself costs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

from benchmarks.postgres import cluster

LIST = "/admin/healthmon/target/"
PLAIN = "/admin/benchmark/"
REPEATS = 15
FLIPS = 40
MINUTES = 70
RESULTS = 3
CHUNK = 2_000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=5_000)
    parser.add_argument("--days", type=int, default=30, help="days of hour and day rollups")
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    options = parser.parse_args(argv)
    say: Callable[[str], None] = (lambda words: None) if options.json else print
    database: Any = cluster() if options.postgresql else nullcontext("")
    with database as url, tempfile.TemporaryDirectory(prefix="collector-bench-") as data_dir:
        start_django(url, data_dir)
        began = time.monotonic()
        fill(options.targets, options.days)
        say(f"{options.targets:,} targets with history made in {time.monotonic() - began:.0f} s")
        found = measure(options.targets)
        close()
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for name, figures in found["pages"].items():
            print(
                f"{name:<22} {figures['ms']:7.1f} ms, of processor {figures['cpu_ms']:6.1f} ms: "
                f"{figures['ratio']:4.2f} x plain; {figures['queries']:2} queries in "
                f"{figures['database_ms']:5.1f} ms"
            )
    return 0


def start_django(url: str, data_dir: str) -> None:
    os.environ |= {
        "COLLECTOR_DATA_DIR": data_dir,
        "COLLECTOR_ENV_FILE": os.devnull,
        "COLLECTOR_LOG_LEVEL": "ERROR",
        "DJANGO_SETTINGS_MODULE": "collector_site.settings",
    }
    if url:
        os.environ["COLLECTOR_DATABASE_URL"] = url
    else:
        os.environ.pop("COLLECTOR_DATABASE_URL", None)
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    settings.ALLOWED_HOSTS = ["*"]
    call_command("migrate", verbosity=0)
    if not url:
        call_command("migrate", database="records", verbosity=0)
    _register_plain_list()


def _register_plain_list() -> None:
    """A stock list of the same rows, at an address of its own."""
    from django.contrib import admin
    from django.urls import path

    from collector_site import urls
    from healthmon.targets.models import Target

    class PlainAdmin(admin.ModelAdmin[Any]):
        list_display = ("name", "address", "kind", "interval_s", "timeout_s", "severity", "group")
        list_select_related = ("group",)
        list_per_page = 100
        show_full_result_count = False
        ordering = ("name",)

    plain = PlainAdmin(Target, admin.site)
    urls.urlpatterns.insert(0, path(PLAIN[1:], admin.site.admin_view(plain.changelist_view)))


def fill(count: int, days: int) -> None:
    from django.db import connections
    from django.utils import timezone

    from control.partitions import days as partition_days
    from control.partitions import tables
    from healthmon import models
    from healthmon.history.histogram import Histogram
    from healthmon.targets.models import SLOTS
    from pipeline.ids import first_id_at

    now = timezone.now().replace(second=0, microsecond=0)
    hour = now.replace(minute=0)
    day = hour.replace(hour=0)
    tags = models.Tag.objects.bulk_create(models.Tag(name=f"tag-{n}") for n in range(40))
    groups = models.TargetGroup.objects.bulk_create(
        models.TargetGroup(name=f"group-{n}") for n in range(10)
    )
    targets = models.Target.objects.bulk_create(
        (
            models.Target(
                name=f"service-{n:05}.example.test", group=groups[n % 10],
                address=f"https://service-{n:05}.example.test/health",
            )
            for n in range(count)
        ),
        batch_size=CHUNK,
    )  # fmt: skip
    through: Any = models.Target.tags.through
    through.objects.bulk_create(
        (
            through(target_id=target.pk, tag_id=tags[(target.pk + k) % 40].pk)
            for target in targets
            for k in (0, 7, 19)
        ),
        batch_size=CHUNK,
    )
    words = ("up",) * 17 + ("down", "degraded", "unknown")
    models.TargetState.objects.bulk_create(
        (
            models.TargetState(
                target=target, status=words[n % 20], since=now - timedelta(hours=n % 50), seq=FLIPS
            )
            for n, target in enumerate(targets)
        ),
        batch_size=CHUNK,
    )
    models.Flip.objects.bulk_create(
        (
            models.Flip(
                target=target, seq=seq, from_status=("up", "down")[seq % 2],
                to_status=("down", "up")[seq % 2],
                at=now - timedelta(days=90 * (FLIPS - seq + 0.3) / FLIPS),
            )
            for target in targets
            for seq in range(1, FLIPS + 1)
        ),
        batch_size=CHUNK,
    )  # fmt: skip
    for slot in range(SLOTS):
        models.ProbeSlot.objects.create(
            slot=slot, holder="one", epoch=1, expires_at=now + timedelta(hours=1)
        )
    latencies = [10.0 * (1 + n / 20) for n in range(60)]
    histogram = Histogram.of(latencies).to_bytes()

    def rollups() -> Iterator[Any]:
        spans = [(60, now - timedelta(minutes=n)) for n in range(1, MINUTES)]
        spans += [(3600, hour - timedelta(hours=n)) for n in range(1, 27)]
        spans += [(86_400, day - timedelta(days=n)) for n in range(1, days)]
        for span_s, start in spans:
            for target in targets:
                yield models.Rollup(
                    target_id=target.pk, span_s=span_s, start=start, ok=60,
                    latency_sum_ms=sum(latencies), latency_max_ms=max(latencies),
                    histogram=histogram,
                )  # fmt: skip

    models.Rollup.objects.bulk_create(rollups(), batch_size=CHUNK)
    first = int((now - timedelta(minutes=2)).timestamp() * 1e6)
    results = [
        models.ProbeResult(
            id=first_id_at(first + k * 30_000_000) + n, timestamp=now, target_id=target.pk,
            outcome="ok", latency_ms=12.0, connect_ms=1.0, first_byte_ms=8.0, code=200,
        )
        for k in range(RESULTS)
        for n, target in enumerate(targets)
    ]  # fmt: skip
    wanted = list(partition_days.days_between(results[0].pk, results[-1].pk))
    tables.create(connections["records"], models.ProbeResult._meta.db_table, wanted)
    models.ProbeResult.objects.bulk_create(results, batch_size=CHUNK)
    for alias in ("default", "records"):
        with connections[alias].cursor() as cursor:
            cursor.execute("ANALYZE")


def measure(count: int) -> dict[str, Any]:
    from django.contrib.auth import get_user_model
    from django.test import Client

    users: Any = get_user_model()
    client = Client()
    client.force_login(users.objects.create_superuser("bench", "", "x"))
    last = (count - 1) // 100 + 1
    pages = {
        "plain list, 100 rows": PLAIN,
        "first page": LIST,
        "a page in the middle": f"{LIST}?p={max(last // 2, 1)}",
        "last page": f"{LIST}?p={last}",
        "down": f"{LIST}?status=down",
        "one tag": f"{LIST}?tag=tag-3",
        "search": f"{LIST}?q=service-0123",
    }
    times: dict[str, list[float]] = {name: [] for name in pages}
    cpu: dict[str, list[float]] = {name: [] for name in pages}
    queries: dict[str, tuple[int, float]] = {}
    for turn in range(REPEATS + 2):
        for name, address in pages.items():
            with counted() as seen:
                began, used = time.perf_counter(), time.process_time()
                response = client.get(address)
                took, used = time.perf_counter() - began, time.process_time() - used
            if response.status_code != 200:
                raise RuntimeError(f"{address} answered {response.status_code}")
            if turn >= 2:  # the first turns fill caches
                times[name].append(took * 1000)
                cpu[name].append(used * 1000)
                queries[name] = (len(seen), sum(seen) * 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    plain = medians["plain list, 100 rows"]
    return {
        "targets": count,
        "pages": {
            name: {
                "ms": round(median, 1),
                "cpu_ms": round(statistics.median(cpu[name]), 1),
                "worst_ms": round(max(times[name]), 1),
                "ratio": round(median / plain, 2),
                "queries": queries[name][0],
                "database_ms": round(queries[name][1], 1),
            }
            for name, median in medians.items()
        },
    }


@contextmanager
def counted() -> Iterator[list[float]]:
    """The seconds of each query of both databases meanwhile."""
    from django.db import connections

    seen: list[float] = []

    def watch(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            seen.append(time.perf_counter() - began)

    with (
        connections["default"].execute_wrapper(watch),
        connections["records"].execute_wrapper(watch),
    ):
        yield seen


def close() -> None:
    from django.db import connections

    connections.close_all()


if __name__ == "__main__":
    raise SystemExit(main())
