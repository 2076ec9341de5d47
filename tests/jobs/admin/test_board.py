"""The face of jobs: problems first, counts without counting, failing types first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from control.ports.panels import Problem
from jobs.admin import counting, held, problems, runners
from jobs.admin.board import TypeRow, type_rows
from jobs.admin.minutes import Hour, charts
from jobs.models import JobCount, JobMinute, JobSchedule
from jobs.states import DEAD, QUEUED, RUNNING, SCHEDULED, STATES, SUCCEEDED
from jobs.types import catalogue
from tests.jobs.admin.cast import (
    EVIL,
    living_runner,
    make_downstream,
    make_held,
    make_job,
    make_minutes,
    make_type,
    told_of,
)

pytestmark = pytest.mark.django_db

BOARD = "/admin/jobs/"


def found() -> dict[str, Problem]:
    return {one.title: one for one in problems.found()}


def test_it_shows_counts_types_services_and_runners(admin_client: Client) -> None:
    order = make_type("order")
    for state in (QUEUED, SCHEDULED, SUCCEEDED, DEAD):
        make_job(order, state)
    make_minutes(order)
    make_downstream("payments")
    living_runner(downstreams=[told_of("payments", "open", cause="503", calls=8, failures=6)])

    page = admin_client.get(BOARD).content.decode()

    for state in STATES:
        assert f'href="/admin/jobs/job/?state={state}"' in page
    assert "The breaker of payments is open" in page
    assert "host-a" in page
    assert 'id="chart-jobs-depth"' in page
    assert 'id="chart-jobs-duration"' in page


def test_the_fragment_is_the_page_without_its_frame(admin_client: Client) -> None:
    living_runner()
    make_job(make_type("order"))

    shown = admin_client.get(f"{BOARD}job/board/", headers={"HX-Request": "true"})

    assert b"<html" not in shown.content
    assert b"Jobs by state" in shown.content


def test_an_open_page_whose_session_ended_goes_to_the_login(client: Client) -> None:
    answer = client.get(f"{BOARD}job/board/", headers={"HX-Request": "true"})

    assert answer.status_code == 204
    assert answer.headers["HX-Redirect"] == "/admin/login/?next=/admin/jobs/"


def test_who_may_not_view_jobs_sees_none(client_who_may: Callable[..., Client]) -> None:
    make_job(make_type("order"), DEAD)

    page = client_who_may("view_jobtype").get(BOARD).content.decode()

    assert "shown to those who may view them" in page
    assert "state=dead" not in page


@pytest.mark.parametrize("path", [BOARD, "/admin/jobs/job/"], ids=["board", "list"])
def test_jobs_are_never_counted_in_their_table(admin_client: Client, path: str) -> None:
    order = make_type("order")
    living_runner()
    for state in (QUEUED, SUCCEEDED, DEAD):
        make_job(order, state)

    def asked() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(path).status_code == 200
        return [one["sql"] for one in queries.captured_queries if "SAVEPOINT" not in one["sql"]]

    few = asked()
    for _ in range(20):
        make_job(order, SUCCEEDED)
    many = asked()

    assert len(many) == len(few)
    of_jobs = [sql for sql in many if 'FROM "jobs_job"' in sql]
    assert of_jobs
    for sql in of_jobs:
        assert "COUNT(" not in sql
        assert "LIMIT" in sql


def test_failing_types_stand_first_then_those_that_have_something_to_do() -> None:
    quiet, busy, failing = make_type("a-quiet"), make_type("b-busy"), make_type("c-failing")
    make_minutes(failing, dead=2)
    make_minutes(busy, dead=0)
    make_job(busy)
    counts = counting.counts()

    rows = type_rows(counts, Hour(timezone.now(), counts))

    names = [row.type.name for row in rows if row.type in (quiet, busy, failing)]
    assert names == ["c-failing", "b-busy", "a-quiet"]
    first = rows[0]
    assert (first.hour.dead, first.hour.succeeded, first.failing) == (60, 240, True)
    assert first.hour.mean_s == pytest.approx(4.5 / 10)


def test_depth_is_carried_over_minutes_in_which_nothing_happened() -> None:
    now = timezone.now().replace(second=30, microsecond=0)
    minute = now.replace(second=0)
    moved, still = make_type(), make_type()

    def at(back: int, queued: int) -> None:
        moment = minute - timedelta(minutes=back)
        JobMinute.objects.create(type=moved, at=moment, queued=queued, succeeded=1, seconds=2.0)

    at(90, 7)
    at(30, 3)
    JobCount.objects.create(type=still, state=QUEUED, jobs=10)
    JobCount.objects.create(type=moved, state=QUEUED, jobs=1)
    hour = Hour(now, counting.counts())

    depth = hour.depth(QUEUED)

    assert len(depth) == 60
    assert (depth[0], depth[28], depth[29], depth[58], depth[59]) == (17, 17, 13, 13, 11)
    assert [one for one in hour.mean_s() if one is not None] == [2.0]


def test_services_are_what_all_living_runners_say_together() -> None:
    one = living_runner(downstreams=[told_of("pay", calls=10, in_flight=2), "garbage", {}])
    two = living_runner(
        downstreams=[told_of("pay", "half-open", calls=5, failures=4, cause="resets")]
    )
    one.pk, two.pk = "one", "two"
    dead = living_runner(seen_ago_s=3_600, downstreams=[told_of("pay", "open", calls=99)])
    shown = [runners.ShownRunner(runner=row, alive=row is not dead) for row in (one, two, dead)]

    (health,) = runners.downstreams(shown).values()

    assert (health.breaker, health.cause, health.open_in, health.runners) == (
        "half_open", "resets", 1, 2,
    )  # fmt: skip
    assert (health.calls, health.failures, health.in_flight) == (15, 4, 2)


@pytest.mark.parametrize(
    "figures",
    [None, [], {"downstreams": "x"}, {"downstreams": [{"name": 5}]}, {"workers": "many"},
     {"downstreams": [{"name": "pay", "breaker": EVIL, "calls": "x", "retry_in_s": {}}]}],
    ids=["none", "list", "text", "number", "words", "evil"],
)  # fmt: skip
def test_a_runner_that_tells_nonsense_breaks_nothing(admin_client: Client, figures: Any) -> None:
    row = living_runner()
    row.figures = figures if figures is not None else {}
    row.save()
    make_downstream("pay")
    make_job(make_type())

    page = admin_client.get(BOARD)

    assert page.status_code == 200
    assert EVIL.encode() not in page.content


# --- problems -----------------------------------------------------------------------------------


def test_nothing_is_wrong_where_nothing_is_there() -> None:
    assert found() == {}


def test_nobody_runs_jobs_while_some_wait() -> None:
    make_job(make_type("order"))
    living_runner(seen_ago_s=600)

    (title,) = [one for one in found() if "Nobody runs jobs" in one]

    assert found()[title].severity == "error"
    living_runner()
    assert title not in found()


def test_dead_jobs_are_told_by_type_with_their_commonest_reason() -> None:
    living_runner()
    order = make_type("order")
    for error in ("payments answered 503", "payments answered 503", "timeout"):
        make_job(order, DEAD, error=error)

    problem = found()["3 jobs of order are dead"]

    assert "2 of the last 3: attempts used up (payments answered 503)" in problem.cause
    assert problem.url == "/admin/jobs/job/?state=dead&type=order"


def test_the_queue_is_full(settings: Any) -> None:
    living_runner()
    row = make_type("order")
    JobCount.objects.create(type=row, state=QUEUED, jobs=settings.COLLECTOR.jobs.capacity + 1)

    problem = found()["New jobs are refused: the queue is full"]

    assert problem.severity == "error"
    assert "order" in problem.cause


def test_a_job_that_has_waited_long() -> None:
    living_runner()
    job = make_job(make_type("order"))
    shown = runners.runners(timezone.now())

    def titles(now: Any) -> list[str]:
        return [one.title for one in problems.of(counting.counts(), shown, now)]

    assert "A job of order has waited for 10 min" in titles(job.run_at + 2 * problems.WAITS_LONG)
    assert not [one for one in titles(job.run_at + problems.WAITS_LONG / 2) if "waited" in one]


def test_a_type_that_cannot_be_used_and_a_schedule_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = make_type("order")
    JobSchedule.objects.create(name="nightly", type=row, cron="@daily", last_error="no such field")
    broken = catalogue.Catalogue(broken={"type order": "step mail: no service"})
    monkeypatch.setattr(catalogue, "_current", broken)

    titles = found()

    assert titles["The schedule nightly fails"].cause == "nightly: no such field."
    (problem,) = [one for title, one in titles.items() if "cannot be used" in title]
    assert "step mail: no service" in problem.cause
    assert problem.url == f"/admin/jobs/jobtype/{row.pk}/change/"


UNUSABLE = (
    "payments cannot be called as it is configured: Authorization: environment variable "
    "PAYMENTS_KEY is not set in this process; set it and restart"
)
BREAKER = "payments is not called now: its breaker is open: 503"


def test_a_service_that_cannot_be_called_is_an_error(admin_client: Client) -> None:
    order = make_type("order")
    service = make_downstream("payments")
    make_held(order, UNUSABLE)
    make_held(order, UNUSABLE)
    living_runner()

    problem = found()["payments cannot be called as it is configured"]
    page = admin_client.get(BOARD).content.decode()

    assert problem.severity == "error"
    assert "PAYMENTS_KEY is not set" in problem.cause
    assert "2 of order" in problem.cause
    assert problem.url == f"/admin/jobs/downstreamservice/{service.pk}/change/"
    assert "payments cannot be called: 2 wait" in page
    assert "not called yet" in page  # the type's other service
    assert "Nothing is wrong" not in page


def row_of(name: str) -> TypeRow:
    counts = counting.counts()
    shown = runners.runners(timezone.now())
    rows = type_rows(counts, Hour(timezone.now(), counts), shown, held.held())
    return next(one for one in rows if one.type.name == name)


def test_a_type_whose_jobs_are_held_is_not_well() -> None:
    order, quiet = make_type("order"), make_type("quiet")
    assert row_of("order").word == "well"
    make_held(order, BREAKER)
    make_job(order, SCHEDULED)  # for later, and held by nothing

    row = row_of("order")

    assert (row.word, row.held) == ("delayed", "payments is not called now: 1 wait")
    make_held(order, UNUSABLE)
    assert row_of("order").word == "held"
    assert row_of(quiet.name).word == "well"


def test_a_type_whose_service_has_an_open_breaker_is_delayed() -> None:
    order = make_type("order")
    catalogue.refresh()
    living_runner(downstreams=[told_of("of-order", "open", cause="503")])
    assert row_of("order").word == "well"

    make_job(order)

    assert row_of("order").held == "the breaker of of-order is open"


def test_a_type_at_its_limit_says_so() -> None:
    one_at_once, slow = make_type("one", max_concurrent=1), make_type("slow", rate_per_s=0.5)
    make_job(one_at_once, RUNNING)
    assert row_of("one").word == "well"
    make_job(one_at_once)
    make_job(slow)

    assert (row_of("one").word, row_of("one").held) == ("delayed", "1 wait: at most 1 at once")
    assert row_of("slow").held == "1 wait: at most 0.5 a second"


def test_a_runner_with_too_many_hung_workers_takes_no_more_jobs(admin_client: Client) -> None:
    make_job(make_type("order"))
    living_runner(hung=8, stuck=True)

    (problem,) = [one for title, one in found().items() if "takes no more jobs" in title]

    assert problem.severity == "error"
    assert not [title for title in found() if "hung" in title]
    assert "takes no more jobs" in admin_client.get(BOARD).content.decode()


def test_why_a_breaker_opened_and_what_is_not_known_without_a_runner(admin_client: Client) -> None:
    make_job(make_type("order"))
    make_downstream("payments")
    told = told_of("payments", "open", opened_by="hang of slow", trip_calls=3, trip_failures=2)
    living_runner(downstreams=[told])

    cause = found()["The breaker of payments is open"].cause
    page = admin_client.get(BOARD).content.decode()
    living_runner(seen_ago_s=600, downstreams=[told])
    alone = admin_client.get(BOARD).content.decode()

    for words in (cause, page):
        assert "It was opened by hang of slow. 2 of 3 calls had failed then." in words
    assert "not called yet" not in alone
    assert "not known: no runner" in alone


def test_the_dashboard_shows_jobs(admin_client: Client) -> None:
    page = admin_client.get("/admin/").content.decode()
    assert "No job was submitted yet" in page
    order = make_type("order")
    make_job(order, DEAD)
    make_job(order, RUNNING)
    make_minutes(order)

    page = admin_client.get("/admin/").content.decode()

    assert 'id="jobs-dead"' in page
    assert "dead in the last hour" in page


def test_a_runner_is_silent_soon_after_its_lease(settings: Any) -> None:
    lease_s = settings.COLLECTOR.jobs.lease_s
    living_runner(seen_ago_s=lease_s)
    assert [one.alive for one in runners.runners(timezone.now())] == [True]

    living_runner(seen_ago_s=lease_s + runners.GRACE_S + 1)

    assert [one.alive for one in runners.runners(timezone.now())] == [False]


def test_depth_is_drawn_as_lines_from_zero() -> None:
    make_job(make_type(), SCHEDULED)

    depth = charts(Hour(timezone.now(), counting.counts()))[0]

    assert not depth.stacked
    assert [one.name for one in depth.series] == [QUEUED, SCHEDULED, RUNNING]
