"""As an operator would: find the letter, read why, correct it, redrive it, see it stored."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import psycopg
import pytest

from sinks.deadletters import store
from sinks.deadletters.runner import Runner
from sinks.models import DeadLetter, RedriveTask, SinkConfig
from sinks.service import SinkService
from tests.browser.conftest import OpenPage, serious_findings, too_wide
from tests.deadletters.letters import letters
from tests.sinks.records import record

pytestmark = pytest.mark.django_db(transaction=True)

WAIT_S = 180.0


@pytest.fixture
def service(settings, tmp_path, transactional_db):
    server = dataclasses.replace(settings.COLLECTOR.server, data_dir=tmp_path)
    settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, server=server)
    SinkConfig.objects.all().delete()
    service = SinkService(on_report=lambda text: None)
    yield service
    service.stop(10.0)


def test_a_refused_record_is_corrected_and_stored(
    open_page: OpenPage, service: SinkService, postgres_dsn: str
) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE orders (amount int CONSTRAINT positive CHECK (amount >= 0))"
        )
    SinkConfig.objects.create(
        name="orders",
        backend="sinks.backends.postgres.PostgresSink",
        options={
            "dsn": postgres_dsn,
            "table": "orders",
            "columns": {"amount": "payload.amount"},
        },
        pipeline={"max_wait_s": 0.0},
    )
    service.start("test")
    sent = [record({"amount": n}) for n in (1, 2, -5, 4)]
    assert service.engine.offer(type="log", tenant="default", records=sent).wait(WAIT_S)

    page = open_page("/admin/")
    page.click("text=1 record of sink orders waits in dead letters")
    assert page.locator(".ops-table").first.inner_text().count("positive") >= 1
    page.click("text=/letter \\d+/")
    page.wait_for_selector("text=What to do:")
    assert "check constraint" in page.locator("[aria-label=Error]").inner_text()
    page.click("a:has-text('Edit the payload')")
    area = page.locator("textarea[name=payload]")
    area.fill(area.input_value().replace("-5", "-6").replace("}", ""))
    page.click("button:has-text('Save')")
    page.wait_for_selector("[role=alert]")
    area = page.locator("textarea[name=payload]")
    area.fill(area.input_value().rstrip() + "}")
    area.fill(area.input_value().replace("-6", "3"))
    page.click("button:has-text('Save')")
    page.wait_for_selector("text=The payload was edited")
    page.click("button:has-text('Redrive')")
    page.wait_for_selector("#progress")
    assert RedriveTask.objects.count() == 1
    runner = Runner(owner="test", engine=lambda: service.engine, now=lambda: datetime.now(UTC))
    runner.look()
    assert runner.join(WAIT_S)
    page.wait_for_selector("#progress [role=status]:has-text('done')")
    assert "1 stored" in page.locator("#progress").inner_text()
    with psycopg.connect(postgres_dsn) as connection:
        found = connection.execute("SELECT amount FROM orders ORDER BY amount").fetchall()
    assert found == [(1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("dark", [False, True])
def test_every_page_can_be_read_by_anybody(open_page: OpenPage, dark: bool) -> None:
    store.keep(letters(30, error="a long error " * 40))
    row = DeadLetter.objects.order_by("pk")[0]
    page = open_page("/admin/sinks/deadletter/redrive/", dark=dark)
    page.click("button:has-text('Redrive')")
    task = RedriveTask.objects.get()
    for path in (
        "/admin/sinks/deadletter/",
        "/admin/sinks/deadletter/groups/",
        f"/admin/sinks/deadletter/{row.pk}/change/",
        f"/admin/sinks/deadletter/{row.pk}/edit/",
        f"/admin/sinks/deadletter/discard/?ids={row.pk}",
        "/admin/sinks/redrivetask/",
        f"/admin/sinks/redrivetask/{task.pk}/change/",
        "/admin/sinks/deadletteraction/",
    ):
        page.goto(path)
        assert serious_findings(page) == [], path
        page.set_viewport_size({"width": 390, "height": 800})
        assert not too_wide(page), path
        page.set_viewport_size({"width": 1280, "height": 900})
