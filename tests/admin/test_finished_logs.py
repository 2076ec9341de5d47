"""The books of a process that was killed are closed by whoever has delivered its log."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from control.models import Process
from sinks import finished
from sinks.finished import FinishedLogs
from tests.admin.cast import ledger_row, make_process

pytestmark = pytest.mark.django_db

LAST: dict[str, Any] = {
    "log_id": "gone",
    "corrupt_records": 500,
    "corrupt_frames": 1,
    "ledger": [
        ledger_row(
            sink="database", accepted=10_100, stored=9_600, dropped={"corrupt": 500}, in_flight=0
        )
    ],
}


def killed(**changes: Any) -> Process:
    ledger = [ledger_row(sink="database", accepted=10_100, stored=0, in_flight=10_100)]
    values = {"log_id": "gone", "stopped_at": timezone.now(), "ledger": ledger, "pid": 99}
    return make_process(**{**values, **changes})


def test_the_last_ledger_replaces_that_of_the_last_heartbeat(admin_client: Client) -> None:
    make_process()
    process = killed()
    logs = FinishedLogs()
    logs.log_finished("gone", LAST)
    logs.write()
    process.refresh_from_db()
    assert process.ledger[0]["stored"] == 9_600
    assert process.stats["delivered"]["corrupt_records"] == 500
    assert process.stats["pipelines"]
    html = admin_client.get("/admin/").content.decode()
    assert "what it left in its log was delivered" in html
    assert "corrupt 500" in html


def test_it_waits_until_the_process_counts_as_ended() -> None:
    process = killed(stopped_at=None)
    logs = FinishedLogs()
    logs.log_finished("gone", LAST)
    logs.write()
    process.refresh_from_db()
    assert process.ledger[0]["stored"] == 0
    Process.objects.update(stopped_at=timezone.now())
    logs.write()
    process.refresh_from_db()
    assert process.ledger[0]["stored"] == 9_600


def test_a_log_without_a_process_is_given_up_and_what_waits_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finished, "MAX_ROUNDS", 1)
    monkeypatch.setattr(finished, "MAX_WAITING", 2)
    logs = FinishedLogs()
    for name in ("a", "b", "c"):
        logs.log_finished(name, LAST)
    assert list(logs._waiting) == ["b", "c"]
    logs.write()
    logs.write()
    assert logs._waiting == {}


@pytest.mark.django_db(transaction=True)
def test_a_stop_waits_for_no_farewell_as_nobody_could_write_it_later() -> None:
    process = killed(stopped_at=None)
    logs = FinishedLogs()
    logs.log_finished("gone", LAST)
    logs.write_last(60.0)
    process.refresh_from_db()
    assert process.ledger[0]["stored"] == 9_600
    assert logs._waiting == {}


def test_a_stop_does_not_wait_for_a_database_that_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> bool:
        asked.set()
        assert answer.wait(180)
        return True

    logs = FinishedLogs()
    monkeypatch.setattr(logs, "_close", hang)
    logs.write_last()
    assert not asked.is_set()  # nothing waits: nobody is asked
    logs.log_finished("gone", LAST)
    logs.write_last(0.01)
    assert asked.wait(180)
    assert "still show records that were delivered" in caplog.text
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "ledgers-at-stop":
            thread.join(180)
    assert logs._waiting == {}
