"""A migration operation for a table of records: partitioned on PostgreSQL, plain on SQLite."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.migrations.operations import CreateModel

from control.partitions import tables as partition_tables
from control.partitions.on_demand import search_column_of
from control.partitions.upkeep import DAYS_AHEAD


class CreatePartitionedModel(CreateModel):
    """`CreateModel` for a model whose primary key is the record id.

    On PostgreSQL the table is `PARTITION BY RANGE (id)` and has partitions from today on, so that
    it takes records at once; upkeep sees to the following days.
    """

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        model = to_state.apps.get_model(app_label, self.name)
        connection = schema_editor.connection
        if not partition_tables.supported(connection):
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        if not self.allow_migrate_model(connection.alias, model):
            return
        key = connection.ops.quote_name(model._meta.pk.column)
        sql, params = schema_editor.table_sql(model)
        schema_editor.execute(f"{sql} PARTITION BY RANGE ({key})", params or None)
        schema_editor.deferred_sql.extend(schema_editor._model_indexes_sql(model))
        if schema_editor.collect_sql:
            return
        table = model._meta.db_table
        today = datetime.now(UTC).date()
        partition_tables.create(
            connection,
            table,
            [today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)],
            search_column=search_column_of(table),
        )

    def describe(self) -> str:
        return f"Create partitioned model {self.name}"
