"""`manage.py prepare`: the first start and every later one."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from control.models import ApiKey
from tests.servers.collector import ROOT, clean_environ
from tests.servers.installation import prepare_installation

TOKEN = "bootstrap-key-for-tests-0123456789"


@pytest.mark.server
def test_the_first_run_makes_everything_and_the_second_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = prepare_installation(data, {"COLLECTOR_BOOTSTRAP_API_KEY": TOKEN})
    assert first.count("password  ") == 1
    assert "first API key was created" in first
    assert TOKEN not in first
    for name in ("control.sqlite3", "records.sqlite3", "secret_key"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert prepare_installation(data, {"COLLECTOR_BOOTSTRAP_API_KEY": TOKEN}) == ""


@pytest.mark.long
@pytest.mark.server
def test_two_first_starts_at_once_make_one_account(tmp_path: Path) -> None:
    command = (sys.executable, "manage.py", "prepare")
    environ = clean_environ(tmp_path / "data", {})
    both = [
        subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(text.count("password  ") for text in said) == 1


@pytest.mark.long
@pytest.mark.server
def test_one_postgresql_database_gets_every_table(postgres_dsn: str, tmp_path: Path) -> None:
    import psycopg

    environ = {"COLLECTOR_DATABASE_URL": postgres_dsn}
    prepare_installation(tmp_path / "data", environ)
    with psycopg.connect(postgres_dsn) as connection:
        rows = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    tables = {row[0] for row in rows}
    assert {"ingest_logrecord", "control_tenant", "auth_user", "django_migrations"} <= tables
    assert prepare_installation(tmp_path / "data", environ) == ""


@pytest.mark.server
def test_a_database_that_is_away_is_said_plainly(tmp_path: Path) -> None:
    away = {"COLLECTOR_DATABASE_URL": "postgresql://u:hidden@127.0.0.1:1/none"}
    with pytest.raises(AssertionError) as caught:
        prepare_installation(tmp_path / "data", away)
    text = str(caught.value)
    assert "CommandError: The databases could not be prepared" in text
    assert "COLLECTOR_DATABASE_URL" in text
    assert "Traceback" not in text
    assert "hidden" not in text


@pytest.mark.django_db(transaction=True)
def test_an_account_is_made_only_where_there_is_none() -> None:
    out = io.StringIO()
    call_command("prepare", admin_name="operator", stdout=out)
    user = get_user_model().objects.get()
    assert user.get_username() == "operator"
    password = next(line for line in out.getvalue().splitlines() if "password  " in line).split()[1]
    assert user.check_password(password)
    again = io.StringIO()
    call_command("prepare", stdout=again)
    assert again.getvalue() == ""
    assert get_user_model().objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_bad_bootstrap_key_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLLECTOR_BOOTSTRAP_API_KEY", "short secret")
    with pytest.raises(CommandError) as caught:
        call_command("prepare", no_admin=True, stdout=io.StringIO())
    assert "short secret" not in str(caught.value)
    assert not ApiKey.objects.exists()
