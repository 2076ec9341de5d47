"""Dead letters in the admin: found, understood, corrected, decided about, by those who may."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from sinks.deadletters import problems, store, tally
from sinks.deadletters.metrics import Metrics
from sinks.models import DeadLetter, DeadLetterAction, DeadLetterTally, RedriveTask, SinkConfig
from tests.deadletters.letters import letter, letters

pytestmark = pytest.mark.django_db

LIST = reverse("admin:sinks_deadletter_changelist")
GROUPS = reverse("admin:sinks_deadletter_groups")
REDRIVE = reverse("admin:sinks_deadletter_redrive")
DISCARD = reverse("admin:sinks_deadletter_discard")
EVIL = "<script>alert('x')</script>\u202e"


def change(row: DeadLetter) -> str:
    return reverse("admin:sinks_deadletter_change", args=[row.pk])


def edit(row: DeadLetter) -> str:
    return reverse("admin:sinks_deadletter_edit", args=[row.pk])


def task_page(task: RedriveTask, name: str = "change") -> str:
    return reverse(f"admin:sinks_redrivetask_{name}", args=[task.pk])


def text_of(answer) -> str:
    return unescape(answer.content.decode())


@pytest.fixture
def viewer(client, django_user_model):
    user = django_user_model.objects.create_user("viewer", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_deadletter"))
    client.force_login(user)
    return client


def shown(page: str) -> int:
    return len(re.findall(r'class="action-select"', page))


def test_the_list_shows_what_waits_and_filters(admin_client):
    store.keep(
        [
            *letters(3, error="amount -1 is below 0"),
            *letters(2, "b", reason="age", tenant="acme", type="event", error="too old"),
        ]
    )
    DeadLetter.objects.filter(error="too old").order_by("pk")[0].delete()
    assert shown(text_of(admin_client.get(LIST))) == 4
    for query, count in (
        ({"sink": "b"}, 1),
        ({"reason": "permanent"}, 3),
        ({"tenant": "acme"}, 1),
        ({"type": "event"}, 1),
        ({"q": "below amount"}, 3),
        ({"q": "nowhere"}, 0),
        ({"pattern": "amount -N is below N"}, 3),
        ({"since": "2050-01-01T00:00:00"}, 0),
        ({"until": "2050-01-01T00:00:00"}, 4),
        ({"state": "discarded"}, 0),
        ({"state": "all"}, 4),
    ):
        assert shown(text_of(admin_client.get(LIST, query))) == count, query


def test_a_bad_filter_shows_nothing_and_says_why(admin_client):
    store.keep(letters(1))
    page = text_of(admin_client.get(LIST, {"sink": "nowhere"}))
    assert shown(page) == 0
    assert "nowhere is not one of the available choices" in page
    answer = admin_client.get(REDRIVE, {"sink": "nowhere"}, follow=True)
    assert "cannot be told" in text_of(answer)


def test_lists_never_count_the_letters(admin_client, django_assert_max_num_queries):
    store.keep(letters(250))
    with django_assert_max_num_queries(20) as queries:
        admin_client.get(LIST)
    assert not [one for one in queries.captured_queries if "COUNT(" in one["sql"].upper()]


def test_text_from_outside_is_inert_everywhere(admin_client):
    one = letter(
        message=EVIL, error=EVIL, service=EVIL, payload={"message": EVIL}, sink_name=EVIL,
        reason=EVIL[:8],
    )  # fmt: skip
    store.keep([one])
    row = DeadLetter.objects.get()
    for address in (LIST, change(row), edit(row), GROUPS, f"{DISCARD}?ids={row.pk}"):
        page = admin_client.get(address).content.decode()
        assert "<script>alert" not in page, address
    assert "\u202e" not in admin_client.get(change(row)).content.decode()


def test_a_letter_tells_why_and_what_to_do(admin_client):
    store.keep([letter(error="check constraint “positive”")])
    page = text_of(admin_client.get(change(DeadLetter.objects.get())))
    for said in ("check constraint “positive”", "refused this record for good", "What to do", "n"):
        assert said in page
    assert "4bf92f3577b34da6a3ce929d0e0e4736" in page


def test_the_payload_is_edited_and_taken_back(admin_client):
    one = letter(payload=b'{"message":"bad","n":1.50}')
    store.keep([one])
    row = DeadLetter.objects.get()
    page = text_of(admin_client.get(edit(row)))
    assert '"n": 1.50' in page
    answer = admin_client.post(edit(row), {"payload": "{"})
    assert "malformed" in text_of(answer)
    answer = admin_client.post(edit(row), {"payload": '{\r\n "message": "good"\r\n}'})
    assert answer.status_code == 302
    row.refresh_from_db()
    assert (row.message, row.edited_payload) == ("good", '{ "message": "good" }')
    page = text_of(admin_client.get(change(row)))
    assert "As edited" in page
    assert "As sent" in page
    admin_client.post(edit(row), {"restore": "1"})
    row.refresh_from_db()
    assert row.edited_payload == ""
    assert row.payload.encode() == one.payload


def test_groups_show_like_errors_once(admin_client):
    store.keep(
        [
            *(letter(error=f"amount -{n} is below 0") for n in range(5)),
            *letters(2, "b", reason="age", error="late"),
        ]
    )
    page = text_of(admin_client.get(GROUPS))
    assert "amount -N is below N" in page
    assert page.count("amount -N is below N") == page.count("amount -N is below N")
    links = [href for href in re.findall(r'href="([^"]+)"', page) if href.startswith(REDRIVE)]
    assert len(links) == 2
    assert parse_qs(urlsplit(links[0]).query) == {
        "sink": ["sink-a"], "reason": ["permanent"], "pattern": ["amount -N is below N"],
    }  # fmt: skip
    asked = text_of(admin_client.get(links[0]))
    assert "5 letters" in asked
    assert "late" not in text_of(admin_client.get(GROUPS, {"sink": "sink-a"}))
    assert "yes" in page


def test_a_tally_that_does_not_add_up_is_shown(admin_client):
    store.keep(letters(3))
    DeadLetter.objects.order_by("pk")[0].delete()
    assert "waiting differs from the rows by 1" in text_of(admin_client.get(GROUPS))
    DeadLetterTally.objects.update(entered=9)
    assert "differs by 6" in text_of(admin_client.get(GROUPS))
    assert any("do not add up" in one.title for one in problems.found())


def test_all_that_match_are_redriven_after_a_question(admin_client):
    store.keep([*letters(4), *letters(2, tenant="acme")])
    page = text_of(admin_client.get(LIST, {"tenant": "acme", "before": "99999"}))
    assert f"{REDRIVE}?tenant=acme" in page
    asked = text_of(admin_client.get(REDRIVE, {"tenant": "acme"}))
    assert "2 letters" in asked
    assert "tenant acme" in asked
    assert RedriveTask.objects.count() == 0
    answer = admin_client.post(f"{REDRIVE}?tenant=acme", follow=True)
    task = RedriveTask.objects.get()
    assert task.selection == {"sink": "sink-a", "tenant": "acme"}
    assert (task.total, task.asked_by) == (2, "admin")
    page = text_of(answer)
    assert "No process with pipelines is running" in page
    assert "0 of 2 letters" in page


def test_the_selected_are_redriven_or_discarded(admin_client):
    store.keep(letters(3))
    ids = sorted(DeadLetter.objects.values_list("pk", flat=True))[:2]
    for name, address in (("redrive_selected", REDRIVE), ("discard_selected", DISCARD)):
        answer = admin_client.post(LIST, {"action": name, "_selected_action": ids})
        assert answer.url == f"{address}?ids={ids[0]},{ids[1]}"
    page = text_of(admin_client.post(answer.url, {"reason": " "}))
    assert "Say why" in page
    assert DeadLetter.objects.filter(state="discarded").count() == 0
    admin_client.post(answer.url, {"reason": "a test"})
    assert DeadLetter.objects.filter(state="discarded").count() == 2
    action = DeadLetterAction.objects.get()
    assert (action.who, action.kind, action.count, action.reason) == (
        "admin", "discard", 2, "a test",
    )  # fmt: skip
    page = text_of(admin_client.get(reverse("admin:sinks_deadletteraction_changelist")))
    assert "a test" in page
    assert f"letters {ids[0]}, {ids[1]}" in page


def test_what_waits_no_more_is_said(admin_client):
    store.keep(letters(1))
    pk = DeadLetter.objects.get().pk
    admin_client.post(f"{DISCARD}?ids={pk}", {"reason": "x"})
    for address in (REDRIVE, DISCARD):
        answer = admin_client.get(f"{address}?ids={pk}", follow=True)
        assert "None of these letters waits any more" in text_of(answer)
        answer = admin_client.post(f"{address}?ids={pk}", {"reason": "x"}, follow=True)
        assert "None of these letters waits" in text_of(answer)
    assert RedriveTask.objects.count() == 0


def test_a_task_is_followed_cancelled_and_resumed(admin_client):
    store.keep(letters(3))
    admin_client.post(REDRIVE)
    task = RedriveTask.objects.get()
    page = admin_client.get(task_page(task)).content.decode()
    assert f'hx-get="{task_page(task, "progress")}"' in page
    fragment = admin_client.get(task_page(task, "progress")).content.decode()
    assert "<html" not in fragment
    assert 'hx-trigger="every 2s"' in fragment
    assert admin_client.get(task_page(task, "cancel")).status_code == 405
    admin_client.post(task_page(task, "cancel"))
    task.refresh_from_db()
    assert task.state == "cancelled"
    fragment = admin_client.get(task_page(task, "progress")).content.decode()
    assert "hx-trigger" not in fragment
    assert "Resume" in fragment
    admin_client.post(task_page(task, "resume"))
    task.refresh_from_db()
    assert task.state == "prepared"
    assert "0 of 3" in text_of(admin_client.get(reverse("admin:sinks_redrivetask_changelist")))


def test_who_may_only_see_decides_nothing(viewer):
    store.keep(letters(2))
    row = DeadLetter.objects.order_by("pk")[0]
    for address in (
        LIST,
        change(row),
        GROUPS,
        reverse("admin:sinks_redrivetask_changelist"),
        reverse("admin:sinks_deadletteraction_changelist"),
    ):
        page = text_of(viewer.get(address))
        assert "Redrive all" not in page
        assert "Discard" not in page
        assert "Edit the payload" not in page
    for address in (edit(row), f"{REDRIVE}?ids={row.pk}", f"{DISCARD}?ids={row.pk}"):
        assert viewer.get(address).status_code == 403, address
        assert viewer.post(address, {"reason": "x", "payload": "{}"}).status_code == 403
    viewer.post(LIST, {"action": "discard_selected", "_selected_action": [row.pk]})
    assert set(DeadLetter.objects.values_list("state", flat=True)) == {"waiting"}
    assert RedriveTask.objects.count() == DeadLetterAction.objects.count() == 0


def test_who_may_only_see_cancels_nothing(viewer, admin_client):
    store.keep(letters(2))
    admin_client.post(REDRIVE)
    task = RedriveTask.objects.get()
    assert "Cancel" not in text_of(viewer.get(task_page(task)))
    for name in ("cancel", "resume"):
        assert viewer.post(task_page(task, name)).status_code == 403
    task.refresh_from_db()
    assert task.state == "prepared"


def test_who_may_not_see_sees_nothing(client, django_user_model):
    user = django_user_model.objects.create_user("nobody", password="x", is_staff=True)
    client.force_login(user)
    store.keep(letters(1))
    for address in (
        LIST,
        change(DeadLetter.objects.get()),
        GROUPS,
        REDRIVE,
        reverse("admin:sinks_redrivetask_changelist"),
    ):
        assert client.get(address).status_code == 403


@pytest.mark.parametrize("ids", ["x", "1,,2", "1;2", "-1", "9" * 30, ",".join(["1"] * 2_000)])
def test_addresses_that_mean_nothing(admin_client, ids):
    answer = admin_client.get(DISCARD, {"ids": ids}, follow=True)
    assert "cannot be told" in text_of(answer)


def test_problems_and_the_gauge_tell_of_what_waits():
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    metrics = Metrics(registry)
    assert problems.found() == []
    store.keep(letters(3))
    (problem,) = problems.found()
    assert problem.title == "3 records of sink name of sink-a wait in dead letters"
    assert problem.url == f"{GROUPS}?sink=sink-a"
    metrics.refresh()
    labels = {"sink": "name of sink-a"}
    assert registry.get_sample_value("dead_letters_waiting", labels) == 3
    store.keep([msgspec.structs.replace(letter(), sink_name="renamed")])
    metrics.refresh()
    assert registry.get_sample_value("dead_letters_waiting", labels) == 0
    assert registry.get_sample_value("dead_letters_waiting", {"sink": "renamed"}) == 4
    assert tally.waiting()[0].sink_name == "renamed"


def test_the_place_of_dead_letters_is_an_option_of_a_sink(admin_client):
    SinkConfig.objects.all().delete()
    row = SinkConfig.objects.create(name="kept", backend="sinks.backends.memory.MemorySink")
    address = reverse("admin:sinks_sinkconfig_change", args=[row.pk])
    assert 'name="pipeline_dead_letters"' in admin_client.get(address).content.decode()
    form = {"name": "kept", "enabled": "on", "pipeline_dead_letters": "file"}
    answer = admin_client.post(address, form)
    assert answer.status_code == 302, answer.content.decode()
    row.refresh_from_db()
    assert row.pipeline == {"dead_letters": "file"}
    admin_client.post(address, {**form, "pipeline_dead_letters": "database"})
    row.refresh_from_db()
    assert row.pipeline == {}
