"""`manage.py config`: sinks and tenants as TOML, there and back, without secrets."""

from __future__ import annotations

import io
import json
import sys
import tomllib

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from hypothesis import given, settings
from hypothesis import strategies as st

from control.config.export import Change, register_section, unregister_section
from control.config.export_toml import dumps
from control.models import Tenant
from sinks.configuration import plain_options, set_options
from sinks.models import SinkConfig

pytestmark = pytest.mark.django_db

POSTGRES = "sinks.backends.postgres.PostgresSink"
MEMORY = "sinks.backends.memory.MemorySink"
DSN = "postgresql://app:hunter2@db.example/app"


@pytest.fixture(autouse=True)
def _no_other_rows(db):
    SinkConfig.objects.all().delete()


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("config", *args, stdout=out)
    return out.getvalue()


def apply(tmp_path, text: str, *args: str) -> str:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return run("apply", str(file), *args)


def warehouse(dsn: str = DSN) -> SinkConfig:
    row = SinkConfig(name="warehouse", backend=POSTGRES, route_types=["event"], required=False)
    set_options(row, {"dsn": dsn, "table": "events", "columns": {"ts": "timestamp"}})
    row.save()
    return row


def test_an_export_has_everything_but_the_secret(monkeypatch):
    warehouse()
    text = run("export")
    assert "hunter2" not in text
    found = tomllib.loads(text)
    assert found["tenants"] == [{"slug": "default", "name": "Default"}]
    assert found["sinks"] == [
        {
            "name": "warehouse",
            "backend": POSTGRES,
            "required": False,
            "enabled": True,
            "paused": False,
            "types": ["event"],
            "tenants": [],
            "min_level": "",
            "secrets": ["dsn"],
            "options": {"table": "events", "columns": {"ts": "timestamp"}},
        }
    ]
    assert "hunter2" not in run("export", "--json")
    assert list(json.loads(run("export", "--json", "--section", "tenants"))) == ["tenants"]


def test_a_reference_is_exported_as_it_is(monkeypatch):
    monkeypatch.setenv("WAREHOUSE_DSN", DSN)
    warehouse("env:WAREHOUSE_DSN")
    found = tomllib.loads(run("export"))["sinks"][0]
    assert found["options"]["dsn"] == "env:WAREHOUSE_DSN"
    assert "secrets" not in found


def test_the_options_of_an_unknown_backend_are_not_exported():
    SinkConfig.objects.create(name="old", backend="gone.Sink", options={"token": "hunter2"})
    assert "hunter2" not in run("export")


def test_applying_what_was_exported_changes_nothing(tmp_path):
    row = warehouse()
    file = tmp_path / "config.toml"
    run("export", str(file))
    assert "Nothing to change" in run("apply", str(file), "--yes")
    updated_at = row.updated_at
    row.refresh_from_db()
    assert row.updated_at == updated_at


def test_a_file_adds_changes_and_prunes(tmp_path):
    SinkConfig.objects.create(name="kept", backend=MEMORY, options={"keep_records": 5})
    SinkConfig.objects.create(name="odd", backend=MEMORY)
    text = f"""
        [[tenants]]
        slug = "acme"
        name = "Acme"
        [[sinks]]
        name = "kept"
        backend = "{MEMORY}"
        min_level = "WARN"
        options = {{ keep_records = 6 }}
        [[sinks]]
        name = "new"
        backend = "{MEMORY}"
        tenants = ["acme"]
        pipeline = {{ max_records = 10 }}
    """
    shown = apply(tmp_path, text, "--dry-run")
    assert "+ tenants: acme" in shown
    assert "~ sinks: kept" in shown
    assert "options.keep_records: 5 -> 6" in shown
    assert "min_level: '' -> WARN" in shown
    assert "+ sinks: new" in shown
    assert SinkConfig.objects.count() == 2

    apply(tmp_path, text, "--yes")
    kept = SinkConfig.objects.get(name="kept")
    assert (kept.min_level, kept.options) == ("WARN", {"keep_records": 6})
    new = SinkConfig.objects.get(name="new")
    assert (new.route_tenants, new.pipeline, new.enabled) == (["acme"], {"max_records": 10}, True)
    assert Tenant.objects.filter(slug="acme", name="Acme").exists()
    assert "Nothing to change" in apply(tmp_path, text, "--yes")
    assert SinkConfig.objects.filter(name="odd").exists()

    answer = json.loads(apply(tmp_path, text, "--prune", "--yes", "--json"))
    assert answer["applied"]
    assert [(c["action"], c["name"]) for c in answer["changes"]] == [("remove", "odd")]
    assert not SinkConfig.objects.filter(name="odd").exists()


def test_what_the_file_does_not_say_stays(tmp_path):
    SinkConfig.objects.create(name="kept", backend=MEMORY, paused=True, options={"keep_records": 5})
    apply(tmp_path, '[[sinks]]\nname = "kept"\nrequired = false\n', "--yes")
    row = SinkConfig.objects.get()
    assert (row.paused, row.required, row.options) == (True, False, {"keep_records": 5})


def test_a_secret_in_a_file_is_encrypted_and_its_change_is_hidden(tmp_path):
    entry = f"""
        [[sinks]]
        name = "warehouse"
        backend = "{POSTGRES}"
        [sinks.options]
        dsn = "%s"
        table = "events"
        columns = {{ ts = "timestamp" }}
    """
    shown = apply(tmp_path, entry % DSN, "--yes")
    assert "hunter2" not in shown
    assert "options.dsn = (hidden)" in shown
    row = SinkConfig.objects.get()
    assert "dsn" not in row.options
    assert plain_options(row)["dsn"] == DSN
    assert "Nothing to change" in apply(tmp_path, entry % DSN, "--yes")
    shown = apply(tmp_path, entry % DSN.replace("hunter2", "hunter3"), "--yes", "--json")
    assert "hunter" not in shown
    row.refresh_from_db()
    assert "hunter3" in plain_options(row)["dsn"]


def test_a_secret_that_is_nowhere_is_asked_for(tmp_path):
    warehouse()
    file = tmp_path / "c.toml"
    run("export", str(file))
    SinkConfig.objects.all().delete()
    with pytest.raises(CommandError, match=r'the secret dsn is not stored here.*dsn = "env:NAME"'):
        run("apply", str(file), "--yes")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not toml", "not TOML"),
        ("[server]\nport = 1", "COLLECTOR_CONFIG"),
        ("sinks = [1]", "must be a table"),
        ("[[sinks]]\nbackend = 'x'", "name is missing"),
        ("[[sinks]]\nname = 'a'", "backend is missing"),
        ("[[sinks]]\nname = 'a'\nbackend = 'os.path'", "not allowed"),
        (f"[[sinks]]\nname = 'a'\nbackend = '{MEMORY}'\nnosuch = 1", "unknown field 'nosuch'"),
        (f"[[sinks]]\nname = 'a'\nbackend = '{MEMORY}'\nrequired = 1", "true or false"),
        (f"[[sinks]]\nname = 'a'\nbackend = '{MEMORY}'\ntypes = [1]", "list of texts"),
        (f"[[sinks]]\nname = 'a'\nbackend = '{MEMORY}'\noptions = {{ x = 1 }}", "unknown option x"),
        (f"[[sinks]]\nname = 'a'\nbackend = '{MEMORY}'\nmin_level = 'LOUD'", "LOUD"),
        (
            f"[[sinks]]\nname = 'a'\nbackend = '{MEMORY}'\npipeline = {{ max_workers = 0 }}",
            "max_workers",
        ),
        (f'[[sinks]]\nname = "\\u001b"\nbackend = "{MEMORY}"', r'"\\x1b": Use letters'),
        ("[[sinks]]\nname = 'a'\nbackend = 'b'\n" * 2, "twice"),
        ("[[tenants]]\nslug = 'NO SPACES'", "lower-case"),
    ],
)
def test_a_wrong_file_changes_nothing_and_says_where(tmp_path, text, words):
    good = '[[tenants]]\nslug = "good"\n'
    with pytest.raises(CommandError, match=words):
        apply(tmp_path, f"{text}\n{good}", "--yes")
    assert not SinkConfig.objects.exists()
    assert not Tenant.objects.filter(slug="good").exists()


def test_without_a_terminal_it_wants_a_yes(tmp_path):
    text = f'[[sinks]]\nname = "a"\nbackend = "{MEMORY}"\n'
    with pytest.raises(CommandError, match="--yes"):
        apply(tmp_path, text)
    with pytest.raises(CommandError, match="--yes"):
        apply(tmp_path, text, "--json")
    assert not SinkConfig.objects.exists()


def test_it_asks_on_a_terminal(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = f'[[sinks]]\nname = "a"\nbackend = "{MEMORY}"\n'
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    with pytest.raises(CommandError, match="Nothing was changed"):
        apply(tmp_path, text)
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    apply(tmp_path, text)
    assert SinkConfig.objects.exists()


def test_it_reads_standard_input(monkeypatch):
    text = f'[[sinks]]\nname = "a"\nbackend = "{MEMORY}"\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    run("apply", "-", "--yes")
    assert SinkConfig.objects.exists()


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(CommandError, match="cannot be read"):
        run("apply", str(tmp_path / "nosuch"), "--yes")
    with pytest.raises(CommandError, match="cannot be written"):
        run("export", str(tmp_path))
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(CommandError, match="UTF-8"):
        run("apply", str(tmp_path / "latin"), "--yes")
    with pytest.raises(CommandError, match="no section 'nosuch'"):
        run("export", "--section", "nosuch")


def test_a_failing_change_undoes_those_before_it(tmp_path):
    class Failing:
        name, order = "failing", 99

        def export(self):
            return []

        def plan(self, entries, *, prune):
            def fail():
                raise RuntimeError("no")

            return [Change(section="failing", name="x", action="add", apply=fail)]

    register_section(Failing())
    try:
        with pytest.raises(RuntimeError):
            apply(tmp_path, '[[tenants]]\nslug = "acme"\n[[failing]]\nname = "x"\n', "--yes")
    finally:
        unregister_section("failing")
    assert not Tenant.objects.filter(slug="acme").exists()


_scalars = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False),
)
_keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
_tables = st.recursive(
    st.dictionaries(_keys, st.one_of(_scalars, st.lists(_scalars))),
    lambda inner: st.dictionaries(_keys, st.one_of(_scalars, inner, st.lists(inner))),
    max_leaves=20,
)


@settings(max_examples=50)
@given(_tables)
def test_toml_is_read_back_as_it_was_written(document):
    assert tomllib.loads(dumps(document)) == document
