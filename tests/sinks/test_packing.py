"""Binary rows against a real server, and SQLite's values."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.ports.tables import Column
from sinks.postgresql.packer import (
    HEADER,
    POSTGRES_EPOCH_US,
    TRAILER,
    RowError,
    _pack_slowly,
    pack_rows,
)
from sinks.sqlite.values import convert_rows, time_text

COLUMNS = (
    Column("a", "int8"),
    Column("b", "text"),
    Column("c", "timestamptz"),
    Column("d", "int4"),
    Column("e", "float8"),
    Column("f", "bool"),
    Column("g", "jsonb"),
    Column("h", "text"),
)
_texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
_rows = st.tuples(
    st.integers(-(2**63), 2**63 - 1),
    _texts,
    st.integers(0, 4_000_000_000_000_000),
    st.integers(-(2**31), 2**31 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.just(b'{"a":[1,null,"\xc3\xbc"]}'),
    _texts,
)


def test_the_server_reads_what_was_packed(postgres_dsn):
    rows = [
        (1, "grün", 1_790_000_000_123_456, -5, 1.5, True, b'{"x": 1.10}', ""),
        (2**63 - 1, "", 0, 2**31 - 1, float("inf"), False, b"[]", "x" * 10_000),
        (3, None, None, None, None, None, None, None),
        (-(2**63), "same", POSTGRES_EPOCH_US, 0, -0.0, True, b"null", "same"),
    ]
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(
            "CREATE TABLE t (a int8, b text, c timestamptz, d int4, e float8, f bool, g jsonb,"
            " h text)"
        )
        with connection.cursor().copy("COPY t FROM STDIN (FORMAT binary)") as copy:
            copy.write(HEADER + b"".join(pack_rows(COLUMNS, rows)) + TRAILER)
        found = connection.execute(
            "SELECT a, b, (extract(epoch FROM c) * 1000000)::int8, d, e, f, g::text, h FROM t"
        ).fetchall()
    expected = [(*row[:6], row[6].decode() if row[6] else None, row[7]) for row in rows]
    assert found == expected


@given(st.lists(_rows, max_size=20))
def test_the_fast_lane_packs_as_the_general_one(rows):
    assert pack_rows(COLUMNS, rows) == [
        _pack_slowly(COLUMNS, row, index) for index, row in enumerate(rows)
    ]


@given(_rows, st.sets(st.integers(0, 7), min_size=1))
def test_null_may_stand_in_any_column(row, nulls):
    row = tuple(None if i in nulls else value for i, value in enumerate(row))
    (packed,) = pack_rows(COLUMNS, [row])
    assert packed == _pack_slowly(COLUMNS, row, 0)
    assert packed.count(struct.pack(">i", -1)) >= len(nulls)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 2**63), (0, "1"), (1, 5), (1, "\ud800"), (2, -(2**63)), (3, 2**31), (6, "{}"), (4, "x")],
)
def test_a_value_that_no_column_holds_names_its_row_and_column(place, value):
    good = (1, "b", 0, 0, 0.0, True, b"{}", "h")
    bad = (*good[:place], value, *good[place + 1 :])
    with pytest.raises(RowError, match=f"column {COLUMNS[place].name}") as caught:
        pack_rows(COLUMNS, [good, good, bad])
    assert caught.value.index == 2


def test_a_row_of_another_length_is_told():
    with pytest.raises(RowError, match="7 values for 8 columns"):
        pack_rows(COLUMNS, [(1, "b", 0, 0, 0.0, True, b"{}")])


@pytest.mark.parametrize("kind", ["int8", "text", "jsonb"])
def test_a_single_column_is_a_row_too(kind):
    value = {"int8": 7, "text": "x", "jsonb": b"{}"}[kind]
    columns = (Column("a", kind),)
    assert pack_rows(columns, [(value,)]) == [_pack_slowly(columns, (value,), 0)]
    assert len(convert_rows(columns, [(value,)])) == 1


@given(st.datetimes())
def test_times_are_written_as_django_writes_them(at):
    from django.db import connections

    aware = at.replace(tzinfo=UTC)
    delta = aware - datetime(1970, 1, 1, tzinfo=UTC)
    us = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    if connections["records"].vendor == "sqlite":
        assert time_text(us) == connections["records"].ops.adapt_datetimefield_value(aware)
    assert datetime.fromisoformat(str(time_text(us))) == at


def test_sqlites_values():
    columns = (Column("a", "int8"), Column("b", "timestamptz"), Column("c", "jsonb"))
    assert convert_rows(columns, [(1, 1_500_000, b"{}"), (2, None, None)]) == [
        (1, "1970-01-01 00:00:01.500000", "{}"),
        (2, None, None),
    ]
    with pytest.raises(OverflowError):
        convert_rows(columns, [(1, 10**18, b"{}")])
