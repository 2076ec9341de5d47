"""Counters in the admin: values and rates are true, what came from outside is harmless."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from control.ports.merging import MAX_TOTAL
from ingest.counters import history as past
from ingest.counters.totals import OVERFLOW, key_of
from ingest.models import Counter, CounterPoint
from tests.admin.cast import EVIL

pytestmark = pytest.mark.django_db

LIST = "/admin/ingest/counter/"
NOON = datetime(2026, 7, 1, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def make_counter(name: str = "orders", *, tenant: str = "default", **values: Any) -> Counter:
    now = values.pop("now", timezone.now())
    labels = values.pop("labels", {})
    values = {
        "value": 10,
        "increments": 10,
        "first_at": now - timedelta(days=60),
        "last_at": now,
    } | values
    key = key_of(tenant, name, str(sorted(labels.items())))
    return Counter.objects.create(key=key, tenant=tenant, name=name, labels=labels, **values)


def add(counter: Counter, *, now: datetime, **minutes_ago: int) -> None:
    """`m3=5` adds 5 three minutes ago."""
    floor = now.replace(second=0, microsecond=0)
    for name, added in minutes_ago.items():
        CounterPoint.objects.create(
            counter=counter.key,
            minute=floor - int(name[1:]) * MINUTE,
            added=added,
            increments=1,
        )


def page(client: Client, counter: Counter, **params: str) -> str:
    response = client.get(f"{LIST}{counter.pk}/change/", params)
    assert response.status_code == 200
    return response.content.decode()


# --- the steps of a chart --------------------------------------------------------------------


def test_an_hour_by_the_minute_ends_with_the_one_that_is_not_over():
    counter = make_counter(first_at=NOON - timedelta(days=1), now=NOON)
    add(counter, now=NOON, m0=1, m1=2, m59=3, m60=99)
    found = past.history(counter, past.window_of("1h"), now=NOON)
    assert len(found.added) == 60
    assert found.ends_at == datetime(2026, 7, 1, 12, 1, tzinfo=UTC)
    assert (found.added[-1], found.added[-2], found.added[0]) == (1, 2, 3)
    assert (found.total, found.recorded) == (6, 3)


def test_longer_windows_add_up_whole_steps():
    counter = make_counter(first_at=NOON - timedelta(days=1), now=NOON)
    add(counter, now=NOON, m0=1, m1=2, m9=3, m10=4, m11=5)
    found = past.history(counter, past.window_of("24h"), now=NOON)
    assert found.added[-3:] == [5, 9, 1]
    assert found.added[-2] == 2 + 3 + 4


def test_nothing_is_known_before_the_first_increment_and_zero_after():
    counter = make_counter(first_at=NOON - 3 * MINUTE, now=NOON)
    add(counter, now=NOON, m3=7)
    found = past.history(counter, past.window_of("1h"), now=NOON)
    assert found.added[-5:] == [None, 7, 0, 0, 0]


def test_the_rate_is_the_mean_of_the_last_whole_minutes():
    assert past.per_minute([9, 9, 1, 2, 3, 4, 5, 1000]) == 3
    assert past.per_minute([None, None, 4, 0, 77]) == 2
    assert past.per_minute([None, 5]) is None
    assert past.per_minute([]) is None


def test_the_lines_of_a_list_are_one_query(django_assert_num_queries):
    counters = [make_counter(f"c{n}", now=NOON) for n in range(20)]
    add(counters[3], now=NOON, m2=5)
    with django_assert_num_queries(1, using="records"):
        found = past.sparks(counters, now=NOON)
    assert found[counters[3].key][-3] == 5
    assert sum(value or 0 for value in found[counters[4].key]) == 0


# --- the list --------------------------------------------------------------------------------


def test_the_list_has_values_rates_and_lines(admin_client: Client):
    counter = make_counter(value=1_234_567, labels={"shop": "berlin"})
    now = timezone.now()
    add(counter, now=now, m1=10, m2=20)
    html = admin_client.get(LIST).content.decode()
    assert "1,234,567" in html
    assert "shop=berlin" in html
    assert html.count('class="sparkline"') == 1
    rate = re.search(r'class="field-rate">([^<]+)<', html)
    assert rate is not None
    assert rate[1] in ("6", "4")  # the minute may have ended since


def test_an_empty_list_says_how_to_count(admin_client: Client):
    assert "POST /counters" in admin_client.get(LIST).content.decode()
    make_counter()
    assert "No counter matches" in admin_client.get(LIST, {"q": "nosuch"}).content.decode()


@pytest.mark.parametrize("query", ["refund", "berlin", "acme"])
def test_counters_are_found_by_name_label_and_tenant(admin_client: Client, query: str):
    make_counter("refunds", tenant="acme", labels={"shop": "berlin"})
    make_counter("orders")
    html = admin_client.get(LIST, {"q": query}).content.decode()
    assert html.count('class="field-what"') == 1
    assert "refunds" in html


def test_what_came_from_outside_is_escaped_everywhere(admin_client: Client):
    counter = make_counter(EVIL + "\u202e", labels={EVIL: EVIL})
    for html in (admin_client.get(LIST).content.decode(), page(admin_client, counter)):
        assert "<script>alert" not in html
        assert "\u202e" not in html


# --- the page --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["1h", "24h", "7d", "30d", "nonsense"])
def test_the_page_draws_each_window(admin_client: Client, window: str):
    counter = make_counter()
    add(counter, now=timezone.now(), m1=10, m2=-4)
    html = page(admin_client, counter, window=window)
    assert 'id="chart-counter"' in html
    assert "<svg viewBox" in html
    assert html.count('aria-current="true"') == 1


def test_the_page_tells_both_ends_of_a_counters_life_in_one_way(admin_client: Client):
    html = page(admin_client, make_counter())
    for end in ("First", "Last"):
        assert re.search(rf"<dt>{end} increment</dt><dd><b>([^<]* ago|now)</b>", html)


def test_what_was_taken_away_has_a_line_of_its_own(admin_client: Client):
    counter = make_counter()
    add(counter, now=timezone.now(), m1=10)
    assert "taken away" not in page(admin_client, counter)
    add(counter, now=timezone.now(), m4=-4)
    assert "taken away" in page(admin_client, counter)


def test_an_empty_window_says_what_to_do(admin_client: Client):
    assert "Choose a longer one" in page(admin_client, make_counter())


def test_a_sum_at_its_limit_and_an_overflow_are_told(admin_client: Client):
    full = make_counter(value=MAX_TOTAL)
    assert "largest number that is kept" in page(admin_client, full)
    assert "max_counters" in page(admin_client, make_counter(OVERFLOW))


def test_a_tenant_without_room_is_a_problem_while_it_lasts():
    from ingest.counters import problems

    make_counter()
    assert problems.found() == []
    over = make_counter(OVERFLOW)
    over.delete()
    over.key = key_of("default", OVERFLOW, "{}")
    over.save()
    (problem,) = problems.found()
    assert problem.cause.startswith("default: there are 10,000 counters")
    over.last_at -= timedelta(hours=2)
    over.save()
    assert problems.found() == []


# --- making room -----------------------------------------------------------------------------


def test_deleting_a_counter_takes_its_points_along(admin_client: Client):
    doomed, kept = make_counter("doomed"), make_counter("kept")
    for counter in (doomed, kept):
        add(counter, now=timezone.now(), m1=1, m2=1)
    response = admin_client.post(f"{LIST}{doomed.pk}/delete/", {"post": "yes"})
    assert response.status_code == 302
    assert list(Counter.objects.values_list("name", flat=True)) == ["kept"]
    assert set(CounterPoint.objects.values_list("counter", flat=True)) == {kept.key}
    action = {"action": "delete_selected", "_selected_action": [kept.pk], "post": "yes"}
    assert admin_client.post(LIST, action).status_code == 302
    assert not Counter.objects.exists()
    assert not CounterPoint.objects.exists()


def test_nobody_changes_or_adds_a_counter(admin_client: Client):
    counter = make_counter()
    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert admin_client.post(f"{LIST}{counter.pk}/change/", {"value": 1}).status_code == 403


def test_who_may_only_look_cannot_delete(client: Client, django_user_model: Any):
    from django.contrib.auth.models import Permission

    user = django_user_model.objects.create_user("looker", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_counter"))
    client.force_login(user)
    counter = make_counter()
    assert "Delete this counter" not in page(client, counter)
    assert client.post(f"{LIST}{counter.pk}/delete/", {"post": "yes"}).status_code == 403
