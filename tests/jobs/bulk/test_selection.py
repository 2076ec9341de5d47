"""Which jobs are meant, kept as JSON and found in batches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs.bulk.selection import APPLIES, Selection, of_ids
from jobs.ids import first_id_at, new_job_id
from jobs.models import Job
from jobs.states import CANCELLED, DEAD, QUEUED, SUCCEEDED
from tests.jobs.admin.cast import make_job, make_type

pytestmark = pytest.mark.django_db


def test_ids_rise_with_time() -> None:
    before = first_id_at(datetime.now(UTC) - timedelta(seconds=1))
    after = first_id_at(datetime.now(UTC) + timedelta(seconds=1))

    assert before < new_job_id() < after


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(state=DEAD, type="order", tenant="a", reason="attempts"),
        Selection(correlation_id="x", service="shop", schedule="s", q="job-1"),
        Selection(since=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        Selection(ids=(new_job_id(), new_job_id())),
    ],
    ids=["all", "dead", "texts", "since", "ids"],
)
def test_kept_as_json_it_means_the_same(selection: Selection) -> None:
    assert Selection.from_json(selection.to_json()) == selection


@pytest.mark.parametrize(
    "stored",
    [
        None,
        {},
        {"ids": []},
        {"ids": ["no id"]},
        {"filters": {"state": "dead", "colour": "red"}},
        {"filters": {"since": "yesterday"}},
        {"filters": []},
    ],
    ids=["none", "empty", "no-ids", "bad-id", "unknown-filter", "bad-time", "list"],
)
def test_what_is_not_understood_is_refused_rather_than_taken_for_every_job(stored: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Selection.from_json(stored)


def test_each_filter_narrows() -> None:
    order, mail = make_type("order"), make_type("mail")
    first = make_job(order, DEAD, service="shop", tenant="acme", correlation_id="c-1")
    make_job(mail, QUEUED)
    ended = make_job(order, SUCCEEDED)

    def found(**filters: Any) -> set[str]:
        rows = Selection(**filters).apply(Job.objects.all())
        return {str(pk) for pk in rows.values_list("pk", flat=True)}

    one = {str(first.pk)}
    assert found(state=DEAD) == one
    assert found(state="finished") == one | {str(ended.pk)}
    assert found(type="order", state="finished") == one | {str(ended.pk)}
    assert found(tenant="acme") == found(service="shop") == found(correlation_id="c-1") == one
    assert found(q="c-1") == found(q=str(first.pk)) == found(reason="attempts") == one
    assert len(found()) == 3
    assert found(since=datetime.now(UTC) + timedelta(minutes=1)) == set()
    assert len(found(until=datetime.now(UTC) + timedelta(minutes=1))) == 3


def test_a_batch_goes_on_after_the_last_and_knows_what_an_action_can_do() -> None:
    row = make_type()
    jobs = [make_job(row, state) for state in (DEAD, SUCCEEDED, CANCELLED, DEAD)]
    wanted = [jobs[0].pk, jobs[2].pk, jobs[3].pk]
    everything = Selection()

    first = everything.batch("retry", after=None, until=None, limit=2)
    rest = everything.batch("retry", after=first[-1], until=None, limit=2)

    assert [*first, *rest] == wanted
    assert everything.batch("retry", after=None, until=jobs[0].pk, limit=9) == wanted[:1]
    assert everything.batch("discard", after=None, until=None, limit=9) == [jobs[0].pk, jobs[3].pk]
    assert everything.count("retry", until=None, limit=100) == 3
    assert everything.count("retry", until=None, limit=2) == 2
    assert Selection(state=SUCCEEDED).states_for("retry") == ()


def test_a_batch_is_found_by_the_index_of_its_state() -> None:
    with CaptureQueriesContext(
        connection,
    ) as asked:
        Selection().batch("discard", after=new_job_id(), until=None, limit=500)

    assert len(asked) == len(APPLIES["discard"])
    plan = Job.objects.filter(state=DEAD, pk__gt=new_job_id()).order_by("pk")[:500].explain()
    if connection.vendor == "sqlite":
        assert "jobs_job_state" in plan
        assert "TEMP B-TREE" not in plan


def test_ids_from_a_form_are_ids_or_nothing() -> None:
    key = new_job_id()

    assert of_ids([str(key), key.hex], at_most=5) == Selection(ids=(key,))
    assert of_ids([], at_most=5) is None
    assert of_ids([str(key), "x"], at_most=5) is None
    assert of_ids([str(new_job_id()) for _ in range(6)], at_most=5) is None
