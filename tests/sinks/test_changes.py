"""Changes of sinks' settings are written down where they are made, and told without secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from control.config.apply import apply, plan
from control.ports.changes import changes_since
from sinks import changes
from sinks.models import SinkChange, SinkConfig
from tests.sinks.test_admin import DSN, PASSWORD, POSTGRES, act, postgres_form

pytestmark = pytest.mark.django_db

MEMORY = "sinks.backends.memory.MemorySink"


@pytest.fixture(autouse=True)
def _no_other_rows(db: None) -> None:
    SinkConfig.objects.all().delete()


def sink(**changed: Any) -> SinkConfig:
    return SinkConfig.objects.create(**{"name": "db", "backend": MEMORY, **changed})


def told(row: SinkConfig) -> list[tuple[str, tuple[str, ...]]]:
    since = timezone.now() - timedelta(minutes=1)
    found = changes_since(since, allows=lambda permission: True)
    return [(one.who, one.what) for one in found if one.key == str(row.pk)]


def test_the_form_says_who_changed_what(admin_client: Client) -> None:
    row = sink(pipeline={"max_workers": 4})
    page = reverse("admin:sinks_sinkconfig_change", args=[row.pk])
    form = {"name": "db", "required": "on", "enabled": "on", "option_capacity": "1000"}
    answer = admin_client.post(page, {**form, "pipeline_max_workers": "8"})
    assert answer.status_code == 302, answer.content.decode()[:3000]
    ((who, what),) = told(row)
    assert who == "admin"
    assert "max_workers: 4 \N{RIGHTWARDS ARROW} 8" in what


def test_a_form_that_was_sent_as_it_was_is_no_change(admin_client: Client) -> None:
    admin_client.post(
        reverse("admin:sinks_sinkconfig_add") + f"?backend={POSTGRES}", postgres_form()
    )
    row = SinkConfig.objects.get()
    page = reverse("admin:sinks_sinkconfig_change", args=[row.pk])
    answer = admin_client.post(page, postgres_form(option_dsn=""))
    assert answer.status_code == 302
    assert [what for _, what in told(row)] == [("sink added",)]


def test_secrets_stay_hidden(admin_client: Client) -> None:
    admin_client.post(
        reverse("admin:sinks_sinkconfig_add") + f"?backend={POSTGRES}", postgres_form()
    )
    row = SinkConfig.objects.get()
    page = reverse("admin:sinks_sinkconfig_change", args=[row.pk])
    admin_client.post(page, postgres_form(option_dsn=DSN.replace(PASSWORD, "another-secret")))
    assert told(row)[-1][1] == ("options.dsn changed (hidden)",)
    written = repr(list(SinkChange.objects.values()))
    assert "secret" not in written
    assert "app.example" not in written
    assert not any(str(token) in written for token in SinkConfig.objects.get().secrets.values())


def test_pausing_and_resuming_are_changes(admin_client: Client) -> None:
    row = sink()
    admin_client.post(act(row, "pause"))
    admin_client.post(act(row, "pause"))
    admin_client.post(act(row, "resume"))
    assert [what for _, what in told(row)] == [("paused",), ("resumed",)]


def test_what_is_deleted_is_known_afterwards(admin_client: Client) -> None:
    row, other = sink(), sink(name="other")
    key = row.pk
    admin_client.post(
        reverse("admin:sinks_sinkconfig_delete", args=[key]), {"post": "yes", "backlog": "keep"}
    )
    admin_client.post(
        reverse("admin:sinks_sinkconfig_changelist"),
        {"action": "delete_selected", "_selected_action": [str(other.pk)], "post": "yes"},
    )
    assert not SinkConfig.objects.exists()
    row.pk = key
    assert [what for _, what in told(row)] == [("sink removed",)]
    assert SinkChange.objects.filter(name="other", action="removed").exists()


def test_config_apply_is_a_change_by_the_account_that_ran_it() -> None:
    row = sink(paused=False)
    gone = sink(name="gone")
    entry = {"name": "db", "backend": MEMORY, "paused": True, "pipeline": {"max_wait_s": 2.0}}
    document: dict[str, Any] = {"sinks": [entry, {"name": "new", "backend": MEMORY}]}
    apply(plan(document, prune=True))
    assert told(row) == [
        (changes.command_user(), ("max_wait_s: 0.2 (default) \N{RIGHTWARDS ARROW} 2.0", "paused"))
    ]
    assert "(config apply)" in changes.command_user()
    actions = dict(SinkChange.objects.exclude(name="db").values_list("name", "action"))
    assert actions == {"new": "added", gone.name: "removed"}
    apply(plan({"sinks": [entry]}, prune=False))
    assert len(told(row)) == 1


def test_old_changes_are_forgotten_and_long_values_cut() -> None:
    row = sink()
    SinkChange.objects.create(
        at=timezone.now() - changes.KEPT - timedelta(hours=1), key="k", name="n", action="added"
    )
    before = changes.as_it_was(row)
    row.route_tenants = [f"tenant-{n}" * 20 for n in range(900)]
    row.route_types = ["log", "event"]
    changes.record(before, row, who="w" * 400)
    (written,) = SinkChange.objects.all()
    assert len(written.who) == 150
    assert len(str(written.fields)) < 600
    assert "types: none \N{RIGHTWARDS ARROW} log, event" in changes.words(written)


def test_only_those_who_may_see_sinks_are_told() -> None:
    row = sink()
    changes.record(None, row, who="ann")
    since = timezone.now() - timedelta(minutes=1)
    assert changes_since(since, allows=lambda permission: permission != changes.PERMISSION) == []
    assert len(changes_since(since, allows={changes.PERMISSION}.__contains__)) == 1


def test_a_change_from_or_to_the_default_tells_its_value(admin_client: Client) -> None:
    row = sink()
    page = reverse("admin:sinks_sinkconfig_change", args=[row.pk])
    form = {"name": "db", "required": "on", "enabled": "on", "option_keep_records": "100000"}
    changed = {"pipeline_capacity_records": "6000", "pipeline_ordered": "on"}
    assert admin_client.post(page, form | changed).status_code == 302
    assert admin_client.post(page, form | {"option_keep_records": "50"}).status_code == 302
    first, second = [set(what) for _, what in told(row)]
    assert first >= {
        "capacity_records: 10,000,000 (default) \N{RIGHTWARDS ARROW} 6,000",
        "ordered: off (default) \N{RIGHTWARDS ARROW} on",
    }
    assert second >= {
        "capacity_records: 6,000 \N{RIGHTWARDS ARROW} 10,000,000 (default)",
        "options.keep_records: 100,000 (default) \N{RIGHTWARDS ARROW} 50",
    }
