"""The live page: problems first, figures of the moment, charts with what was changed."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from control.admin import overview as overviews
from control.admin.live import MAX_DRAWN
from control.ports import stats as stats_port
from control.processes import identity
from sinks import changes
from sinks.models import SinkChange, SinkConfig
from tests.admin.cast import EVIL, SINK, ledger_row, make_process, make_samples, pipeline_stats

pytestmark = pytest.mark.django_db

LIVE = "/admin/live/"
PANELS = "/admin/live/panels/"
MARKS = {"hint_watermark": 0.7, "high_watermark": 0.8, "low_watermark": 0.6, "shed_watermark": 0.9}
NAMES = ("Rates", "Queue", "Workers", "Batch size", "Write latency", "Refused and shed")


def pipeline(**changed: Any) -> dict[str, Any]:
    bounds = {"min_workers": 1, "max_workers": 4, "batch_limit": 5_000, "write_limit": 4}
    return pipeline_stats(**{**MARKS, **bounds, **changed})


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def page(client: Client, query: str = "") -> str:
    answer = client.get(LIVE + query)
    assert answer.status_code == 200
    return answer.content.decode()


def changed(*, ago_s: float = 120, **fields: Any) -> SinkChange:
    values = {"key": SINK, "name": "database", "action": "changed", "who": "ann", **fields}
    return SinkChange.objects.create(at=timezone.now() - timedelta(seconds=ago_s), **values)


def test_without_a_process_it_says_what_to_do(admin_client: Client) -> None:
    assert "Start the server with make run" in text_of(page(admin_client))


def test_a_pipeline_is_drawn_with_its_marks_and_bounds(admin_client: Client) -> None:
    process = make_process(stats={"pipelines": [pipeline()]})
    make_samples(process, write_limit=2, batch_limit=5_000)
    html = page(admin_client)
    assert [f"{name}</span>" in html for name in NAMES] == [True] * 6
    for words in ("refuse at 80 %", "admit again at 60 %", "shed at 90 %", "hint at 70 %"):
        assert words in html
    assert "writes at once, at most" in html
    assert "1 to 4 allowed" in html
    assert "<script src" in html


def test_the_scalers_steps_are_drawn_and_told(admin_client: Client) -> None:
    process = make_process(stats={"pipelines": [pipeline()]})
    now = timezone.now()
    make_samples(process, now=now)
    row = process.samples.filter(at__lt=now - timedelta(minutes=1)).latest("at")
    row.scaled_up, row.scaled_down = 2, 1
    row.save()
    html = page(admin_client)
    assert html.count('class="step-up"') == 1
    assert html.count('class="step-down"') == 1
    assert "The scaler went up 2 times and down once." in html
    assert "Scaler: up 2, down 1" in html


def test_a_change_is_a_numbered_line_through_every_chart(admin_client: Client) -> None:
    process = make_process(stats={"pipelines": [pipeline()]})
    make_samples(process, shed=5, dropped=5)
    changed(fields={"max_workers": [2, 6]}, ago_s=300)
    changed(fields={"paused": [False, True]}, who="bob", ago_s=100)
    changed(fields={"max_workers": [1, 2]}, ago_s=3_000)
    changed(fields={"max_workers": [1, 2]}, key="another")
    html = page(admin_client)
    assert html.count('class="chart-events"') == 6
    assert html.count('<g class="events" aria-hidden="true"><path') == 6
    assert "1: max_workers: 2 \N{RIGHTWARDS ARROW} 6 (by ann)" in html
    told = text_of(html.split('<ol class="changes"')[1].split("</ol>")[0])
    assert told.index("paused by bob") < told.index("max_workers: 2")
    assert "1 \N{RIGHTWARDS ARROW} 2" not in told


def test_what_was_changed_is_for_those_who_may_see_sinks(client: Client) -> None:
    make_samples(make_process(stats={"pipelines": [pipeline()]}))
    changed(fields={"max_workers": [2, 6]}, who="bob")
    user = User.objects.create_user("staff", password="x", is_staff=True)
    client.force_login(user)
    assert "bob" not in page(client)
    user.user_permissions.add(Permission.objects.get(codename="view_sinkconfig"))
    assert "bob" in page(client)


def test_only_the_staff_may_see_it(client: Client) -> None:
    client.force_login(User.objects.create_user("somebody", password="x"))
    assert client.get(LIVE).status_code == 302
    assert client.get(PANELS).status_code == 302
    answer = client.get(PANELS, headers={"HX-Request": "true"})
    assert answer.status_code == 204
    assert answer["HX-Redirect"] == "/admin/login/?next=/admin/live/"
    assert client.post(LIVE).status_code in (302, 405)


def test_the_fragment_keeps_what_was_chosen(admin_client: Client) -> None:
    make_samples(make_process(stats={"pipelines": [pipeline()]}))
    html = page(admin_client, f"?minutes=5&sink={SINK}")
    assert f'hx-get="{PANELS}?sink={SINK}&amp;minutes=5"' in html
    fragment = admin_client.get(PANELS, {"minutes": "5", "sink": SINK}).content.decode()
    assert "<html" not in fragment
    assert 'aria-current="page"' in fragment
    assert "no-cache" in admin_client.get(PANELS)["Cache-Control"]
    paused = page(admin_client, "?live=off")
    assert "hx-get" not in paused


@pytest.mark.parametrize("query", ["?minutes=7", "?minutes=%00", "?sink=nobody", "?sink=" + EVIL])
def test_what_nobody_offered_is_what_is_usual(admin_client: Client, query: str) -> None:
    make_samples(make_process(stats={"pipelines": [pipeline(name=EVIL)]}))
    html = page(admin_client, query)
    assert "<img src=x" not in html
    assert 'id="live-span-15" href="/admin/live/" aria-current="true"' in html


def test_why_it_refuses_stands_first(admin_client: Client) -> None:
    full = pipeline(refusing=True, held_records=330_000, workers=4, busy_workers=4)
    make_samples(make_process(stats={"pipelines": [full]}), refused=500)
    words = text_of(page(admin_client))
    assert "All 4 workers are busy, and there may be no more (max_workers)" in words
    assert words.index("refuses 100 requests/s") < words.index("Rates records/s")


def test_many_pipelines_are_a_line_each_and_those_in_trouble_are_drawn(
    admin_client: Client,
) -> None:
    some = [pipeline(key=f"k{n}", name=f"sink {n}") for n in range(6)]
    some.append(pipeline(key="own", name="a heartbeat", internal=True))
    some.append(pipeline(key="zz", name="zz last", state="stuck"))
    make_process(stats={"pipelines": some})
    html = page(admin_client)
    drawn = re.findall(r'<h2 id="live-p\d+-name">(?:<a[^>]*>)?([^<]+)', html)
    assert drawn == ["sink 0", "sink 1", "zz last"]
    assert len(drawn) == MAX_DRAWN
    assert html.count('href="/admin/live/?sink=') == 8
    assert "a heartbeat" in re.findall(r"<h2 [^>]*>([^<\n]+)", page(admin_client, "?sink=own"))[0]


def test_who_holds_the_queue(admin_client: Client) -> None:
    ledger = [
        ledger_row(tenant="flood", in_flight=900),
        ledger_row(tenant="quiet", in_flight=100),
        ledger_row(tenant="absent", in_flight=0),
    ]
    make_process(stats={"pipelines": [pipeline()]}, ledger=ledger)
    words = text_of(page(admin_client))
    assert "flood 90 % 900 records quiet 10 % 100 records" in words
    assert "absent" not in words


def test_an_idle_process_does_not_hide_a_full_one(admin_client: Client) -> None:
    full = pipeline(refusing=True, held_records=330_000, workers=4, busy_workers=4)
    idle = pipeline(held_records=0, accepted=0, stored=0, workers=1, busy_workers=0)
    make_process(stats={"pipelines": [full]})
    make_process(stats={"pipelines": [idle]}, role="checker", pid=2)
    words = text_of(page(admin_client))
    assert "Its queue is 82 % full (330 k of 400 k records)" in words
    assert "All 4 workers are busy" in words
    assert "4 4 busy, 1 to 4" in words
    assert "checker" not in words


def test_its_own_figures_are_those_of_the_moment(
    monkeypatch: pytest.MonkeyPatch, admin_client: Client
) -> None:
    process = make_process(stats={"pipelines": [pipeline(workers=2)]})
    own = identity.Identity.__new__(identity.Identity)
    own.id = process.pk
    now = {"pipelines": [pipeline(workers=7)], "ledger": []}
    monkeypatch.setattr(stats_port, "_source", lambda: now)
    monkeypatch.setattr(identity, "_current", own)
    assert overviews.build(timezone.now()).pipelines[0].workers == 2
    assert overviews.build(timezone.now(), fresh=True).pipelines[0].workers == 7
    assert "7 2 busy" in text_of(page(admin_client))


def test_starts_and_ends_of_processes_are_told(admin_client: Client) -> None:
    now = timezone.now()
    make_process(
        pid=5, started_at=now - timedelta(minutes=9), stopped_at=now - timedelta(minutes=4),
        stats={"pipelines": [pipeline()]},
    )  # fmt: skip
    make_process(pid=6, started_at=now - timedelta(minutes=3), stats={"pipelines": [pipeline()]})
    told = text_of(page(admin_client).split('<ol class="changes"')[1].split("</ol>")[0])
    order = [told.index(words) for words in ("ops-1:6 started", "ops-1:5 stopped", "ops-1:5 st")]
    assert order == sorted(order)
    assert told.count("started") == 2


def test_a_change_in_the_admin_reaches_the_page(admin_client: Client) -> None:
    SinkConfig.objects.all().delete()
    row = SinkConfig.objects.create(name="db", backend="sinks.backends.memory.MemorySink")
    make_samples(make_process(stats={"pipelines": [pipeline(key=str(row.pk))]}), key=str(row.pk))
    before = changes.as_it_was(row)
    row.pipeline = {"max_workers": 6}
    changes.record(before, row, who="ann")
    told = text_of(page(admin_client).split('<ol class="changes"')[1].split("</ol>")[0])
    assert "max_workers: 4 (default) \N{RIGHTWARDS ARROW} 6 by ann" in told
