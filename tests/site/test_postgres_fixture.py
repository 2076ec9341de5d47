from __future__ import annotations

import psycopg


def test_a_test_gets_a_database_of_its_own(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        row = connection.execute("SELECT current_database(), version()").fetchone()
    assert row is not None
    assert row[0].startswith("collector_")
    assert row[1].startswith("PostgreSQL")
