"""Day partitions of the tables of records on PostgreSQL, by ranges of the record id.

On SQLite the same tables are plain ones and everything here is a no-op, except `delete_before`.
"""

from __future__ import annotations

from control.partitions.on_demand import ensure, ensure_range, forget
from control.partitions.tables import Partition
from control.partitions.upkeep import delete_before, drop_before, partitions

__all__ = [
    "Partition",
    "delete_before",
    "drop_before",
    "ensure",
    "ensure_range",
    "forget",
    "partitions",
]
