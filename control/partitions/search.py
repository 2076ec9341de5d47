"""The full-text index of a partition: GIN over the words of one column, by policy.

live: built with the partition, so that records are found by text as soon as they are stored.
closed: built once the day is over, which keeps its cost off the writing of records.
off: none is built, and partitions still written to lose theirs.
Only the beginning of a text is indexed: PostgreSQL refuses to store a row of more than 1 MiB of
distinct words under such an index, and a record must not fail because it can be searched.
An index may be long in building; `build` does it without blocking writers.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, TypeAlias

Policy: TypeAlias = Literal["live", "closed", "off"]

SEARCHED_CHARACTERS = 8_192
"""How much of a text is indexed and searched: far below what a tsvector holds, whatever the
characters, and more than a log line or a stack trace has."""


def words_expression(column: str) -> str:
    """The words of `column` (SQL): an index is used only where the search says exactly this."""
    # 'simple' neither stems nor drops words: log text is not prose.
    return f"to_tsvector('simple'::regconfig, left({column}, {SEARCHED_CHARACTERS}))"


def is_current(definition: str) -> bool:
    """Whether an index, by PostgreSQL's word of it, is on the expression that is searched."""
    return f", {SEARCHED_CHARACTERS})" in definition


def index_name(partition: str) -> str:
    digest = hashlib.sha256(partition.encode()).hexdigest()[:8]
    return f"{partition[:47]}_{digest}_search"


def create_sql(connection: Any, partition: str, column: str, *, concurrently: bool) -> str:
    quote = connection.ops.quote_name
    how = "CONCURRENTLY " if concurrently else ""
    return (
        f"CREATE INDEX {how}IF NOT EXISTS {quote(index_name(partition))} ON {quote(partition)} "
        f"USING gin ({words_expression(quote(column))})"
    )


def wanted(policy: str, *, closed: bool) -> bool:
    """Whether a partition should have the index."""
    return policy == "live" or (policy == "closed" and closed)


def unwanted(policy: str, *, closed: bool) -> bool:
    """Whether an index that is there should go. A closed day's costs nothing any more."""
    return not closed and policy != "live"


def state(connection: Any, partition: str) -> Literal["valid", "broken", "missing"]:
    """`broken`: left behind by an interrupted concurrent build, or on another expression."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT i.indisvalid, pg_get_indexdef(i.indexrelid) "
            "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "WHERE c.relname = %s AND c.relnamespace = current_schema()::regnamespace",
            [index_name(partition)],
        )
        row = cursor.fetchone()
    if row is None:
        return "missing"
    return "valid" if row[0] and is_current(row[1]) else "broken"


def build(connection: Any, partition: str, column: str) -> None:
    """Build the index beside running writes; replaces a broken one. Not inside a transaction."""
    if state(connection, partition) == "broken":
        drop(connection, partition)
    with connection.cursor() as cursor:
        cursor.execute(create_sql(connection, partition, column, concurrently=True))


def drop(connection: Any, partition: str) -> None:
    name = connection.ops.quote_name(index_name(partition))
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
