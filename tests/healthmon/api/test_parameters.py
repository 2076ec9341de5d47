"""A parameter that is not known is refused: a filter that does not filter changes too much."""

from __future__ import annotations

import pytest
from django.test.utils import CaptureQueriesContext

from healthmon.targets.models import Tag, Target, TargetGroup
from tests.healthmon.api.test_targets import WEB, make, refusal

pytestmark = pytest.mark.django_db

ADDRESSES = {
    "/api/targets": "status, tag, group, kind, search, paused, id, limit, after",
    "/api/results": "target, outcome, limit, before",
    "/api/incidents": "open, target, severity, limit, before",
    "/api/targets/{pk}": "there are none here",
    "/api/targets/{pk}/results": "outcome, limit, before",
    "/api/targets/{pk}/flips": "limit, before",
    "/api/targets/{pk}/latency": "start, end, points",
    "/probe": "target, module, timeout",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_one_that_is_not_known_is_refused_and_the_known_are_told(api, address):
    (target,) = make(1)
    path = address.format(pk=target.pk)
    body = refusal(api("GET", f"{path}?name=t0&q=1"), 400, "invalid")
    assert set(body["errors"]) == {"name", "q"}
    assert ADDRESSES[address] in body["errors"]["name"][0]


@pytest.mark.parametrize(
    "address", [one for one in ADDRESSES if "probe" not in one and "latency" not in one]
)
def test_those_that_are_told_are_known(api, address):
    (target,) = make(1)
    path = address.format(pk=target.pk)
    values = {
        "status": "up", "paused": "true", "id": "1", "limit": "1", "after": "1", "before": "1",
        "target": "1", "outcome": "ok", "open": "true", "severity": "info",
    }  # fmt: skip
    for name in ADDRESSES[address].split(", "):
        if " " not in name:
            answer = api("GET", f"{path}?{name}={values.get(name, 'x')}")
            assert answer.status_code == 200, answer.content


def test_nothing_is_changed_or_removed_where_a_filter_was_misspelt(api):
    make(2)
    refusal(api("PATCH", "/api/targets?nmae=t0&status=new", {"paused": True}), 400, "invalid")
    refusal(api("PATCH", "/api/targets?all=true&limit=1", {"paused": True}), 400, "invalid")
    refusal(api("POST", "/api/targets?dry_run=true", WEB), 400, "invalid")
    target = Target.objects.all()[0]
    refusal(api("DELETE", f"/api/targets/{target.pk}?dry_run=true"), 400, "invalid")
    assert not Target.objects.filter(paused=True).exists()
    assert Target.objects.count() == 2


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize("field", ["interval_s", "degraded_after_ms", "slo_percent"])
def test_a_number_must_be_finite(api, field, value):
    (target,) = make(1)
    body = refusal(api("POST", "/api/targets", {**WEB, field: value}), 400, "invalid")
    assert field in body["errors"]
    refusal(api("PATCH", f"/api/targets/{target.pk}", {field: value}), 400, "invalid")
    refusal(api("PATCH", "/api/targets?all=true", {field: value}), 400, "invalid")
    target.refresh_from_db()
    assert (target.interval_s, target.slo_percent) == (30.0, None)


def test_a_page_costs_as_many_queries_as_one_row(api, django_assert_max_num_queries):
    group, tag = TargetGroup.objects.create(name="g"), Tag.objects.create(name="t")
    rows = make(60, group=group)
    for row in rows:
        row.tags.add(tag)
        row.parents.set(rows[:1])
    api("GET", "/api/targets")
    with django_assert_max_num_queries(8) as made:
        found = api("GET", "/api/targets").json()["results"]
    assert isinstance(made, CaptureQueriesContext)
    assert len(found) == 60
    assert found[7] == api("GET", f"/api/targets/{rows[7].pk}").json()
    assert (found[7]["group"], found[7]["tags"]) == ("g", ["t"])
    assert found[7]["parents"] == [rows[0].pk]
