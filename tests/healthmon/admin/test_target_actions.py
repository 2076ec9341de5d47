"""What is done to many targets at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from healthmon.admin import bulkwrites
from healthmon.models import Flip, Incident, MaintenanceWindow, Tag, Target, TargetState
from healthmon.targets.options import plain_options, set_options
from tests.healthmon.admin.cast import group, living_checker, make_incident, make_target

pytestmark = pytest.mark.django_db

LIST = "/admin/healthmon/target/"


@pytest.fixture
def targets() -> list[Target]:
    made = [make_target(f"t{number}", "up") for number in range(3)]
    Target.objects.update(updated_at=timezone.now() - timedelta(days=1))
    return made


def do(client: Client, action: str, chosen: list[Target], path: str = LIST, **data: Any) -> Any:
    sent = {"action": action, "index": "0", "_selected_action": [t.pk for t in chosen], **data}
    return client.post(path, sent)


def moved(target: Target) -> bool:
    target.refresh_from_db()
    return timezone.now() - target.updated_at < timedelta(minutes=5)


def test_run_now_asks_those_that_are_not_paused(
    admin_client: Client, targets: list[Target]
) -> None:
    Target.objects.filter(pk=targets[1].pk).update(paused=True)
    assert do(admin_client, "run_now", targets[:2]).status_code == 302
    asked = Target.objects.filter(run_requested_at__isnull=False)
    assert list(asked) == [targets[0]]
    assert moved(targets[0])
    assert not moved(targets[2])


@pytest.mark.parametrize(("action", "paused"), [("pause", True), ("resume", False)])
def test_pause_and_resume(
    admin_client: Client, targets: list[Target], action: str, paused: bool
) -> None:
    Target.objects.update(paused=not paused)
    do(admin_client, action, targets[:2])
    assert [t.paused for t in Target.objects.order_by("name")] == [paused, paused, not paused]
    assert moved(targets[0])
    entry = LogEntry.objects.get()
    assert entry.object_repr == "2 targets: t0, t1"


def test_more_than_a_page_is_confirmed_first(admin_client: Client) -> None:
    living_checker()
    Target.objects.bulk_create(Target(name=f"many-{n:03}") for n in range(150))
    first = Target.objects.order_by("name")[0]
    asked = do(admin_client, "pause", [first], select_across="1")
    assert asked.status_code == 200
    assert "150 targets" in asked.content.decode()
    assert not Target.objects.filter(paused=True).exists()
    done = do(admin_client, "pause", [first], select_across="1", step="apply", shown="150")
    assert done.status_code == 302
    assert Target.objects.filter(paused=True).count() == 150


def test_across_pages_means_those_that_the_filter_finds(admin_client: Client) -> None:
    make_target("shop", "down", tags=("web", "eu"))
    bank = make_target("bank", "down", tags=("eu",))
    do(admin_client, "pause", [bank], f"{LIST}?tag=web", select_across="1")
    assert list(Target.objects.filter(paused=True).values_list("name", flat=True)) == ["shop"]


def test_a_selection_that_has_changed_is_shown_again(
    admin_client: Client, targets: list[Target]
) -> None:
    answer = do(admin_client, "delete_chosen", targets, step="apply", shown="2")
    assert answer.status_code == 200
    assert "has become another meanwhile" in answer.content.decode()
    assert Target.objects.count() == 3


def test_settings_show_what_will_change_and_then_change_it(
    admin_client: Client, targets: list[Target]
) -> None:
    shops = group("shops")
    targets[0].tags.add(Tag.objects.create(name="old"))
    Target.objects.filter(pk=targets[0].pk).update(interval_s=10)
    assert do(admin_client, "change_settings", targets).status_code == 200
    wanted = {
        "interval_s": "60", "timeout_s": "5", "failure_threshold": "4", "severity": "warning",
        "group": str(shops.pk), "add_tags": "web, eu", "remove_tags": "old",
    }  # fmt: skip
    shown = do(admin_client, "change_settings", targets, step="preview", **wanted)
    changes = {c.name: (c.now, c.wanted) for c in shown.context["changes"]}
    assert changes["interval"] == ("30 s (2), 10 s (1)", "1 min")
    assert changes["group"] == ("no group (3)", "shops")
    assert changes["tag old"] == ("1 have it", "removed")
    assert Target.objects.filter(interval_s=60).count() == 0
    do(admin_client, "change_settings", targets, step="apply", shown="3", **wanted)
    for target in targets:
        assert moved(target)
        assert (target.interval_s, target.timeout_s, target.failure_threshold) == (60, 5, 4)
        assert (target.severity, target.group, target.retry_interval_s) == ("warning", shops, 5)
        assert {tag.name for tag in target.tags.all()} == {"web", "eu"}
    assert "Interval (seconds) 60" in LogEntry.objects.get().change_message


def test_settings_with_which_a_target_would_hardly_be_probed_are_refused(
    admin_client: Client, targets: list[Target]
) -> None:
    answer = do(
        admin_client, "change_settings", targets, step="apply", shown="3",
        timeout_s="120", interval_s="2",
    )  # fmt: skip
    assert "3 targets would have a timeout of more than ten intervals" in answer.content.decode()
    assert not Target.objects.filter(interval_s=2).exists()


@pytest.mark.parametrize(
    "wrong", [{}, {"interval_s": "0"}, {"interval_s": "x"}, {"add_tags": "a", "remove_tags": "a"}]
)
def test_wrong_settings_change_nothing(
    admin_client: Client, targets: list[Target], wrong: dict[str, str]
) -> None:
    answer = do(admin_client, "change_settings", targets, step="apply", shown="3", **wrong)
    assert answer.status_code == 200
    assert not any(moved(target) for target in targets)


def test_maintenance_is_added_by_one_form(admin_client: Client, targets: list[Target]) -> None:
    starts = timezone.now().replace(microsecond=0)
    wanted = {"title": "Upgrade", "starts_at": f"{starts:%Y-%m-%dT%H:%M:%S}", "minutes": "30"}
    do(admin_client, "add_maintenance", targets[:2], step="apply", shown="2", **wanted)
    window = MaintenanceWindow.objects.get()
    assert (window.title, window.starts_at, window.duration_s) == ("Upgrade", starts, 1800)
    assert set(window.targets.all()) == set(targets[:2])
    assert moved(targets[0])


def test_maintenance_that_is_over_is_refused(admin_client: Client, targets: list[Target]) -> None:
    wanted = {"title": "Upgrade", "starts_at": "2020-01-01T00:00:00", "minutes": "30"}
    answer = do(admin_client, "add_maintenance", targets, step="apply", shown="3", **wanted)
    assert "over already" in answer.content.decode()
    assert not MaintenanceWindow.objects.exists()


def test_clones_are_paused_and_keep_what_belongs_to_them(admin_client: Client) -> None:
    parent = make_target("switch")
    target = make_target("shop", tags=("web",), ping_digest="d" * 64, ping_hint="abcd")
    set_options(target, {"username": "u", "password": "hush", "method": "HEAD"})
    target.save()
    target.parents.add(parent)
    make_target("shop (copy)")
    do(admin_client, "clone", [target, parent], step="apply", shown="2")
    copy = Target.objects.get(name="shop (copy 2)")
    assert copy.paused
    assert (copy.ping_digest, copy.ping_hint) == (None, "")
    assert plain_options(copy) == {"username": "u", "password": "hush", "method": "HEAD"}
    assert [tag.name for tag in copy.tags.all()] == ["web"]
    assert list(copy.parents.all()) == [parent]
    assert Target.objects.filter(name="switch (copy)").exists()


def test_names_of_copies_are_free_and_fit() -> None:
    long = make_target("x" * 200)
    first, second = bulkwrites.clone([long.pk])[0], bulkwrites.clone([long.pk])[0]
    assert first.name != second.name
    assert max(len(first.name), len(second.name)) <= 200


def test_delete_takes_what_hangs_on_them(admin_client: Client, targets: list[Target]) -> None:
    make_incident(targets[0])
    targets[1].parents.add(targets[0])
    do(admin_client, "delete_chosen", targets[:2], step="apply", shown="2")
    assert list(Target.objects.all()) == [targets[2]]
    assert Flip.objects.count() == TargetState.objects.count() == 1
    assert not Incident.objects.exists()


def test_export_is_toml_of_the_chosen_ones_without_secrets(
    admin_client: Client, targets: list[Target]
) -> None:
    set_options(targets[0], {"username": "u", "password": "hush"})
    targets[0].save()
    answer = do(admin_client, "export", targets[:2])
    text = answer.content.decode()
    assert answer["Content-Disposition"] == 'attachment; filename="targets.toml"'
    assert 'name = "t0"' in text
    assert 'name = "t1"' in text
    assert "t2" not in text
    assert "hush" not in text


@pytest.mark.parametrize("action", ["pause", "change_settings", "delete_chosen", "clone"])
def test_an_action_needs_its_permission(
    client_who_may: Callable[..., Client], targets: list[Target], action: str
) -> None:
    client = client_who_may("view_target")
    do(client, action, targets, step="apply", shown="3", interval_s="60")
    assert Target.objects.count() == 3
    assert not any(moved(target) for target in targets)


def test_maintenance_needs_leave_to_add_windows(
    client_who_may: Callable[..., Client], targets: list[Target]
) -> None:
    client = client_who_may("view_target", "change_target")
    assert do(client, "add_maintenance", targets).status_code == 403


def test_thousands_cost_a_few_statements() -> None:
    made = Target.objects.bulk_create(Target(name=f"many-{n:04}") for n in range(2_000))
    ids = [target.pk for target in made]
    with CaptureQueriesContext(connections["default"]) as queries:
        bulkwrites.update(ids, interval_s=60)
        bulkwrites.add_tags(ids, ["web", "eu"])
        bulkwrites.remove_tags(ids, ["eu"])
    assert len(queries) < 60
    assert Target.objects.filter(interval_s=60, tags__name="web").count() == 2_000
    assert not Target.objects.filter(tags__name="eu").exists()
    assert bulkwrites.delete(ids) == 2_000
