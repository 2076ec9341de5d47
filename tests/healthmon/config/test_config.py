"""Health monitoring as a TOML file, there and back: idempotent, few statements, no secrets."""

from __future__ import annotations

import io
import json
import tomllib
from datetime import UTC, datetime, time
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.config.apply import apply, parse, plan
from control.config.export import EntryError, export_toml
from healthmon.notify.models import Channel, NotificationRule
from healthmon.pages.models import StatusPage
from healthmon.targets.models import MaintenanceWindow, Tag, Target, TargetGroup
from healthmon.targets.options import plain_options, set_options

pytestmark = pytest.mark.django_db

SECTIONS = (
    "groups", "targets", "maintenance", "channels", "notification_rules", "status_pages",
)  # fmt: skip

WHOLE = """
[[groups]]
name = "Front"
order = 3

[[channels]]
name = "ops"
kind = "webhook"
[channels.options]
url = "env:OPS_URL"
secret = "env:OPS_SECRET"

[[targets]]
name = "db"
kind = "tcp"
address = "db.example:5432"

[[targets]]
name = "web"
kind = "http"
address = "https://shop.example/"
interval_s = 10
failure_threshold = 2
tags = ["production", "eu"]
group = "Front"
owner = "ada"
parents = ["db"]
slo_percent = 99.9

[[maintenance]]
title = "Sunday"
starts_at = 2026-11-29T02:00:00Z
cron = "0 2 * * 0"
time_zone = "Europe/Vienna"
tags = ["production"]
groups = ["Front"]
targets = ["web"]

[[notification_rules]]
name = "all"
events = ["down", "recovered", "reminder"]
channels = ["ops"]
tags = ["production"]
quiet_from = "22:00"
quiet_until = 06:30:00

[[status_pages]]
slug = "public"
title = "Status"
published = true
groups = ["Front"]
tags = ["eu"]
"""


@pytest.fixture(autouse=True)
def _there(monkeypatch: pytest.MonkeyPatch, db: None) -> None:
    monkeypatch.setenv("OPS_URL", "https://hooks.example/x")
    monkeypatch.setenv("OPS_SECRET", "hunter2")
    get_user_model().objects.create_user("ada")


def put(text: str, *, prune: bool = False) -> list[str]:
    changes = plan(parse(text), prune=prune)
    apply(changes)
    return [f"{change.action} {change.section} {change.name}" for change in changes]


def refused(text: str, *, prune: bool = False) -> str:
    with pytest.raises(EntryError) as caught:
        plan(parse(text), prune=prune)
    return str(caught.value)


def exported() -> str:
    return export_toml(SECTIONS)


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("config", *args, stdout=out)
    return out.getvalue()


def test_one_file_makes_everything_whatever_refers_to_what() -> None:
    assert put(WHOLE) == [
        "add channels ops",
        "add groups Front",
        "add targets db",
        "add targets web",
        "add maintenance Sunday",
        "add notification_rules all",
        "add status_pages public",
    ]
    web = Target.objects.get(name="web")
    assert (web.interval_s, web.failure_threshold, web.slo_percent) == (10.0, 2, 99.9)
    assert web.group == TargetGroup.objects.get(name="Front", order=3)
    assert web.owner is not None
    assert web.owner.get_username() == "ada"
    assert [tag.name for tag in web.tags.all()] == ["eu", "production"]
    assert [parent.name for parent in web.parents.all()] == ["db"]
    window = MaintenanceWindow.objects.get()
    assert window.starts_at == datetime(2026, 11, 29, 2, tzinfo=UTC)
    assert [target.name for target in window.targets.all()] == ["web"]
    rule = NotificationRule.objects.get()
    assert (rule.quiet_from, rule.quiet_until) == (time(22), time(6, 30))
    assert [channel.name for channel in rule.channels.all()] == ["ops"]
    assert StatusPage.objects.get().published


def test_what_was_applied_changes_nothing_again_and_neither_does_the_export() -> None:
    put(WHOLE)
    before = Target.objects.get(name="web").updated_at
    assert put(WHOLE) == []
    text = exported()
    assert put(text) == []
    assert exported() == text
    assert put(text, prune=True) == []
    assert Target.objects.get(name="web").updated_at == before


def test_an_export_makes_the_same_elsewhere() -> None:
    put(WHOLE)
    text = exported()
    for model in (StatusPage, NotificationRule, MaintenanceWindow, Channel, Target, TargetGroup):
        model.objects.all().delete()
    Tag.objects.all().delete()
    put(text)
    assert exported() == text


def test_a_change_is_shown_field_by_field_and_is_seen_by_checkers() -> None:
    put(WHOLE)
    before = Target.objects.get(name="web").updated_at
    (change,) = plan(
        parse('[[targets]]\nname = "web"\ninterval_s = 20\ntags = ["eu"]\nslo_percent = 0\n')
    )
    assert change.action == "change"
    assert change.fields == {
        "interval_s": (10.0, 20.0),
        "tags": (["eu", "production"], ["eu"]),
        "slo_percent": (99.9, None),
    }
    apply([change])
    web = Target.objects.get(name="web")
    assert (web.interval_s, web.slo_percent) == (20.0, None)
    assert [tag.name for tag in web.tags.all()] == ["eu"]
    assert web.updated_at > before
    # What the entry does not name stays.
    assert web.failure_threshold == 2
    assert web.group is not None
    assert web.created_at < before


def test_a_change_of_tags_alone_is_seen_by_checkers() -> None:
    put(WHOLE)
    before = Target.objects.get(name="web").updated_at
    put('[[targets]]\nname = "web"\ntags = []\n')
    assert Target.objects.get(name="web").updated_at > before


def test_pruning_removes_what_the_sections_of_the_file_do_not_name() -> None:
    put(WHOLE)
    assert put('[[groups]]\nname = "Front"\n', prune=True) == []
    done = put('[[targets]]\nname = "db"\n', prune=True)
    assert done == ["remove targets web"]
    assert [row.name for row in Target.objects.all()] == ["db"]
    assert MaintenanceWindow.objects.exists()


class TestSecrets:
    def store(self) -> Target:
        row = Target(name="api", kind="http", address="https://api.example/")
        set_options(row, {"headers": {"Accept": "a/b"}, "password": "hunter2",
                          "username": "u"})  # fmt: skip
        row.save()
        return row

    def test_one_that_is_stored_is_named_and_kept(self) -> None:
        row = self.store()
        text = exported()
        assert "hunter2" not in text
        assert tomllib.loads(text)["targets"][0]["secrets"] == ["password"]
        assert put(text) == []
        put(text.replace('"a/b"', '"c/d"'))
        row.refresh_from_db()
        assert plain_options(row)["password"] == "hunter2"
        assert plain_options(row)["headers"] == {"Accept": "c/d"}

    def test_elsewhere_it_is_asked_for(self) -> None:
        self.store()
        text = exported()
        Target.objects.all().delete()
        said = refused(text)
        assert 'target "api"' in said
        assert "password" in said
        assert "env:NAME" in said

    def test_the_same_value_in_plain_is_no_change_and_another_is_hidden(self) -> None:
        self.store()
        entry = (
            '[[targets]]\nname = "api"\n[targets.options]\nusername = "u"\n'
            'headers = {{Accept = "a/b"}}\npassword = "{}"\n'
        )
        assert put(entry.format("hunter2")) == []
        (change,) = plan(parse(entry.format("correct horse")))
        assert change.fields == {"options.password": ("(hidden)", "(hidden)")}
        assert "correct horse" not in repr(change.fields)
        apply([change])
        assert plain_options(Target.objects.get())["password"] == "correct horse"

    def test_those_that_are_not_named_any_more_are_gone(self) -> None:
        row = self.store()
        put('[[targets]]\nname = "api"\n[targets.options]\nheaders = {Accept = "a/b"}\n')
        row.refresh_from_db()
        assert row.secrets == {}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('name = "x"\nkind = "gopher"\naddress = "a"', "gopher"),
        ('name = "x"\nkind = "http"\naddress = "not a url"', "address"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\ninterval_s = 0.2', "interval_s"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\ninterval_s = "10"', "interval_s must be a n"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\npaused = 1', "paused must be true or false"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\nseverity = "bad"', "severity"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\nspeed = 1', "unknown field 'speed'"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\ngroup = " "', "group"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\nowner = "nobody"', "does not exist here"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\nparents = ["y"]', "'y'"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\nparents = ["x"]', "circle: x -> x"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\ntags = [""]', "tags"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\ntags = [3]', "list of texts"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\n[targets.options]\nwarp = 9', "warp"),
        ('name = "x"\nkind = "tcp"\naddress = "a:1"\ntimeout_s = 100\ninterval_s = 1', "timeout_s"),
    ],
)
def test_a_mistake_names_the_entry_and_the_field(entry: str, said: str) -> None:
    text = refused(f"[[targets]]\n{entry}\n")
    assert 'target "x"' in text
    assert said in text
    assert Target.objects.count() == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[maintenance]]\ntitle = "m"', "starts_at"),
        ('[[maintenance]]\ntitle = "m"\nstarts_at = "soon"', "2026-01-31T22:00:00Z"),
        ('[[maintenance]]\ntitle = "m"\nstarts_at = 2026-01-01T00:00:00Z\ncron = "x"', "cron"),
        ('[[maintenance]]\ntitle = "m"\nstarts_at = 2026-01-01T00:00:00Z\ntime_zone = "Mars"',
         "Mars"),
        ('[[notification_rules]]\nname = "r"\nevents = ["fire"]', "fire"),
        ('[[notification_rules]]\nname = "r"\nquiet_from = "25:00"', "22:00"),
        ('[[notification_rules]]\nname = "r"\nquiet_from = "22:00"', "quiet_until"),
        ('[[notification_rules]]\nname = "r"\nchannels = ["none"]', "[[channels]]"),
        ('[[status_pages]]\nslug = "a b"\ntitle = "t"', "slug"),
        ('[[status_pages]]\nslug = "a"', "title"),
        ('[[channels]]\nname = "c"\nkind = "pigeon"', "pigeon"),
        ('[[groups]]\nname = "g"\norder = 100000', "order"),
    ],
)  # fmt: skip
def test_mistakes_of_the_other_sections(text: str, said: str) -> None:
    assert said in refused(text)


def test_a_circle_by_way_of_rows_that_are_there_is_found() -> None:
    put(WHOLE)
    said = refused('[[targets]]\nname = "db"\nparents = ["web"]\n')
    assert "circle" in said
    assert "web -> db" in said or "db -> web" in said


def test_a_parent_that_pruning_removes_is_missed() -> None:
    put(WHOLE)
    said = refused('[[targets]]\nname = "web"\nparents = ["db"]\n', prune=True)
    assert "'db'" in said


def test_all_or_nothing() -> None:
    changes = plan(parse(WHOLE))
    get_user_model().objects.all().delete()
    with pytest.raises(EntryError, match="gone meanwhile"):
        apply(changes)
    assert not TargetGroup.objects.exists()
    assert not Target.objects.exists()


def test_the_command_says_what_it_could_not_do(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_text(WHOLE)
    assert "7 changes made" in run("apply", str(file), "--yes")
    assert run("apply", str(file), "--yes").strip() == "Nothing to change."
    file.write_text('[[targets]]\nname = "web"\ninterval_s = 0\n')
    with pytest.raises(CommandError, match='target "web"'):
        run("apply", str(file), "--yes")
    found = json.loads(run("export", "--json"))
    assert {"groups", "targets"} <= found.keys()


def test_windows_of_one_title_stay_apart() -> None:
    for day in (1, 2):
        MaintenanceWindow.objects.create(
            title="Disks", starts_at=datetime(2026, 12, day, tzinfo=UTC)
        )
    text = exported()
    assert [one["title"] for one in tomllib.loads(text)["maintenance"]] == ["Disks", "Disks (2)"]
    assert put(text) == []
    assert put(text, prune=True) == []


def many(count: int, *, interval_s: int = 60) -> str:
    lines = ['[[groups]]\nname = "g"']
    lines += [
        f'[[targets]]\nname = "t{n:05}"\nkind = "tcp"\naddress = "127.0.0.1:{n % 60000 + 1}"\n'
        f'interval_s = {interval_s}\ntags = ["a", "b{n % 7}"]\ngroup = "g"\n'
        + (f'parents = ["t{n - 1:05}"]\n' if n % 10 else "")
        for n in range(count)
    ]
    return "\n".join(lines)


def test_thousands_cost_few_statements(django_assert_max_num_queries) -> None:
    count = 2_000
    with django_assert_max_num_queries(200) as made:
        put(many(count))
    assert isinstance(made, CaptureQueriesContext)
    assert Target.objects.count() == count
    assert Target.tags.through.objects.count() == 2 * count
    assert Target.parents.through.objects.count() == count - count // 10
    with django_assert_max_num_queries(30):
        assert put(many(count)) == []
    with django_assert_max_num_queries(200):
        assert len(put(many(count, interval_s=30))) == count
    assert not Target.objects.exclude(interval_s=30).exists()
    with django_assert_max_num_queries(300):
        put("targets = []", prune=True)
    assert not Target.objects.exists()


names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40
)
tags = st.lists(names.filter(lambda name: bool(name.strip())), max_size=3, unique=True)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        names,
        st.tuples(
            tags,
            st.floats(1, 86_400, allow_nan=False),
            st.none() | st.floats(0.1, 1e6, allow_nan=False),
            st.booleans(),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
            st.sampled_from(["critical", "warning", "info"]),
        ),
        max_size=4,
    )
)
def test_any_rows_go_there_and_back(rows) -> None:
    Target.objects.all().delete()
    Tag.objects.all().delete()
    for name, (labels, interval_s, slow, paused, notes, severity) in rows.items():
        target = Target.objects.create(
            name=name, kind="tcp", address="127.0.0.1:1", interval_s=interval_s,
            degraded_after_ms=slow, paused=paused, notes=notes, severity=severity,
        )  # fmt: skip
        target.tags.set([Tag.objects.get_or_create(name=label)[0] for label in labels])
    text = exported()
    assert put(text, prune=True) == []
    Target.objects.all().delete()
    put(text)
    assert exported() == text
