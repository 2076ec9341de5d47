"""Every page of jobs: accessible, within a phone's width, inert, in light and dark; and at work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import expect

from jobs.bulk.models import BulkAction
from jobs.bulk.selection import Selection
from jobs.bulk.worker import BulkWorker
from jobs.models import Job, JobSchedule, JobStep
from jobs.states import CANCELLED, DEAD, QUEUED, RUNNING, SCHEDULED, SUCCEEDED
from jobs.store.database import store
from jobs.types import catalogue
from tests.browser.conftest import TIMEOUT_MS, OpenPage, serious_findings, too_wide
from tests.jobs.admin.cast import (
    EVIL,
    living_runner,
    make_held,
    make_job,
    make_minutes,
    make_type,
    told_of,
)

pytestmark = pytest.mark.django_db(transaction=True)

BOARD, LIST = "/admin/jobs/", "/admin/jobs/job/"
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def _patience() -> Iterator[None]:
    expect.set_options(timeout=TIMEOUT_MS)
    yield
    expect.set_options(timeout=5_000)


def _many() -> Job:
    order = make_type("order-with-a-long-name-" * 2, payload_schema={"type": "object"})
    for state in (SUCCEEDED, CANCELLED, SCHEDULED, RUNNING, QUEUED):
        make_job(order, state, service="shop")
    dead = make_job(
        order, DEAD, error=f"payments answered 503 {EVIL} " * 5, correlation_id="c" * 128,
        payload={EVIL: ["x" * 200]}, service="a-service-with-a-long-name-" * 5,
    )  # fmt: skip
    make_held(order, f"payments cannot be called as it is configured: {EVIL} is not set")
    JobStep.objects.filter(job_id=dead.pk).update(error=EVIL + "long" * 100)
    make_minutes(order)
    service = order.steps.select_related("downstream").first()
    assert service is not None
    assert service.downstream is not None
    living_runner(
        downstreams=[
            told_of(service.downstream.name, "open", cause=EVIL + "x" * 200, retry_in_s=9,
                    failures=9, trips=2)
        ]
    )  # fmt: skip
    JobSchedule.objects.create(name="nightly", type=order, cron="@daily", last_error=EVIL)
    return dead


def _board() -> str:
    _many()
    return BOARD


def _empty_board() -> str:
    return BOARD


def _list() -> str:
    _many()
    return LIST


def _dead_job() -> str:
    return f"{LIST}{_many().pk}/change/"


def _waiting_job() -> str:
    return f"{LIST}{make_job(make_type('order'), SCHEDULED).pk}/change/"


def _held_job() -> str:
    row = make_type("order")
    held = make_held(row, f"payments is not called now: its breaker is open: {EVIL} " + "x" * 200)
    return f"{LIST}{held.pk}/change/"


def _asking() -> str:
    _many()
    return f"{LIST}bulk/reprioritise/?state=open"


def _bulk_action() -> str:
    row = BulkAction.objects.create(
        action="retry", selection=Selection(state=DEAD, q=EVIL[:60]).to_json(), expected=10,
        looked_at=4, changed=3, created_at=datetime.now(UTC), error=EVIL,
    )  # fmt: skip
    return f"/admin/jobs/bulkaction/{row.pk}/change/"


def _type() -> str:
    return f"/admin/jobs/jobtype/{_many().type_id}/change/"


def _service() -> str:
    step = _many().type.steps.first()
    assert step is not None
    return f"/admin/jobs/downstreamservice/{step.downstream_id}/change/"


def _schedule() -> str:
    _many()
    return f"/admin/jobs/jobschedule/{JobSchedule.objects.get().pk}/change/"


def _submit() -> str:
    return f"/admin/jobs/jobtype/{make_type('order').pk}/submit/"


PAGES: dict[str, Callable[[], str]] = {
    "board": _board, "empty board": _empty_board, "list": _list, "dead job": _dead_job,
    "waiting job": _waiting_job, "held job": _held_job, "asking": _asking,
    "bulk action": _bulk_action, "type": _type, "service": _service, "schedule": _schedule,
    "submit": _submit,
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_narrow_and_inert(open_page: OpenPage, name: str) -> None:
    path = PAGES[name]()

    page = open_page(path)
    assert page.locator("h1").first.is_visible()
    assert serious_findings(page) == []
    page.emulate_media(color_scheme="dark")
    assert serious_findings(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert not too_wide(page)
    assert page.locator("img[src=x]").count() == 0


def test_jobs_are_retried_from_the_list_in_the_background(open_page: OpenPage) -> None:
    order = make_type("order")
    for _ in range(3):
        make_job(order, DEAD)
    page = open_page(f"{LIST}?state=dead")

    page.get_by_role("link", name="Retry…").click()
    expect(page.get_by_text("3 jobs")).to_be_visible()
    page.get_by_role("button", name="Retry these jobs").click()
    expect(page.get_by_role("status")).to_contain_text("Waits")
    worker = BulkWorker(process="p", store=store, now=lambda: datetime.now(UTC))
    worker.look()
    assert worker.join(WAIT_S)

    # The open page tells of it by itself.
    expect(page.get_by_role("status")).to_contain_text("Done: 3 of 3 jobs dealt with, 3 changed")
    assert Job.objects.filter(state=QUEUED).count() == 3


def test_a_job_is_cancelled_by_keyboard(open_page: OpenPage) -> None:
    job = make_job(make_type("order"))
    page = open_page(f"{LIST}{job.pk}/change/")

    page.get_by_role("button", name="Cancel").focus()
    page.keyboard.press("Enter")

    expect(page.get_by_text("It is cancelled.")).to_be_visible()
    expect(page.get_by_role("button", name="Retry")).to_be_visible()


def test_the_fields_of_a_step_are_those_of_its_kind(open_page: OpenPage) -> None:
    row = make_type("order", steps=("charge",))
    page = open_page(f"/admin/jobs/jobtype/{row.pk}/change/")
    path, function = page.locator("#id_steps-0-path"), page.locator("#id_steps-0-handler")
    expect(path).to_be_visible()
    expect(function).to_be_hidden()

    page.locator("#id_steps-0-kind").select_option("handler")

    expect(path).to_be_hidden()
    expect(function).to_be_visible()


def test_the_board_goes_on_by_itself(open_page: OpenPage) -> None:
    living_runner()
    order = make_type("order")
    make_job(order)
    page = open_page(BOARD)
    expect(page.locator("#state-dead")).to_have_text("0")

    make_job(order, DEAD)
    # Sooner than it would by itself.
    page.evaluate("window.htmx.trigger('#panels', 'refresh')")

    expect(page.locator("#state-dead")).to_have_text("1")
    expect(page.get_by_text(re.compile("1 job of order is dead"))).to_be_visible()


def test_a_schedule_is_tried_by_keyboard(open_page: OpenPage) -> None:
    row = make_type("order")
    catalogue.refresh()
    made = JobSchedule.objects.create(name="nightly", type=row, cron="@yearly")
    page = open_page(f"/admin/jobs/jobschedule/{made.pk}/change/")

    page.get_by_role("button", name="Submit one now").focus()
    page.keyboard.press("Enter")

    expect(page.get_by_role("link", name="a job", exact=True)).to_be_visible()
    assert Job.objects.get().schedule == "nightly"
