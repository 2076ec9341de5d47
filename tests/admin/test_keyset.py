from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from control.admin.deadline import QueryDeadlineExceeded, query_deadline
from ingest.admin.records import LogRecordAdmin
from ingest.models import LogRecord
from tests.admin.cast import make_log

pytestmark = pytest.mark.django_db

LIST = "/admin/ingest/logrecord/"
NEWER = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK} Newer"
OLDER = "Older \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"


@pytest.fixture
def ten_logs(monkeypatch: pytest.MonkeyPatch) -> list[LogRecord]:
    monkeypatch.setattr(LogRecordAdmin, "list_per_page", 4)
    return [make_log(ago_s=100 - n, message=f"number-{n}.") for n in range(10)]


def messages(response: Any) -> list[str]:
    return re.findall(r"number-(\d+)\.", response.content.decode())


def link(response: Any, words: str) -> str:
    found = re.search(rf'<a href="([^"]*)"[^>]*>{words}</a>', response.content.decode())
    assert found, f"no link {words}"
    return LIST + found[1].replace("&amp;", "&")


def test_pages_go_from_newest_to_oldest_and_back(
    admin_client: Client, ten_logs: list[LogRecord]
) -> None:
    first = admin_client.get(LIST)
    assert messages(first) == ["9", "8", "7", "6"]
    assert NEWER + "</a>" not in first.content.decode()
    second = admin_client.get(link(first, OLDER))
    assert messages(second) == ["5", "4", "3", "2"]
    third = admin_client.get(link(second, OLDER))
    assert messages(third) == ["1", "0"]
    assert OLDER + "</a>" not in third.content.decode()
    back = admin_client.get(link(third, NEWER))
    assert messages(back) == ["5", "4", "3", "2"]
    oldest = admin_client.get(link(first, "Oldest"))
    assert messages(oldest) == ["3", "2", "1", "0"]
    assert messages(admin_client.get(link(oldest, NEWER))) == ["7", "6", "5", "4"]


def test_newer_at_the_top_shows_the_whole_first_page(
    admin_client: Client, ten_logs: list[LogRecord]
) -> None:
    response = admin_client.get(f"{LIST}?after={ten_logs[-2].pk}")
    assert messages(response) == ["9", "8", "7", "6"]


def test_filters_stay_while_paging(admin_client: Client, ten_logs: list[LogRecord]) -> None:
    LogRecord.objects.filter(pk__in=[one.pk for one in ten_logs[::2]]).update(service="odd")
    first = admin_client.get(f"{LIST}?service=odd&window=1h")
    assert messages(first) == ["8", "6", "4", "2"]
    older = link(first, OLDER)
    assert "service=odd" in older
    assert "window=1h" in older
    assert messages(admin_client.get(older)) == ["0"]


def test_nothing_is_ever_counted(admin_client: Client, ten_logs: list[LogRecord]) -> None:
    pages = ["", "?level=min-INFO&service=checkout&q=number", "?before=7", "?after=oldest"]
    with (
        CaptureQueriesContext(connections["records"]) as records,
        CaptureQueriesContext(connections["default"]) as default,
    ):
        for page in pages:
            assert admin_client.get(LIST + page).status_code == 200
    sql = [query["sql"].upper() for query in (*records, *default)]
    assert any("INGEST_LOGRECORD" in one for one in sql)
    assert not [one for one in sql if "COUNT(" in one or "OFFSET" in one or "DISTINCT" in one]


@pytest.mark.parametrize("bad", ["?before=x", "?after=1e9", "?before=9999999999999999999999"])
def test_a_key_that_is_none_is_answered_readably(admin_client: Client, bad: str) -> None:
    response = admin_client.get(LIST + bad, follow=True)
    assert response.status_code == 200


def test_unknown_parameters_are_refused_by_the_admin(admin_client: Client) -> None:
    assert admin_client.get(LIST + "?payload__evil=1").status_code == 400


def test_a_list_does_not_read_payloads(admin_client: Client, ten_logs: list[LogRecord]) -> None:
    with CaptureQueriesContext(connections["records"]) as captured:
        admin_client.get(LIST)
    assert "payload" not in " ".join(query["sql"] for query in captured)


SLOW = {
    "sqlite": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) "
        "SELECT max(i) FROM n"
    ),
    "postgresql": "SELECT pg_sleep(60)",
}


def test_a_query_is_stopped_at_its_deadline_and_the_connection_stays_good() -> None:
    connection = connections["records"]
    with (
        pytest.raises(QueryDeadlineExceeded),
        query_deadline("records", 0.05),
        connection.cursor() as cursor,
    ):
        cursor.execute(SLOW[connection.vendor])
    make_log()
    assert LogRecord.objects.using("records").exists()


def test_the_deadline_ends_with_its_block() -> None:
    connection = connections["records"]
    with query_deadline("records", 5), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("0",)


def test_a_search_that_takes_too_long_says_what_to_do(
    admin_client: Client, ten_logs: list[LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    from control.admin import keyset

    class Stopped:
        def __enter__(self) -> None:
            raise QueryDeadlineExceeded("stopped")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(keyset, "query_deadline", lambda alias, seconds: Stopped())
    html = admin_client.get(LIST).content.decode()
    assert "The search was stopped after 5 s. Narrow the window" in html
