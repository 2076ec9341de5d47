from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone

from ingest.models import LogRecord
from tests.admin.cast import EVIL, make_event, make_log, make_ping, us

pytestmark = pytest.mark.django_db

LOGS = "/admin/ingest/logrecord/"
PINGS = "/admin/ingest/healthping/"
EVENTS = "/admin/ingest/auditevent/"
HOSTILE = EVIL + "\u202egnp.exe\x1b[31m"


def found(client: Client, path: str = LOGS, **params: Any) -> list[str]:
    response = client.get(f"{path}?{urlencode(params)}")
    assert response.status_code == 200
    return re.findall(r"<tr>.*?/(\d+)/change/", response.content.decode(), re.S)


def pks(*rows: Any) -> list[str]:
    return [str(row.pk) for row in rows]


def test_the_window_is_24_hours_unless_chosen(admin_client: Client) -> None:
    now = make_log(ago_s=5)
    hour = make_log(ago_s=1800)
    day = make_log(ago_s=20 * 3600)
    week = make_log(ago_s=6 * 86400)
    old = make_log(ago_s=20 * 86400)
    assert found(admin_client) == pks(now, hour, day)
    assert found(admin_client, window="15m") == pks(now)
    assert found(admin_client, window="1h") == pks(now, hour)
    assert found(admin_client, window="7d") == pks(now, hour, day, week)
    assert found(admin_client, window="all") == pks(now, hour, day, week, old)


def test_the_window_is_of_arrival_whatever_the_sender_dated(admin_client: Client) -> None:
    dated = make_log(ago_s=5, timestamp=timezone.now() - timedelta(days=20_000))
    assert found(admin_client, window="15m") == pks(dated)


def test_a_custom_window_includes_its_ends(admin_client: Client) -> None:
    rows = [make_log(ago_s=s) for s in (100, 200, 300)]
    moment = rows[1].timestamp
    exact = f"{moment:%Y-%m-%dT%H:%M:%S}"
    assert found(admin_client, **{"from": exact, "to": exact}) == pks(rows[1])
    assert found(admin_client, **{"from": exact}) == pks(rows[0], rows[1])


@pytest.mark.parametrize(
    "params",
    [
        {"from": "2026-01-02T00:00", "to": "2026-01-01T00:00"},
        {"from": "yesterday"},
        {"window": "custom"},
        {"window": "century"},
        {"level": "LOUD"},
    ],
)
def test_a_bad_filter_is_told_beside_its_field(
    admin_client: Client, params: dict[str, str]
) -> None:
    make_log()
    response = admin_client.get(f"{LOGS}?{urlencode(params)}")
    html = response.content.decode()
    assert response.status_code == 200
    assert 'class="filter-error"' in html
    assert "/change/" not in re.sub(r"<nav.*?</nav>", "", html, flags=re.S)


def test_levels_exactly_and_at_least(admin_client: Client) -> None:
    rows = {
        name: make_log(level=name, sequence=n) for n, name in enumerate(("INFO", "WARN", "ERROR"))
    }
    assert found(admin_client, level="WARN") == pks(rows["WARN"])
    assert sorted(found(admin_client, level="min-WARN")) == sorted(pks(rows["WARN"], rows["ERROR"]))


def test_service_tenant_and_trace(admin_client: Client) -> None:
    a = make_log(sequence=1, service="a", tenant="t1", trace_id="abc")
    b = make_log(sequence=2, service="b", tenant="t2")
    assert found(admin_client, service="a") == pks(a)
    assert found(admin_client, tenant="t2") == pks(b)
    assert found(admin_client, trace_id="abc") == pks(a)
    assert found(admin_client, service="a", tenant="t2") == []


def test_search_finds_words_beginnings_phrases_and_parts(admin_client: Client) -> None:
    one = make_log(sequence=3, message="status installed libc6:amd64 2.36-9")
    two = make_log(sequence=2, message="Payment declined by the issuer")
    make_log(sequence=1, message="nothing of the kind")
    assert found(admin_client, q="installed") == pks(one)
    assert found(admin_client, q="libc") == pks(one)
    assert found(admin_client, q="payment DECLINED") == pks(two)
    assert found(admin_client, q='"declined by"') == pks(two)
    assert found(admin_client, q="payment -declined") == []
    assert found(admin_client, q="~nstalle") == pks(one)
    assert found(admin_client, q="absent") == []
    for odd in ("'", '"', "\\", "%", "-", "~", ":*", "& | !", "a' OR 1=1 --", "\u0000"):
        assert admin_client.get(f"{LOGS}?{urlencode({'q': odd})}").status_code == 200


def test_search_is_bounded_to_the_window(admin_client: Client) -> None:
    make_log(ago_s=3 * 86400, message="needle")
    assert found(admin_client, q="needle") == []
    assert len(found(admin_client, q="needle", window="7d")) == 1


def test_the_search_meets_the_words_index_on_postgresql() -> None:
    if connections["records"].vendor != "postgresql":
        return
    from control.admin.search import search
    from control.partitions.search import create_sql

    make_log(message="needle")
    queryset = search(LogRecord.objects.all(), "message", "needle", indexed=True)
    with connections["records"].cursor() as cursor:
        sql = create_sql(connections["records"], "face_plan", "message", concurrently=False)
        cursor.execute("CREATE TABLE face_plan (LIKE ingest_logrecord)")
        cursor.execute(sql)
        cursor.execute("SET LOCAL enable_seqscan = off")
        statement, params = queryset.order_by().query.sql_with_params()
        cursor.execute("EXPLAIN " + statement.replace('"ingest_logrecord"', '"face_plan"'), params)
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("DROP TABLE face_plan")
    assert "_search" in plan


def test_an_empty_list_says_what_to_do(admin_client: Client) -> None:
    html = admin_client.get(f"{LOGS}?q=absent").content.decode()
    assert "No record matches in last 24 hours. Widen it or drop a filter." in html
    assert "write ~part" in html


def test_pings_and_events_have_their_own_filters(admin_client: Client) -> None:
    up, down = make_ping(), make_ping(ago_s=20, status="down", service="mailer")
    assert found(admin_client, PINGS) == pks(up, down)
    assert found(admin_client, PINGS, status="down") == pks(down)
    assert found(admin_client, PINGS, service="mailer") == pks(down)
    ann, bob = make_event(), make_event(ago_s=20, user_id="bob", action="delete")
    assert found(admin_client, EVENTS, user="bob") == pks(bob)
    assert found(admin_client, EVENTS, action="login") == pks(ann)


def test_the_record_page_shows_fields_json_and_neighbours(admin_client: Client) -> None:
    log = make_log(
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736", payload={"http": {"status": 200}, "n": None}
    )
    mate = make_log(ago_s=9, trace_id=log.trace_id)
    html = admin_client.get(f"{LOGS}{log.pk}/change/").content.decode()
    assert "order placed" in html
    assert '<span class="j-number">200</span>' in html
    links = {
        words: address.replace("&amp;", "&")
        for address, words in re.findall(r'<li><a href="([^"]+)">([^<]+)</a></li>', html)
    }
    assert set(links) == {
        "Trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "checkout, 15 minutes around",
        "Same request",
        "Same minute",
    }
    trace = admin_client.get(links["Trace 4bf92f3577b34da6a3ce929d0e0e4736"]).content.decode()
    assert str(mate.pk) in trace
    assert str(log.pk) in trace


def test_the_same_request_is_what_arrived_at_the_same_microsecond(admin_client: Client) -> None:
    at = timezone.now() - timedelta(seconds=30)
    first = make_log(received_at=at, id=(us(at) - us(at) % 1000) and make_log(ago_s=30).pk + 5)
    second = make_log(received_at=at, id=first.pk + 1)
    make_log(received_at=at, id=first.pk + 2, tenant="other")
    make_log(ago_s=29.9)
    html = admin_client.get(f"{LOGS}{first.pk}/change/").content.decode()
    address = re.search(r'<a href="([^"]+)">Same request</a>', html)
    assert address
    page = admin_client.get(address[1].replace("&amp;", "&")).content.decode()
    assert re.findall(r"<tr>.*?/(\d+)/change/", page, re.S) == pks(second, first)


def test_records_can_be_read_and_nothing_else(admin_client: Client) -> None:
    log = make_log()
    assert admin_client.get(f"{LOGS}add/").status_code == 403
    assert admin_client.post(f"{LOGS}{log.pk}/change/", {"message": "x"}).status_code == 403
    assert admin_client.post(f"{LOGS}{log.pk}/delete/", {"post": "yes"}).status_code == 403
    assert LogRecord.objects.get(pk=log.pk).message == "order placed"


def test_a_missing_record_leads_back_with_a_message(admin_client: Client) -> None:
    response = admin_client.get(f"{LOGS}12345/change/", follow=True)
    assert "12345" in response.content.decode()


@pytest.mark.parametrize("path", ["", "change"])
def test_everything_from_outside_is_inert(admin_client: Client, path: str) -> None:
    """Script, direction marks and terminal escapes in every field of every type of record."""
    text = HOSTILE
    payload = {text: [text, {text: text}]}
    log = make_log(
        tenant=text,
        level=text,
        service=text,
        message=text,
        trace_id=text,
        span_id=text,
        payload=payload,
    )
    ping = make_ping(tenant=text, service=text, status=text, payload=payload)
    event = make_event(tenant=text, user_id=text, action=text, payload=payload)
    for base, row in ((LOGS, log), (PINGS, ping), (EVENTS, event)):
        address = base if not path else f"{base}{row.pk}/change/"
        html = admin_client.get(address).content.decode()
        assert "<script>alert(" not in html
        assert "<img src=x" not in html
        assert "\u202e" not in html.split("<datalist")[0]
        assert "\x1b" not in html.split("<datalist")[0]
        assert "&lt;script&gt;alert(" in html
