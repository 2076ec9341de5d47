"""How many rows a table has, from PostgreSQL's statistics: an estimate that costs no scan.

Runs in request threads; holds no state.
"""

from __future__ import annotations

from django.db import connections
from django.db.models import Model

# A partitioned parent has no rows of its own, so the estimate is the sum over the tree's leaves.
# A table that was never analysed reports -1.
_ESTIMATE = """
    SELECT sum(greatest(c.reltuples, 0))::bigint, bool_or(c.reltuples >= 0)
    FROM pg_class c
    WHERE c.relkind = 'r' AND c.oid IN (
        SELECT to_regclass(%s)::oid
        UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(%s)
    )
"""


def estimated_rows(model: type[Model], alias: str) -> int | None:
    """About how many rows the table holds, or None when the database keeps no cheap figure."""
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return None
    name = connection.ops.quote_name(model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(_ESTIMATE, [name, name])
        row = cursor.fetchone()
    if row is None or row[0] is None or not row[1]:
        return None
    return int(row[0])
