"""Sinks in the admin: two steps, typed forms, secrets, actions, live state."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from sinks.configuration import plain_options
from sinks.models import SinkConfig
from sinks.secrets import decrypt

pytestmark = pytest.mark.django_db

FILE = "sinks.backends.file.FileSink"
POSTGRES = "sinks.backends.postgres.PostgresSink"
MEMORY = "sinks.backends.memory.MemorySink"
ADD = reverse("admin:sinks_sinkconfig_add")
LIST = reverse("admin:sinks_sinkconfig_changelist")
PASSWORD = "hunter2-is-secret"
DSN = f"postgresql://app:{PASSWORD}@db.example/app"


@pytest.fixture(autouse=True)
def _no_other_rows(db):
    SinkConfig.objects.all().delete()


def change(row: SinkConfig) -> str:
    return reverse("admin:sinks_sinkconfig_change", args=[row.pk])


def act(row: SinkConfig, name: str) -> str:
    return reverse(f"admin:sinks_sinkconfig_{name}", args=[row.pk])


def postgres_form(**fields: str) -> dict[str, str]:
    return {
        "name": "warehouse",
        "required": "on",
        "enabled": "on",
        "option_dsn": DSN,
        "option_table": "events",
        "option_columns": "user_id = payload.user_id\nts = timestamp",
        "option_exactly_once": "on",
        "option_statement_timeout_s": "60",
        "option_connect_timeout_s": "10",
        **fields,
    }


def test_adding_asks_first_for_the_kind(admin_client):
    page = admin_client.get(ADD).content.decode()
    for path in (FILE, POSTGRES, MEMORY):
        assert f'value="{path}"' in page
    assert "option_" not in page
    assert "NDJSON files with rotation" in page


@pytest.mark.parametrize("path", ["os.path.join", "sinks.backends.nosuch.Sink", "<script>"])
def test_a_kind_that_is_not_offered_is_refused(admin_client, path):
    page = admin_client.get(ADD, {"backend": path}).content.decode()
    assert "cannot be used here" in page
    assert "<script>alert" not in page


def test_the_second_step_has_the_fields_of_the_options(admin_client):
    page = admin_client.get(ADD, {"backend": FILE}).content.decode()
    assert 'name="option_rotate_bytes"' in page
    assert 'value="268435456"' in page
    assert 'min="0"' in page
    assert "With {service}: further names share the file _other." in unescape(page)
    assert re.search(r'<option value="interval"[^>]*selected', page)
    assert 'name="pipeline_max_workers"' in page


def test_a_sink_is_added_with_routes_and_tuning(admin_client):
    answer = admin_client.post(
        f"{ADD}?backend={FILE}",
        {
            "name": "archive",
            "enabled": "on",
            "route_types": ["log", "event"],
            "route_tenants": "acme\n\n acme \nglobex",
            "min_level": "WARN",
            "option_directory": "archive",
            "option_path": "{tenant}/{date}.ndjson",
            "option_format": "payload",
            "option_compression": "gzip",
            "option_gzip_level": "3",
            "option_rotate_bytes": "1000",
            "option_rotate_age_s": "0",
            "option_fsync": "batch",
            "option_fsync_interval_s": "1",
            "option_max_open_files": "64",
            "option_idle_close_s": "60",
            "option_max_services": "1000",
            "pipeline_max_records": "100",
        },
    )
    assert answer.status_code == 302, answer.content.decode()
    row = SinkConfig.objects.get()
    assert (row.name, row.backend, row.required, row.enabled) == ("archive", FILE, False, True)
    assert row.options == {
        "directory": "archive",
        "path": "{tenant}/{date}.ndjson",
        "format": "payload",
        "compression": "gzip",
        "rotate_bytes": 1000,
        "fsync": "batch",
    }
    assert row.route_types == ["log", "event"]
    assert row.route_tenants == ["acme", "globex"]
    assert (row.min_level, row.pipeline) == ("WARN", {"max_records": 100})
    page = unescape(admin_client.get(change(row)).content.decode())
    assert 'value="{tenant}/{date}.ndjson"' in page
    assert 'value="1000"' in page
    assert "acme\nglobex" in page


def test_a_wrong_option_is_told_at_its_field(admin_client):
    answer = admin_client.post(
        f"{ADD}?backend={POSTGRES}",
        postgres_form(option_table="events; drop", option_columns="x = nosuch"),
    )
    page = unescape(answer.content.decode())
    assert answer.status_code == 200
    assert "Expected `str` matching regex" in page
    assert PASSWORD not in page
    answer = admin_client.post(
        f"{ADD}?backend={POSTGRES}", postgres_form(option_columns="x = nosuch")
    )
    assert "'nosuch' is not a field" in unescape(answer.content.decode())
    answer = admin_client.post(f"{ADD}?backend={POSTGRES}", postgres_form(option_columns="just x"))
    assert "Expected name = value" in unescape(answer.content.decode())
    answer = admin_client.post(
        f"{ADD}?backend={POSTGRES}", postgres_form(pipeline_capacity_records="10")
    )
    assert "must hold at least one batch" in unescape(answer.content.decode())
    assert not SinkConfig.objects.exists()


def test_a_secret_is_stored_encrypted_and_never_shown_again(admin_client):
    answer = admin_client.post(f"{ADD}?backend={POSTGRES}", postgres_form(), follow=True)
    row = SinkConfig.objects.get()
    assert "dsn" not in row.options
    assert PASSWORD not in str(row.secrets)
    assert decrypt(row.secrets["dsn"], option="dsn") == DSN
    history = admin_client.get(reverse("admin:sinks_sinkconfig_history", args=[row.pk]))
    for page in (answer, admin_client.get(change(row)), admin_client.get(LIST), history):
        assert PASSWORD not in page.content.decode()
    assert not LogEntry.objects.filter(change_message__contains=PASSWORD).exists()

    fields = postgres_form(option_dsn="", option_table="events2")
    assert admin_client.post(change(row), fields).status_code == 302
    row.refresh_from_db()
    assert row.options["table"] == "events2"
    assert plain_options(row)["dsn"] == DSN

    fields = postgres_form(option_dsn="postgresql://other/x")
    assert admin_client.post(change(row), fields).status_code == 302
    row.refresh_from_db()
    assert plain_options(row)["dsn"] == "postgresql://other/x"


def test_a_reference_is_kept_as_one(admin_client, monkeypatch):
    fields = postgres_form(option_dsn="env:WAREHOUSE_DSN")
    answer = admin_client.post(f"{ADD}?backend={POSTGRES}", fields)
    assert "environment variable WAREHOUSE_DSN is not set" in unescape(
        answer.content.decode()
    ).replace("Environment", "environment")
    monkeypatch.setenv("WAREHOUSE_DSN", DSN)
    assert admin_client.post(f"{ADD}?backend={POSTGRES}", fields).status_code == 302
    row = SinkConfig.objects.get()
    assert row.options["dsn"] == "env:WAREHOUSE_DSN"
    assert row.secrets == {}
    assert plain_options(row)["dsn"] == DSN
    page = admin_client.get(change(row)).content.decode()
    assert "Now env:WAREHOUSE_DSN" in page
    assert PASSWORD not in page
    fields = postgres_form(option_dsn="", option_table="events2")
    assert admin_client.post(change(row), fields).status_code == 302
    row.refresh_from_db()
    assert row.options["dsn"] == "env:WAREHOUSE_DSN"


def test_a_required_secret_must_be_given(admin_client):
    answer = admin_client.post(f"{ADD}?backend={POSTGRES}", postgres_form(option_dsn=""))
    assert "This field is required" in answer.content.decode()


def test_pause_resume_and_test_answer(admin_client):
    row = SinkConfig.objects.create(name="kept", backend=MEMORY)
    page = admin_client.post(act(row, "pause"), follow=True).content.decode()
    assert "kept is paused" in page
    row.refresh_from_db()
    assert row.paused
    assert act(row, "resume") in page
    page = admin_client.post(act(row, "pause"), follow=True).content.decode()
    assert "was paused already" in page
    page = admin_client.post(act(row, "resume"), follow=True).content.decode()
    row.refresh_from_db()
    assert not row.paused
    page = admin_client.post(act(row, "test"), follow=True).content.decode()
    assert "kept works" in page
    row.options = {"nosuch": 1}
    row.save()
    page = unescape(admin_client.post(act(row, "test"), follow=True).content.decode())
    assert "kept does not work" in page
    assert "unknown option nosuch" in page


def test_the_test_of_a_sink_shows_no_secret(admin_client, db):
    from sinks.configuration import set_options

    row = SinkConfig(name="warehouse", backend=POSTGRES)
    dsn = f"host=127.0.0.1 port=1 user=u password={PASSWORD} dbname=x"
    set_options(row, {"dsn": dsn, "table": "t", "columns": {"id": "id"}})
    row.save()
    page = unescape(admin_client.post(act(row, "test"), follow=True).content.decode())
    assert "warehouse does not work" in page
    assert "refused" in page
    assert PASSWORD not in page


def test_actions_change_only_by_post_and_with_permission(admin_client, client, django_user_model):
    row = SinkConfig.objects.create(name="kept", backend=MEMORY)
    assert admin_client.get(act(row, "pause")).status_code == 405
    viewer = django_user_model.objects.create_user("viewer", password="x", is_staff=True)
    from django.contrib.auth.models import Permission

    viewer.user_permissions.add(Permission.objects.get(codename="view_sinkconfig"))
    client.force_login(viewer)
    assert client.get(change(row)).status_code == 200
    for name in ("pause", "resume", "test"):
        assert client.post(act(row, name)).status_code == 403
    assert client.get(ADD).status_code == 403


def test_the_list_has_the_same_actions(admin_client):
    rows = [SinkConfig.objects.create(name=f"s{n}", backend=MEMORY) for n in range(2)]
    chosen = {"_selected_action": [str(row.pk) for row in rows]}
    page = admin_client.post(LIST, {"action": "pause", **chosen}, follow=True).content.decode()
    assert SinkConfig.objects.filter(paused=True).count() == 2
    assert "s0 is paused" in page
    admin_client.post(LIST, {"action": "resume", **chosen})
    assert SinkConfig.objects.filter(paused=True).count() == 0
    page = admin_client.post(LIST, {"action": "try_out", **chosen}, follow=True).content.decode()
    assert "s0 works" in page
    assert "s1 works" in page


def test_live_state_comes_from_the_processes(admin_client):
    from control.models import Process

    row = SinkConfig.objects.create(name="kept", backend=MEMORY)
    page = admin_client.get(LIST).content.decode()
    assert "starting…" in page
    assert "no process reports it" not in page
    SinkConfig.objects.update(updated_at=timezone.now() - timedelta(seconds=11))
    assert "no process reports it" in admin_client.get(LIST).content.decode()
    now = timezone.now()
    Process.objects.create(
        role="server",
        host="h",
        pid=1,
        started_at=now,
        last_seen_at=now,
        stats={
            "pipelines": [
                {
                    "key": str(row.pk),
                    "name": "kept",
                    "state": "misconfigured",
                    "misconfigured": "a <b>bad</b> thing",
                    "last_error": "<script>alert(1)</script>",
                    "last_error_at": now.timestamp(),
                    "held_records": 1234,
                }
            ]
        },
    )
    assert "misconfigured" in admin_client.get(LIST).content.decode()
    page = admin_client.get(change(row)).content.decode()
    assert "a &lt;b&gt;bad&lt;/b&gt; thing" in page
    assert "<script>alert" not in page


def test_a_row_whose_backend_is_gone_can_still_be_looked_at_and_disabled(admin_client):
    row = SinkConfig.objects.create(name="old", backend="gone.away.Sink", options={"x": 1})
    page = unescape(admin_client.get(change(row)).content.decode())
    assert "is not allowed" in page
    answer = admin_client.post(change(row), {"name": "old", "required": "on"})
    assert answer.status_code == 302
    row.refresh_from_db()
    assert (row.enabled, row.options) == (False, {"x": 1})
    assert admin_client.get(LIST).status_code == 200


def test_deleting_says_what_becomes_of_the_backlog(admin_client):
    from control.models import Process, ProcessRequest

    now = timezone.now()
    for pid, stopped_at in ((1, None), (2, None), (3, now)):
        times = {"started_at": now, "last_seen_at": now, "stopped_at": stopped_at}
        Process.objects.create(role="server", host="h", pid=pid, **times)
    for choice, asked in (({}, 0), ({"backlog": "deliver"}, 0), ({"backlog": "discard"}, 2)):
        row = SinkConfig.objects.create(name="kept", backend=MEMORY)
        key = str(row.pk)
        address = reverse("admin:sinks_sinkconfig_delete", args=[row.pk])
        page = admin_client.get(address).content.decode()
        assert re.search(r'value="deliver" checked>\s*<strong>Deliver what it holds', page)
        assert 'name="backlog" value="discard"' in page
        admin_client.post(address, {"post": "yes", **choice})
        assert not SinkConfig.objects.exists()
        requests = ProcessRequest.objects.filter(kind="discard-backlog", args={"sink": key})
        assert requests.count() == asked
    assert {one.process.pid for one in requests} == {1, 2}
