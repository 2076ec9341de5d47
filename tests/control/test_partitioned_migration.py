"""The migration operation: a partitioned table on PostgreSQL, the same model plain on SQLite."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connections, models
from django.db.migrations.state import ProjectState

from control.partitions import partitions
from control.partitions.operations import CreatePartitionedModel
from pipeline.ids import first_id_at


@pytest.fixture
def operation() -> CreatePartitionedModel:
    return CreatePartitionedModel(
        name="Shelf",
        fields=[
            ("id", models.BigIntegerField(primary_key=True)),
            ("timestamp", models.DateTimeField()),
            ("message", models.TextField()),
        ],
        options={"indexes": [models.Index(fields=["timestamp"], name="control_shelf_ts")]},
    )


def apply(operation: CreatePartitionedModel, alias: str) -> Any:
    before, after = ProjectState(), ProjectState()
    operation.state_forwards("sinks", after)
    with connections[alias].schema_editor() as editor:
        operation.database_forwards("sinks", editor, before, after)
    return before, after


def an_id() -> int:
    return first_id_at(int(datetime.now(UTC).timestamp() * 1_000_000))


@pytest.fixture
def routed(settings: Any) -> None:
    """Let the app migrate in whatever database the test has made."""
    settings.DATABASE_ROUTERS = []


@pytest.mark.usefixtures("routed")
def test_partitioned_on_postgresql(operation: CreatePartitionedModel, pg_alias: str) -> None:
    before, after = apply(operation, pg_alias)
    shelf = after.apps.get_model("sinks", "Shelf")
    shelf.objects.using(pg_alias).create(id=an_id(), timestamp=datetime.now(UTC), message="m")
    found = partitions("sinks_shelf", using=pg_alias)
    assert len(found) == 3
    with connections[pg_alias].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_indexes WHERE tablename LIKE 'sinks_shelf_p%%'")
        # The primary key and the index, on each of the three days.
        assert cursor.fetchone()[0] == 6
    with connections[pg_alias].schema_editor() as editor:
        operation.database_backwards("sinks", editor, after, before)
    assert partitions("sinks_shelf", using=pg_alias) == []


@pytest.mark.usefixtures("routed")
def test_its_sql_can_be_shown_without_being_run(
    operation: CreatePartitionedModel, pg_alias: str
) -> None:
    after = ProjectState()
    operation.state_forwards("sinks", after)
    with connections[pg_alias].schema_editor(collect_sql=True) as editor:
        operation.database_forwards("sinks", editor, ProjectState(), after)
        assert any('PARTITION BY RANGE ("id")' in sql for sql in editor.collected_sql)
    assert "sinks_shelf" not in connections[pg_alias].introspection.table_names()


@pytest.mark.usefixtures("routed")
def test_plain_on_sqlite(operation: CreatePartitionedModel, sqlite_alias: str) -> None:
    before, after = apply(operation, sqlite_alias)
    shelf = after.apps.get_model("sinks", "Shelf")
    shelf.objects.using(sqlite_alias).create(id=1, timestamp=datetime.now(UTC), message="m")
    assert partitions("sinks_shelf", using=sqlite_alias) == []
    with connections[sqlite_alias].schema_editor() as editor:
        operation.database_backwards("sinks", editor, after, before)
    assert "sinks_shelf" not in connections[sqlite_alias].introspection.table_names()


def test_a_router_that_says_no_is_heeded(
    operation: CreatePartitionedModel, pg_alias: str, settings: Any
) -> None:
    class Nowhere:
        def allow_migrate(self, *args: Any, **kwargs: Any) -> bool:
            return False

    settings.DATABASE_ROUTERS = [Nowhere()]
    apply(operation, pg_alias)
    assert "sinks_shelf" not in connections[pg_alias].introspection.table_names()


def test_the_migration_names_itself(operation: CreatePartitionedModel) -> None:
    assert operation.describe() == "Create partitioned model Shelf"
    assert operation.deconstruct()[0] == "CreatePartitionedModel"
