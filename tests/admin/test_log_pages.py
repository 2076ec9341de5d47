"""The page of logs, the quarantine, and what the dashboard says of them."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from control.admin import logdirs, logproblems, quarantine
from control.admin.overview import build
from control.ports.panels import Problem
from tests.admin.cast import EVIL, adopted_log, log_stats, make_process, pipeline_stats
from tests.admin.frames import frame_bytes

pytestmark = pytest.mark.django_db

PAGE = "/admin/log/"


@pytest.fixture
def wal(settings: Any, tmp_path: Path) -> Path:
    log = dataclasses.replace(settings.COLLECTOR.log, directory=tmp_path / "wal")
    settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, log=log)
    (tmp_path / "wal" / "quarantine").mkdir(parents=True)
    return tmp_path / "wal"


@pytest.fixture
def viewer(client: Client) -> Client:
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_process"))
    client.force_login(user)
    return client


def quarantined(wal: Path, name: str = "a1b2c3-2-4096.bin", data: bytes | None = None) -> Path:
    path = wal / "quarantine" / name
    path.write_bytes(frame_bytes(count=40, position=7)[:-8] + b"\xff" * 8 if data is None else data)
    return path


def log_directory(wal: Path, log_id: str, *, age_s: float = 0.0) -> Path:
    path = wal / log_id
    path.mkdir()
    segment = path / "segment-000000000001.seg"
    segment.write_bytes(b"\0" * 4096)
    then = time.time() - age_s
    os.utime(segment, (then, then))
    os.utime(path, (then, then))
    return path


def problems() -> list[Problem]:
    return logproblems.found(build(timezone.now()))


def stats(**changes: Any) -> dict[str, Any]:
    return {"pipelines": [pipeline_stats()], "alarms": [], "log": log_stats(**changes)}


def test_the_page_lists_living_adopted_and_orphaned_logs(admin_client: Client, wal: Path) -> None:
    for log_id in ("a1b2c3", "d4e5f6", "nobodys", ".being-made"):
        log_directory(wal, log_id)
    make_process(stats=stats(adopted=[adopted_log(corrupt_records=3)]))
    html = admin_client.get(PAGE).content.decode()
    assert "41.2 k" in html
    assert "48 MiB" in html
    assert "mean 500 µs, p99 3.1 ms" in html
    assert "delivering" in html
    for whose in ("owned by a living process", "adopted", "owned by nobody"):
        assert f"</span>{whose}" in html
    assert "being-made" not in html
    assert "Nothing damaged was found" in html


def test_the_page_of_an_installation_without_a_log_says_so(
    admin_client: Client, settings: Any, tmp_path: Path
) -> None:
    log = dataclasses.replace(settings.COLLECTOR.log, directory=tmp_path / "absent")
    settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, log=log)
    make_process(stats={"pipelines": []})
    html = admin_client.get(PAGE).content.decode()
    assert "No living process reports a log" in html
    assert "No log lies there" in html


def test_the_page_needs_the_right_to_see_processes(client: Client, wal: Path) -> None:
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get(PAGE).status_code == 403
    assert "/admin/log/" not in client.get("/admin/").content.decode().split("nav-sidebar")[-1]


def test_the_quarantine_tells_what_headers_tell(viewer: Client, wal: Path) -> None:
    quarantined(wal)
    quarantined(wal, "short.bin", b"CLfr\x01")
    quarantined(wal, "zeros.bin", b"\0" * 4096)
    by_name = {one.name: one for one in quarantine.listing()}
    one = by_name["a1b2c3-2-4096.bin"]
    assert (one.records, one.position, one.why) == (40, 7, "the checksum does not fit")
    assert by_name["short.bin"].why == "too short for a frame"
    assert by_name["zeros.bin"].why == "nothing but zeros"
    html = viewer.get(PAGE).content.decode()
    assert "the checksum does not fit" in html
    assert "Only a superuser may open or delete them" in html
    assert "Download" not in html


def test_only_superusers_have_the_bytes(viewer: Client, wal: Path) -> None:
    path = quarantined(wal)
    for address in (f"{PAGE}quarantine/{path.name}/", f"{PAGE}quarantine/{path.name}/delete/"):
        assert viewer.get(address).status_code == 403
        assert viewer.post(address).status_code in (403, 405)
    assert path.exists()


def test_a_superuser_downloads_and_deletes_and_both_are_written_down(
    admin_client: Client, wal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = quarantined(wal)
    response = admin_client.get(f"{PAGE}quarantine/{path.name}/")
    assert b"".join(response.streaming_content) == path.read_bytes()  # type: ignore[attr-defined]
    assert response["Content-Disposition"] == f'attachment; filename="{path.name}"'
    assert "no-cache" in response["Cache-Control"]
    assert "Keep it" in admin_client.get(f"{PAGE}quarantine/{path.name}/delete/").content.decode()
    assert path.exists()
    response = admin_client.post(f"{PAGE}quarantine/{path.name}/delete/", follow=True)
    assert f"Deleted {path.name}." in response.content.decode()
    assert not path.exists()
    told = list(LogEntry.objects.order_by("pk").values_list("action_flag", "object_repr"))
    assert [name for _, name in told] == [path.name, path.name]
    assert told[-1][0] == DELETION
    assert len([line for line in caplog.records if line.name == "control.admin.logpages"]) == 2
    assert admin_client.post(f"{PAGE}quarantine/{path.name}/delete/").status_code == 404


@pytest.mark.parametrize("name", ["..", "%2e%2e%2fsecret", "secret", "link.bin", "a%00b"])
def test_nothing_but_the_quarantine_is_reached(admin_client: Client, wal: Path, name: str) -> None:
    (wal / "secret").write_text("key")
    (wal / "quarantine" / "link.bin").symlink_to(wal / "secret")
    for address in (f"{PAGE}quarantine/{name}/", f"{PAGE}quarantine/{name}/delete/"):
        assert admin_client.post(address).status_code in (404, 405)
        response = admin_client.get(address)
        assert response.status_code == 404
    assert (wal / "secret").exists()


def test_names_and_errors_are_inert(admin_client: Client, wal: Path) -> None:
    quarantined(wal, EVIL.replace("/", "-"))
    log_directory(wal, EVIL.replace("/", "-"))
    make_process(stats=stats(state=EVIL, error=EVIL, adopted=[adopted_log(log_id=EVIL)]))
    for page in (PAGE, "/admin/"):
        html = admin_client.get(page).content.decode()
        assert "<script>alert(" not in html
        assert "<img src=x" not in html


@pytest.mark.parametrize(
    ("state", "title", "remedy"),
    [
        ("full", "The disk under the log of server ops-1:4711 is full", "Make room"),
        ("failing", "The log of server ops-1:4711 cannot be written", "Look at the disk"),
    ],
)
def test_a_log_that_cannot_be_written_is_an_error(
    wal: Path, state: str, title: str, remedy: str
) -> None:
    make_process(stats=stats(state=state, error="[Errno 28] No space left on device"))
    (problem,) = problems()
    assert problem.severity == "error"
    assert problem.title == title
    assert "No space left" in problem.cause
    assert remedy in problem.remedy
    assert problem.url == PAGE


def test_damage_stays_a_warning_until_it_is_deleted(wal: Path) -> None:
    make_process()
    assert problems() == []
    path = quarantined(wal)
    (problem,) = problems()
    assert problem.severity == "warning"
    assert "in quarantine" in problem.title
    assert problem.url == f"{PAGE}#quarantine"
    path.unlink()
    assert problems() == []


def test_a_log_that_nobody_takes_is_an_error_after_a_minute(wal: Path) -> None:
    make_process(stats=stats(adopted=[adopted_log(log_id="taken")]))
    log_directory(wal, "taken", age_s=3600)
    log_directory(wal, "a1b2c3", age_s=3600)
    log_directory(wal, "fresh", age_s=5)
    assert [problem.severity for problem in problems()] == ["info"]
    log_directory(wal, "left", age_s=3600)
    problem = problems()[0]
    assert problem.severity == "error"
    assert problem.title == "1 log has no process that delivers it"
    assert "left (4 KiB, last written 1 h ago)" in problem.cause


def test_a_log_that_cannot_be_adopted_is_told_with_why(wal: Path) -> None:
    make_process(stats=stats(unreadable={"left": "[Errno 13] Permission denied"}))
    log_directory(wal, "left", age_s=3600)
    (problem,) = problems()
    assert problem.severity == "error"
    assert problem.title == "server ops-1:4711 cannot adopt 1 log of ended processes"
    assert problem.cause == "left: [Errno 13] Permission denied"


def test_without_a_process_the_remedy_is_to_start_one(wal: Path) -> None:
    log_directory(wal, "left", age_s=3600)
    log_directory(wal, "left-too", age_s=3600)
    (problem,) = problems()
    assert problem.title == "2 logs have no process that delivers them"
    assert "Start the server" in problem.remedy


def test_what_is_being_delivered_of_an_ended_process_is_said(wal: Path) -> None:
    make_process(stats=stats(adopted=[adopted_log()]))
    (problem,) = problems()
    assert problem.severity == "info"
    assert "1,200 records of an ended process are being delivered" in problem.title
    assert "d4e5f6" in problem.cause


def test_figures_of_another_version_or_of_nonsense_do_not_break_the_page(
    admin_client: Client, wal: Path
) -> None:
    for pid, log in enumerate(
        (7, [], {"adopted": 3, "bytes": "many", "unreadable": 3}, {"adopted": [4, {}]})
    ):
        make_process(pid=pid + 1, stats={"pipelines": [{"breaker": 3}], "log": log, "alarms": 5})
    for page in (PAGE, "/admin/"):
        assert admin_client.get(page).status_code == 200


def test_the_directory_is_the_configured_one_or_in_the_data_directory(settings: Any) -> None:
    log = dataclasses.replace(settings.COLLECTOR.log, directory=None)
    settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, log=log)
    assert logdirs.directory() == settings.COLLECTOR.server.data_dir / "wal"
