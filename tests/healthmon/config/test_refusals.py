"""What no database takes, what stands for nothing, and plans too long to read."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management.base import CommandError

from control.config.apply import apply, parse, plan
from control.config.export import Change, EntryError
from healthmon.notify.models import NotificationRule
from healthmon.targets.models import Target, TargetGroup
from tests.healthmon.config.test_config import exported, put, refused, run

pytestmark = pytest.mark.django_db

TARGET = '[[targets]]\nname = "x"\nkind = "tcp"\naddress = "a:1"\n'
NUMBERS = ("interval_s", "timeout_s", "retry_interval_s", "degraded_after_ms", "slo_percent")


@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf", "1" + "0" * 400])
@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_must_be_finite(field: str, value: str) -> None:
    said = refused(f"{TARGET}{field} = {value}\n")
    assert f'target "x": {field}' in said
    assert "finite" in said
    assert not Target.objects.exists()


def test_a_number_of_the_options_and_of_other_rows_too() -> None:
    said = refused(f"{TARGET}[targets.options]\nexpect = [nan]\n")
    assert 'target "x": options.expect: must be a finite number' in said
    said = refused('[[notification_rules]]\nname = "r"\ngroup_wait_s = nan\n')
    assert 'notification rule "r": group_wait_s: must be a finite number' in said
    assert not NotificationRule.objects.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_rows_themselves_refuse_what_is_not_finite(value: float) -> None:
    from django.core.exceptions import ValidationError

    for name in NUMBERS:
        with pytest.raises(ValidationError, match="finite"):
            Target(name="x", **{name: value}).clean_fields()


def test_what_the_database_refuses_names_its_entry() -> None:
    """Whatever else may slip through: here a name that was taken since planning."""
    text = "".join(TARGET.replace('"x"', f'"x{n}"') for n in range(5))
    changes = plan(parse(text))
    Target.objects.create(name="x3", kind="tcp", address="a:1")
    with pytest.raises(EntryError, match='target "x3": the database refuses it: ') as caught:
        apply(changes)
    assert "\n" not in str(caught.value)
    assert Target.objects.count() == 1


def test_so_does_what_a_section_makes_by_itself() -> None:
    TargetGroup.objects.create(name="g")

    def make() -> None:
        TargetGroup.objects.create(name="g")

    change = Change(section="groups", name="g", action="add", apply=make)
    with pytest.raises(EntryError, match="groups 'g': the database refuses it"):
        apply([change])


class TestNull:
    def test_it_is_left_out(self) -> None:
        put(TARGET)
        assert "degraded_after_ms" not in exported()
        assert "slo_percent" not in exported()

    @pytest.mark.parametrize("word", ['"none"', "0", "0.0"])
    def test_it_is_asked_for_by_a_word(self, word: str) -> None:
        put(f"{TARGET}slo_percent = 99\n")
        put('[[targets]]\nname = "x"\ninterval_s = 60\n')
        assert Target.objects.get().slo_percent == 99
        put(f'[[targets]]\nname = "x"\nslo_percent = {word}\n')
        assert Target.objects.get().slo_percent is None

    def test_only_where_there_is_such_a_thing(self) -> None:
        assert "interval_s must be a number" in refused(f'{TARGET}interval_s = "none"\n')
        assert "slo_percent must be a number" in refused(f"{TARGET}slo_percent = false\n")


def _group() -> str:
    """The name of the one target's group."""
    group = Target.objects.get().group
    return group.name if group is not None else ""


class TestGroups:
    def test_one_that_nobody_knows_is_made(self) -> None:
        put(TARGET + 'group = "Front"\n[[status_pages]]\nslug = "p"\ntitle = "P"\ngroups = ["B"]')
        assert {group.name for group in TargetGroup.objects.all()} == {"Front", "B"}
        assert _group() == "Front"
        assert put(TARGET + 'group = "Front"\n') == []

    def test_not_where_pruning_would_remove_it(self) -> None:
        put(TARGET + 'group = "Front"\n')
        text = '[[groups]]\nname = "Back"\n' + TARGET + 'group = "Front"\n'
        assert "[[groups]]" in refused(text, prune=True)
        put(text)
        assert put('[[groups]]\nname = "Front"\n' + TARGET, prune=True)
        assert _group() == "Front"


class TestLongPlans:
    def write(self, folder: Path, count: int, *, interval_s: int = 30) -> str:
        file = folder / "many.toml"
        file.write_text(
            "".join(
                f'[[targets]]\nname = "t{n:04}"\nkind = "tcp"\naddress = "a:1"\n'
                f"interval_s = {interval_s}\n"
                for n in range(count)
            )
        )
        return str(file)

    def test_they_are_summarised(self, tmp_path: Path) -> None:
        said = run("apply", self.write(tmp_path, 400, interval_s=31), "--dry-run")
        assert "+ targets: 400 to add: t0000, t0001, t0002, and 397 more" in said
        assert "--verbose" in said
        assert len(said.splitlines()) < 10
        put(Path(self.write(tmp_path, 400)).read_text())
        said = run("apply", self.write(tmp_path, 400, interval_s=31), "--dry-run")
        assert "~ targets: 400 to change: t0000" in said
        assert "    interval_s: of 400" in said

    def test_each_is_shown_where_asked_for(self, tmp_path: Path) -> None:
        file = self.write(tmp_path, 400)
        assert "+ targets: t0399" in run("apply", file, "--dry-run", "--verbose")
        assert "+ targets: t0099" in run("apply", self.write(tmp_path, 100), "--dry-run")

    def test_what_is_removed_is_told_by_name(self, tmp_path: Path) -> None:
        file = self.write(tmp_path, 400)
        put(Path(file).read_text() + TARGET)
        said = run("apply", self.write(tmp_path, 400, interval_s=40), "--prune", "--dry-run")
        assert "- targets: 1 to remove: x" in said

    def test_nobody_to_ask(self, tmp_path: Path) -> None:
        with pytest.raises(CommandError, match="--yes"):
            run("apply", self.write(tmp_path, 2))
