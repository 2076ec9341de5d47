"""The list of jobs, one job's story, and what is asked of one or of many."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from jobs.admin import gantt
from jobs.bulk.models import BulkAction
from jobs.models import Job, JobEvent, JobStep
from jobs.states import CANCELLED, DEAD, DISCARDED, QUEUED, RUNNING, SCHEDULED, SUCCEEDED
from tests.jobs.admin.cast import EVIL, make_held, make_job, make_type

pytestmark = pytest.mark.django_db

LIST = "/admin/jobs/job/"


def page_of(job: Job) -> str:
    return f"{LIST}{job.pk}/change/"


def shown(client: Client, query: str = "") -> list[Job]:
    return list(client.get(f"{LIST}{query}").context["cl"].result_list)


def test_newest_first_a_page_at_a_time(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = make_type()
    jobs = [make_job(row) for _ in range(5)]
    newest = sorted((one.pk for one in jobs), reverse=True)
    monkeypatch.setattr("jobs.admin.jobadmin.JobAdmin.list_per_page", 2)

    first = admin_client.get(LIST).context["cl"]
    older = admin_client.get(LIST + first.older_link).context["cl"]

    assert [one.pk for one in (*first.result_list, *older.result_list)] == newest[:4]
    assert shown(admin_client, "?after=oldest")[-1].pk == newest[-1]


def test_found_by_id_correlation_id_state_type_and_service(admin_client: Client) -> None:
    order, mail = make_type("order"), make_type("mail")
    one = make_job(order, DEAD, correlation_id="c-7", service="shop")
    make_job(mail)

    for query in (f"q={one.pk}", f"q={one.pk.hex}", "q=c-7", "state=dead", "type=order",
                  "service=shop", "correlation_id=c-7", "reason=attempts"):  # fmt: skip
        assert [row.pk for row in shown(admin_client, f"?{query}")] == [one.pk], query
    assert shown(admin_client, "?q=nothing") == []
    assert shown(admin_client, "?state=none-such") == []
    assert (
        admin_client.get(f"{LIST}?since=2026-02-01T00:00&until=2026-01-01T00:00").status_code == 200
    )


def test_any_column_through_the_address_is_not_answered(admin_client: Client) -> None:
    answer = admin_client.get(f"{LIST}?payload__user_id=456")

    assert answer.status_code in (302, 400)


def test_a_dead_job_tells_its_whole_story(admin_client: Client) -> None:
    job = make_job(make_type("order"), DEAD, error="payments answered 503")

    page = admin_client.get(page_of(job)).content.decode()

    for words in (
        "order", str(job.pk), "attempts", "As many attempts as its type allows failed",
        "payments answered 503", "charge", "mail", "host-a:4711 jobs-1", job.correlation_id,
        "user_id", "charged", "Retry", "Discard",
    ):  # fmt: skip
        assert words in page, words
    assert page.count('class="entry-') == JobEvent.objects.filter(job_id=job.pk).count()


def test_what_came_from_outside_is_inert(admin_client: Client) -> None:
    row = make_type()
    job = make_job(row, DEAD, error=EVIL, payload={EVIL: EVIL}, correlation_id=EVIL, service=EVIL)
    JobEvent.objects.filter(job_id=job.pk).update(worker=EVIL[:60], text=EVIL + "\u202e")
    JobStep.objects.filter(job_id=job.pk).update(result={EVIL: [EVIL]}, error=EVIL)

    for path in (page_of(job), LIST, "/admin/jobs/"):
        page = admin_client.get(path).content.decode()
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "\u202e" not in page


def test_only_an_open_job_is_fetched_again(admin_client: Client) -> None:
    row = make_type()
    running, ended = make_job(row, RUNNING), make_job(row, SUCCEEDED)

    assert f"{running.pk}/story/" in admin_client.get(page_of(running)).content.decode()
    assert "hx-get" not in admin_client.get(page_of(ended)).content.decode()
    fragment = admin_client.get(f"{LIST}{running.pk}/story/").content.decode()
    assert "<html" not in fragment
    assert "has it" in fragment


@pytest.mark.parametrize(
    ("state", "name", "becomes"),
    [
        (DEAD, "retry", QUEUED),
        (CANCELLED, "retry", QUEUED),
        (SCHEDULED, "retry", QUEUED),
        (QUEUED, "cancel", CANCELLED),
        (SCHEDULED, "cancel", CANCELLED),
        (RUNNING, "cancel", RUNNING),
        (DEAD, "discard", DISCARDED),
        (SUCCEEDED, "retry", SUCCEEDED),
        (SUCCEEDED, "cancel", SUCCEEDED),
        (QUEUED, "discard", QUEUED),
    ],
)
def test_asked_of_one(admin_client: Client, state: str, name: str, becomes: str) -> None:
    job = make_job(make_type(), state)

    answer = admin_client.post(f"{LIST}{job.pk}/ask/{name}/", follow=True)

    job.refresh_from_db()
    assert job.state == becomes
    (message,) = answer.context["messages"]
    if state == RUNNING:
        assert job.cancel_asked_at is not None
        assert "runner was told" in str(message)
    elif state == becomes:
        assert "Nothing was changed" in str(message)


def test_a_priority_of_one(admin_client: Client) -> None:
    job = make_job(make_type())

    admin_client.post(f"{LIST}{job.pk}/ask/reprioritise/", {"priority": "9"})
    refused = admin_client.post(
        f"{LIST}{job.pk}/ask/reprioritise/", {"priority": "ten"}, follow=True
    )

    job.refresh_from_db()
    assert job.priority == 9
    assert "whole number" in refused.content.decode()


def test_who_may_only_look_asks_nothing(client_who_may: Callable[..., Client]) -> None:
    job = make_job(make_type(), DEAD)
    client = client_who_may("view_job")

    page = client.get(page_of(job)).content.decode()

    assert "Retry</button>" not in page
    assert "All that match" not in client.get(LIST).content.decode()
    assert client.post(f"{LIST}{job.pk}/ask/retry/").status_code == 403
    assert client.post(f"{LIST}bulk/retry/", {"confirmed": "1"}).status_code == 403
    assert client.get(f"{LIST}bulk/retry/").status_code == 403
    assert client.get(f"{LIST}{job.pk}/ask/retry/").status_code == 405
    job.refresh_from_db()
    assert job.state == DEAD


def test_who_may_not_look_sees_nothing(client_who_may: Callable[..., Client]) -> None:
    job = make_job(make_type(), DEAD)
    client = client_who_may()

    for path in (LIST, page_of(job), f"{LIST}{job.pk}/story/", "/admin/jobs/bulkaction/"):
        assert client.get(path).status_code == 403


def test_all_that_match_are_asked_about_then_done_in_the_background(
    admin_client: Client, admin_user: Any
) -> None:
    order = make_type("order")
    for _ in range(3):
        make_job(order, DEAD)
    make_job(make_type("other"), DEAD)
    page = admin_client.get(f"{LIST}?state=dead&type=order").content.decode()
    assert "bulk/retry/?state=dead&amp;type=order" in page
    assert "bulk/cancel/" not in page  # nothing of it could be

    asked = admin_client.get(f"{LIST}bulk/retry/?state=dead&type=order").content.decode()
    assert "<strong>3 jobs</strong>: jobs with state dead, type order" in asked
    answer = admin_client.post(
        f"{LIST}bulk/retry/?state=dead&type=order", {"confirmed": "1"}, follow=True
    )

    row = BulkAction.objects.get()
    assert row.selection == {"filters": {"state": "dead", "type": "order"}}
    assert row.asked_by == admin_user
    assert Job.objects.filter(state=DEAD).count() == 4  # nothing happens in the request
    page = answer.content.decode()
    assert f"/admin/jobs/bulkaction/{row.pk}/progress/" in page
    admin_client.post(f"/admin/jobs/bulkaction/{row.pk}/stop/")
    row.refresh_from_db()
    assert row.finished_at is not None


def test_chosen_ones(admin_client: Client) -> None:
    row = make_type()
    jobs = [make_job(row) for _ in range(3)]
    chosen = [str(one.pk) for one in jobs[:2]]

    asked = admin_client.post(
        LIST, {"action": "reprioritise_chosen", "_selected_action": chosen}
    ).content.decode()
    assert "<strong>2 jobs</strong>" in asked
    admin_client.post(
        f"{LIST}bulk/reprioritise/", {"ids": chosen, "confirmed": "1", "priority": "8"}
    )

    begun = BulkAction.objects.get()
    assert sorted(begun.selection["ids"]) == sorted(chosen)
    assert begun.args == {"priority": 8}
    assert begun.expected == 2


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("bulk/retry/?state=none-such", {"confirmed": "1"}),
        ("bulk/retry/", {"confirmed": "1", "ids": ["x"]}),
        ("bulk/reprioritise/", {"confirmed": "1", "priority": "11"}),
    ],
    ids=["filter", "ids", "priority"],
)
def test_what_cannot_be_told_begins_nothing(
    admin_client: Client, path: str, data: dict[str, Any]
) -> None:
    make_job(make_type(), QUEUED)

    admin_client.post(LIST + path, data)

    assert not BulkAction.objects.exists()
    assert admin_client.get(f"{LIST}bulk/burn/").status_code == 404


def test_a_type_that_is_gone_hides_no_job(admin_client: Client) -> None:
    row = make_type()
    job = make_job(row, SUCCEEDED)
    type(row).objects.filter(pk=row.pk)._raw_delete("default")  # type: ignore[attr-defined]

    assert admin_client.get(page_of(job)).status_code == 200
    assert admin_client.get(LIST).status_code == 200


def test_the_bars_of_a_job_add_up_to_its_time() -> None:
    job = make_job(make_type(), SUCCEEDED)
    events = list(JobEvent.objects.filter(job_id=job.pk).order_by("pk"))
    steps = list(JobStep.objects.filter(job_id=job.pk))

    spans = gantt.spans_of(job, events, timezone.now())
    rows = gantt.chart(job, events, steps, timezone.now())

    assert [one.kind for one in spans] == [QUEUED, RUNNING]
    assert spans[0].end == spans[1].start
    assert [row.label for row in rows] == ["The job", "charge"]
    assert gantt.chart(job, [], [], timezone.now()) == []


def test_each_failed_attempt_has_its_bar() -> None:
    row = make_type("order")
    job = make_job(row, SCHEDULED)
    begins = job.created_at
    story = [
        (0, QUEUED, ""), (1, RUNNING, ""), (2, SCHEDULED, "step charge: payments answered 503"),
        (3, QUEUED, ""), (4, RUNNING, ""),
        (5, SCHEDULED, "step charge: payments is not called now: its breaker is open: 503"),
        (6, QUEUED, ""), (7, RUNNING, ""), (9, SUCCEEDED, "1 of 1 steps succeeded"),
    ]  # fmt: skip
    events = [
        JobEvent(job_id=job.pk, at=begins + timedelta(seconds=at), state=state, claim=1, text=text)
        for at, state, text in story
    ]
    step = JobStep(
        job_id=job.pk, name="charge", state="succeeded", attempts=2, duration_ms=2_000.0,
        started_at=begins + timedelta(seconds=7), finished_at=begins + timedelta(seconds=9),
    )  # fmt: skip

    own, charge = gantt.chart(job, events, [step], begins)

    kinds = [(one.kind, one.start) for one in own.spans if one.kind in (gantt.FAILED, RUNNING)]
    assert kinds == [(gantt.FAILED, 1.0), (RUNNING, 4.0), (RUNNING, 7.0)]
    assert [(one.kind, one.start, one.end) for one in charge.spans] == [
        ("step-failed", 1.0, 2.0), ("step-succeeded", 7.0, 9.0),
    ]  # fmt: skip
    assert "payments answered 503" in charge.bar
    # What was held back was not called.
    step.state, step.error = "retrying", "payments is not called now: its breaker is open: 503"
    assert [one.start for one in gantt.chart(job, events[:6], [step], begins)[1].spans] == [1.0]


def test_a_job_for_later_is_run_now(admin_client: Client) -> None:
    row = make_type("order")
    job, other = make_job(row, SCHEDULED), make_job(row, SCHEDULED)

    assert "Run it now" in admin_client.get(page_of(job)).content.decode()
    assert "Run now…" in admin_client.get(f"{LIST}?state=scheduled").content.decode()
    asking = admin_client.get(f"{LIST}bulk/retry/?state=scheduled").content.decode()
    assert "2 jobs" in asking
    # Who retries whatever there is does not mean what is planned for later.
    assert admin_client.get(f"{LIST}bulk/retry/?type=order").status_code == 302
    admin_client.post(f"{LIST}{job.pk}/ask/retry/")

    job.refresh_from_db()
    other.refresh_from_db()
    assert (job.state, job.run_at <= timezone.now(), other.state) == (QUEUED, True, SCHEDULED)
    last = JobEvent.objects.filter(job_id=job.pk).latest("pk")
    assert last.text == "run before its time, asked by admin"


def test_a_job_that_is_held_says_by_what(admin_client: Client) -> None:
    row = make_type("order")
    held = make_held(row, "payments cannot be called as it is configured: KEY is not set")

    page = admin_client.get(page_of(held)).content.decode()

    assert "It waits: payments cannot be called (KEY is not set)" in page


def test_a_job_that_waits_for_its_types_limit_says_so(admin_client: Client) -> None:
    row = make_type("order", max_concurrent=1)
    make_job(row, RUNNING)

    page = admin_client.get(page_of(make_job(row))).content.decode()

    assert "at most 1 of its type" in page


def test_a_job_is_submitted_again_with_its_payload(
    admin_client: Client, client_who_may: Callable[..., Client]
) -> None:
    job = make_job(make_type("order"), SUCCEEDED, payload={"user_id": 98765}, service="shop")
    again = f"/admin/jobs/jobtype/{job.type_id}/submit/?like={job.pk}"

    assert f'href="{again}"' in admin_client.get(page_of(job)).content.decode()
    form = admin_client.get(again).content.decode()
    blind = client_who_may("add_job", "view_jobtype").get(again).content.decode()

    assert "98765" in form
    assert "shop" in form
    assert "98765" not in blind
    assert admin_client.get(again.partition("=")[0] + "=nonsense").status_code == 200


def test_who_cancelled_it_and_how_long_it_took_in_all(admin_client: Client) -> None:
    job = make_job(make_type("order"), CANCELLED)
    Job.objects.filter(pk=job.pk).update(finished_at=job.created_at + timedelta(seconds=21))

    assert "Cancelled by somebody, " in admin_client.get(page_of(job)).content.decode()
    listed = admin_client.get(LIST).content.decode()
    assert "in all" in listed
    assert "cancelled on request" in listed


def test_an_action_that_does_nothing_says_why_and_keeps_the_filter(admin_client: Client) -> None:
    make_job(make_type("order"), SUCCEEDED)

    answer = admin_client.get(f"{LIST}bulk/retry/?state=succeeded&type=order", follow=True)

    assert answer.redirect_chain[0][0] == f"{LIST}?state=succeeded&type=order"
    assert "it takes those that are dead, cancelled, scheduled" in answer.content.decode()
