"""Day partitions on a real PostgreSQL: made, listed, dropped, indexed, raced for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connections

from control.partitions import on_demand, search, upkeep
from control.partitions import tables as partition_tables
from control.partitions.days import (
    day_of,
    day_of_partition,
    days_between,
    id_range,
    partition_name,
)
from control.ports.tables import Column, TableSpec, register_table, tables, unregister_table
from pipeline.ids import first_id_at

TABLE = "shelf"
TODAY = date(2026, 11, 21)


@pytest.fixture
def connection(pg_alias: str) -> Iterator[Any]:
    connection = connections[pg_alias]
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {TABLE} (id bigint PRIMARY KEY, at timestamptz, message text NOT NULL) "
            "PARTITION BY RANGE (id)"
        )
        cursor.execute(f"CREATE INDEX ON {TABLE} USING brin (at)")
    on_demand.forget(TABLE, using=pg_alias)
    yield connection
    on_demand.forget(TABLE, using=pg_alias)


@pytest.fixture
def only_shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    others = tables()
    for spec in others:
        unregister_table(spec.record_type)
    register_table(
        TableSpec(
            record_type="shelf",
            table=TABLE,
            columns=(Column("id", "int8"), Column("message", "text")),
            rows=lambda part: [],
        )
    )
    yield
    unregister_table("shelf")
    for spec in others:
        register_table(spec)


@pytest.fixture
def policy(settings: Any) -> Any:
    def choose(name: str, days: int = 30) -> None:
        kept = replace(settings.COLLECTOR.retention, search_index=name, records_days=days)
        settings.COLLECTOR = replace(settings.COLLECTOR, retention=kept)

    return choose


def an_id(day: date, hour: int = 12) -> int:
    at = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
    return first_id_at(int(at.timestamp()) * 1_000_000)


def insert(connection: Any, day: date, message: str = "hello") -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {TABLE} VALUES (%s, now(), %s)", [an_id(day), message])


def names(connection: Any) -> list[str]:
    return [partition.name for partition in partition_tables.listing(connection, TABLE)]


def indexed(connection: Any) -> dict[date, bool]:
    return {p.day: p.search_index for p in partition_tables.listing(connection, TABLE)}


# --- days ------------------------------------------------------------------------------------


def test_a_day_is_a_range_of_ids() -> None:
    first, end = id_range(TODAY)
    assert day_of(first) == TODAY
    assert day_of(end - 1) == TODAY
    assert day_of(first - 1) == TODAY - timedelta(days=1)
    assert day_of(end) == TODAY + timedelta(days=1)
    assert list(days_between(first, end)) == [TODAY, TODAY + timedelta(days=1)]


def test_names_tell_their_day_and_fit() -> None:
    name = partition_name("ingest_logrecord", TODAY)
    assert name == "ingest_logrecord_p20261121"
    assert day_of_partition(name) == TODAY
    long, longer = "x" * 63, "x" * 62 + "y"
    assert len(partition_name(long, TODAY)) <= 63
    assert partition_name(long, TODAY) != partition_name(longer, TODAY)
    assert day_of_partition("ingest_logrecord") is None
    assert day_of_partition("shelf_p20269999") is None


# --- made ------------------------------------------------------------------------------------


def test_rows_are_taken_once_their_day_is_ensured(connection: Any, pg_alias: str) -> None:
    with pytest.raises(Exception, match="no partition"):
        insert(connection, TODAY)
    on_demand.ensure_range(TABLE, an_id(TODAY), an_id(TODAY + timedelta(days=1)), using=pg_alias)
    insert(connection, TODAY)
    insert(connection, TODAY + timedelta(days=1))
    assert names(connection) == ["shelf_p20261121", "shelf_p20261122"]


def test_a_partition_has_the_parents_indexes(connection: Any, pg_alias: str) -> None:
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'shelf_p20261121'")
        definitions = " ".join(row[0] for row in cursor.fetchall())
        # Attached, so that the parent's indexes are whole and dropping them drops these.
        cursor.execute(
            "SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'shelf'::regclass"
        )
        assert cursor.fetchone()[0] is True
    assert "btree (id)" in definitions
    assert "brin (at)" in definitions


def test_the_second_ensure_asks_no_database(connection: Any, pg_alias: str) -> None:
    on_demand.ensure_range(TABLE, an_id(TODAY), an_id(TODAY), using=pg_alias)

    def refuse(*args: Any) -> Any:
        raise AssertionError("the database was asked")

    with connection.execute_wrapper(refuse):
        on_demand.ensure_range(TABLE, an_id(TODAY, 1), an_id(TODAY, 23), using=pg_alias)
        with pytest.raises(AssertionError):
            on_demand.ensure_range(
                TABLE, an_id(TODAY), an_id(TODAY + timedelta(days=1)), using=pg_alias
            )


def test_a_day_that_was_dropped_elsewhere_is_made_again(connection: Any, pg_alias: str) -> None:
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    partition_tables.drop_before(connection, TABLE, TODAY + timedelta(days=1))
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    insert(connection, TODAY)


def test_ids_of_a_nonsensical_span_are_refused(connection: Any, pg_alias: str) -> None:
    with pytest.raises(ValueError, match="span more than"):
        on_demand.ensure_range(TABLE, 0, first_id_at(9_000_000_000_000_000), using=pg_alias)
    assert names(connection) == []


@pytest.mark.concurrency
def test_threads_that_ensure_the_same_days_agree(connection: Any, pg_alias: str) -> None:
    days = [TODAY + timedelta(days=ahead) for ahead in range(5)]
    start, failures = threading.Barrier(6), []

    def work() -> None:
        try:
            start.wait(180)
            for day in days:
                on_demand.ensure(TABLE, day, using=pg_alias)
        except Exception as error:
            failures.append(error)
        finally:
            connections[pg_alias].close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert failures == []
    assert names(connection) == [partition_name(TABLE, day) for day in days]


def test_attaching_does_not_wait_for_readers_or_writers(connection: Any, pg_alias: str) -> None:
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    done, go = threading.Event(), threading.Event()

    def write_and_hold() -> None:
        other = connections[pg_alias]
        try:
            with other.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(f"INSERT INTO {TABLE} VALUES (%s, now(), 'x')", [an_id(TODAY)])
                cursor.execute(f"SELECT count(*) FROM {TABLE}")
                done.set()
                go.wait(180)
                cursor.execute("COMMIT")
        finally:
            other.close()

    holder = threading.Thread(target=write_and_hold)
    holder.start()
    try:
        assert done.wait(180)
        # Would run into the lock timeout if it needed the table for itself.
        on_demand.ensure(TABLE, TODAY + timedelta(days=1), using=pg_alias)
        insert(connection, TODAY + timedelta(days=1))
    finally:
        go.set()
        holder.join(180)


# --- dropped and listed ----------------------------------------------------------------------


def test_retention_drops_whole_days_and_nothing_else(connection: Any, pg_alias: str) -> None:
    days = [TODAY - timedelta(days=back) for back in (3, 2, 1, 0)]
    for day in days:
        on_demand.ensure(TABLE, day, using=pg_alias)
        insert(connection, day)
    dropped = partition_tables.drop_before(connection, TABLE, days[2])
    assert [partition.day for partition in dropped] == days[:2]
    assert [p.day for p in partition_tables.listing(connection, TABLE)] == days[2:]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {TABLE}")
        assert cursor.fetchone()[0] == 2
        cursor.execute("SELECT to_regclass(%s)", [partition_name(TABLE, days[0])])
        assert cursor.fetchone()[0] is None


def test_a_drop_killed_half_way_is_completed(connection: Any, pg_alias: str) -> None:
    old = TODAY - timedelta(days=9)
    on_demand.ensure(TABLE, old, using=pg_alias)
    name = partition_name(TABLE, old)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {name}")
        cursor.execute("CREATE TABLE shelf_notes (id bigint)")
    partition_tables.drop_before(connection, TABLE, TODAY)
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s), to_regclass('shelf_notes')", [name])
        partition, other = cursor.fetchone()
    assert partition is None
    assert other == "shelf_notes"


def test_a_detached_day_is_taken_back_with_its_rows(connection: Any, pg_alias: str) -> None:
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    insert(connection, TODAY, "kept")
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {partition_name(TABLE, TODAY)}")
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT message FROM {TABLE}")
        assert cursor.fetchall() == [("kept",)]


def test_who_drops_already_is_left_to_it(connection: Any, pg_alias: str) -> None:
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    taken, go = threading.Event(), threading.Event()

    def hold() -> None:
        other = connections[pg_alias]
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [partition_tables._lock_key(TABLE)])
            taken.set()
            go.wait(180)
        other.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(180)
    assert partition_tables.drop_before(connection, TABLE, TODAY + timedelta(days=9)) == []
    go.set()
    holder.join(180)
    assert len(names(connection)) == 1


class Reader:
    """Somebody who reads the table in a transaction that does not end."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._reading, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._reading.wait(180)

    def __exit__(self, *error: object) -> None:
        self._go.set()
        self._thread.join(180)

    def _read(self) -> None:
        connection = connections[self._alias]
        try:
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(f"SELECT count(*) FROM {TABLE}")
                self._reading.set()
                self._go.wait(180)
                cursor.execute("COMMIT")
        finally:
            connection.close()


def test_a_drop_that_waits_for_a_reader_holds_up_nobody(connection: Any, pg_alias: str) -> None:
    old = TODAY - timedelta(days=9)
    for day in (old, TODAY):
        on_demand.ensure(TABLE, day, using=pg_alias)

    def drop() -> None:
        other = connections[pg_alias]
        try:
            # Whether it succeeds in the end depends on how long the reader takes.
            with contextlib.suppress(OperationalError):
                partition_tables.drop_before(other, TABLE, TODAY)
        finally:
            other.close()

    def waiting() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE%%DETACH%%'"
            )
            return bool(cursor.fetchone()[0])

    dropper = threading.Thread(target=drop)
    with Reader(pg_alias):
        dropper.start()
        while dropper.is_alive() and not waiting():
            pass
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = 200")
        insert(connection, TODAY)
    dropper.join(180)


@pytest.mark.usefixtures("only_shelf")
def test_a_day_in_use_is_dropped_later(
    connection: Any,
    pg_alias: str,
    policy: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy("off", days=5)
    monkeypatch.setattr(partition_tables, "DROP_LOCK_TIMEOUT_MS", 50)
    on_demand.ensure(TABLE, TODAY - timedelta(days=9), using=pg_alias)
    with Reader(pg_alias):
        upkeep.run(today=TODAY, using=pg_alias)
    assert "dropped later" in caplog.text
    upkeep.run(today=TODAY, using=pg_alias)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'shelf_p%%' AND relkind = 'r'"
        )
        assert len(cursor.fetchall()) == 3


def test_the_listing_tells_sizes_and_estimates(connection: Any, pg_alias: str) -> None:
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {TABLE} SELECT %s + n, now(), 'm' FROM generate_series(1, 500) n",
            [an_id(TODAY)],
        )
        cursor.execute(f"ANALYZE {TABLE}")
    (partition,) = partition_tables.listing(connection, TABLE)
    assert partition.rows == 500
    assert partition.total_bytes > 8192
    assert (partition.first_id, partition.end_id) == id_range(TODAY)


# --- upkeep and the search index -------------------------------------------------------------


@pytest.mark.usefixtures("only_shelf")
def test_upkeep_makes_days_ahead_and_drops_old_ones(
    connection: Any, pg_alias: str, policy: Any
) -> None:
    policy("live", days=2)
    for back in (4, 3, 2):
        on_demand.ensure(TABLE, TODAY - timedelta(days=back), using=pg_alias)
    upkeep.run(today=TODAY, using=pg_alias)
    assert [p.day - TODAY for p in partition_tables.listing(connection, TABLE)] == [
        timedelta(days=days) for days in (-2, 0, 1, 2)
    ]


@pytest.mark.usefixtures("only_shelf")
def test_live_indexes_are_there_from_the_start_and_used(
    connection: Any, pg_alias: str, policy: Any
) -> None:
    policy("live")
    upkeep.run(today=TODAY, using=pg_alias)
    assert set(indexed(connection).values()) == {True}
    assert upkeep.index_changes(today=TODAY, using=pg_alias) == []
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {TABLE} SELECT %s + n, now(), 'word' || n "
            "FROM generate_series(1, 5000) n",
            [an_id(TODAY)],
        )
        cursor.execute(f"ANALYZE {TABLE}")
        cursor.execute(
            f"EXPLAIN SELECT * FROM {TABLE} WHERE id >= %s AND id < %s "
            f"AND {search.words_expression('message')} @@ plainto_tsquery('simple', 'word77')",
            id_range(TODAY),
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert search.index_name(partition_name(TABLE, TODAY)) in plan
    assert partition_name(TABLE, TODAY + timedelta(days=1)) not in plan


@pytest.mark.usefixtures("only_shelf")
def test_closed_indexes_come_when_the_day_is_over(
    connection: Any, pg_alias: str, policy: Any
) -> None:
    policy("closed")
    yesterday = TODAY - timedelta(days=1)
    for day in (yesterday, TODAY):
        on_demand.ensure(TABLE, day, using=pg_alias)
    assert set(indexed(connection).values()) == {False}
    changes = upkeep.index_changes(today=TODAY, using=pg_alias)
    assert changes == [("build", partition_name(TABLE, yesterday), "message")]
    assert upkeep.apply_index_changes(changes, using=pg_alias) == 1
    assert indexed(connection) == {yesterday: True, TODAY: False}


@pytest.mark.usefixtures("only_shelf")
def test_off_takes_the_index_from_days_still_written(
    connection: Any, pg_alias: str, policy: Any
) -> None:
    policy("live")
    yesterday = TODAY - timedelta(days=1)
    for day in (yesterday, TODAY):
        on_demand.ensure(TABLE, day, using=pg_alias)
    policy("off")
    upkeep.apply_index_changes(upkeep.index_changes(today=TODAY, using=pg_alias), using=pg_alias)
    assert indexed(connection) == {yesterday: True, TODAY: False}
    on_demand.ensure(TABLE, TODAY + timedelta(days=1), using=pg_alias)
    assert indexed(connection)[TODAY + timedelta(days=1)] is False


@pytest.mark.usefixtures("only_shelf")
def test_a_broken_index_is_built_anew(connection: Any, pg_alias: str, policy: Any) -> None:
    policy("off")
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    policy("live")
    name = partition_name(TABLE, TODAY)
    search.build(connection, name, "message")
    with connection.cursor() as cursor:
        # What a killed concurrent build leaves.
        cursor.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
            [search.index_name(name)],
        )
    assert search.state(connection, name) == "broken"
    changes = upkeep.index_changes(today=TODAY, using=pg_alias)
    assert changes == [("build", name, "message")]
    upkeep.apply_index_changes(changes, using=pg_alias)
    assert search.state(connection, name) == "valid"


@pytest.mark.usefixtures("only_shelf")
def test_an_index_of_a_vanished_partition_costs_nothing_else(
    connection: Any, pg_alias: str, policy: Any
) -> None:
    policy("off")
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    changes = [
        ("build", "shelf_p20200101", "message"),
        ("build", partition_name(TABLE, TODAY), "message"),
    ]
    assert upkeep.apply_index_changes(changes, using=pg_alias) == 1
    assert indexed(connection) == {TODAY: True}


# --- plain tables ----------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.usefixtures("only_shelf")
def test_old_rows_of_a_plain_table_are_deleted_in_chunks(policy: Any) -> None:
    policy("live", days=5)
    connection = connections["records"]
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {TABLE} (id bigint PRIMARY KEY, message text)")
        old, new = an_id(TODAY - timedelta(days=6)), an_id(TODAY - timedelta(days=5))
        rows = [(old + n, "old") for n in range(2_500)] + [(new, "new")]
        cursor.executemany(f"INSERT INTO {TABLE} VALUES (%s, %s)", rows)
    chunks: list[int] = []
    deleted = upkeep.delete_before(TABLE, upkeep.oldest_kept(TODAY), progress=chunks.append)
    assert deleted == 2_500
    assert chunks == [1_000, 1_000, 500]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT message FROM {TABLE}")
        assert cursor.fetchall() == [("new",)]
    assert upkeep.partitions(TABLE) == []
    on_demand.ensure(TABLE, TODAY)
    on_demand.forget(TABLE)


@pytest.mark.usefixtures("only_shelf")
def test_upkeep_builds_missing_indexes_on_a_thread_of_its_own(
    connection: Any, pg_alias: str, policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy("off")
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    policy("live")
    built = threading.Event()
    build = upkeep._build

    def build_and_tell(*args: Any) -> None:
        build(*args)
        built.set()

    monkeypatch.setattr(upkeep, "_build", build_and_tell)
    upkeep.run(today=TODAY, using=pg_alias)
    assert built.wait(180)
    assert set(indexed(connection).values()) == {True}
    assert not upkeep._building.locked()


@pytest.mark.django_db
@pytest.mark.usefixtures("only_shelf")
def test_upkeep_leaves_plain_tables_to_the_pruning(policy: Any) -> None:
    policy("live", days=1)
    connection = connections["records"]
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {TABLE} (id bigint PRIMARY KEY, message text)")
        cursor.execute(f"INSERT INTO {TABLE} VALUES (1, 'old')")
    upkeep.run(today=TODAY)
    upkeep.ping()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {TABLE}")
        assert cursor.fetchone()[0] == 1
    upkeep.prune_rows(today=TODAY)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {TABLE}")
        assert cursor.fetchone()[0] == 0


@pytest.mark.django_db
def test_deleting_stops_when_told() -> None:
    connection = connections["records"]
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {TABLE} (id bigint PRIMARY KEY)")
        cursor.executemany(f"INSERT INTO {TABLE} VALUES (%s)", [(n,) for n in range(3_000)])
    turns = iter([True, False])
    assert upkeep.delete_before(TABLE, TODAY, go_on=lambda: next(turns)) == 1_000


@pytest.mark.usefixtures("only_shelf")
@pytest.mark.parametrize("name", ["live", "off"])
def test_an_index_on_the_whole_text_goes(
    connection: Any, pg_alias: str, policy: Any, name: str
) -> None:
    policy("off")
    on_demand.ensure(TABLE, TODAY, using=pg_alias)
    partition = partition_name(TABLE, TODAY)
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE INDEX {search.index_name(partition)} ON {partition} "
            "USING gin (to_tsvector('simple', message))"
        )
    assert indexed(connection) == {TODAY: False}
    policy(name)
    upkeep.apply_index_changes(upkeep.index_changes(today=TODAY, using=pg_alias), using=pg_alias)
    assert search.state(connection, partition) == {"live": "valid", "off": "missing"}[name]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {TABLE} SELECT %s, now(), string_agg('word' || n, ' ') "
            "FROM generate_series(1, 200000) n",
            [an_id(TODAY)],
        )
