"""The ports: what is registered is found, in order, and a faulty entry costs only itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.http import HttpRequest

from control.ports import panels, readiness, stats
from control.ports.panels import Problem
from control.ports.registry import Registry
from control.ports.tables import (
    Column,
    TableSpec,
    register_table,
    table_for,
    tables,
    unregister_table,
)


class Panel:
    title = "A panel"

    def __init__(self, name: str, order: int) -> None:
        self.name = name
        self.order = order

    def render(self, request: HttpRequest) -> str:
        return self.name


@pytest.fixture
def table() -> Iterator[TableSpec]:
    spec = TableSpec(
        record_type="test-type",
        table="test_table",
        columns=(Column("id", "int8"), Column("note", "text")),
        rows=lambda part: [],
    )
    register_table(spec)
    yield spec
    unregister_table("test-type")


def test_a_name_registered_again_replaces_the_entry() -> None:
    registry: Registry[int] = Registry(what="number")
    registry.register("a", 1)
    registry.register("a", 2)
    registry.register("b", 3)
    assert registry.items() == [("a", 2), ("b", 3)]
    registry.unregister("a")
    registry.unregister("a")
    assert (registry.get("a"), registry.values()) == (None, [3])
    with pytest.raises(ValueError, match="a number needs a name"):
        registry.register("", 4)


def test_tables_by_record_type(table: TableSpec) -> None:
    assert table_for("test-type") is table
    assert table in tables()
    assert table_for("unknown") is None


@pytest.mark.parametrize(
    ("names", "search", "expected"),
    [
        (("id", "message"), None, "message"),
        (("id", "note"), None, ""),
        (("id", "note"), "note", "note"),
        (("id", "message"), "", ""),
    ],
)
def test_the_column_to_search(names: tuple[str, ...], search: str | None, expected: str) -> None:
    columns = tuple(Column(name, "text") for name in names)
    spec = TableSpec(
        record_type="t", table="t", columns=columns, rows=lambda part: [], search=search
    )
    assert spec.search_column == expected


def test_an_unknown_kind_of_column_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind 'varchar'"):
        Column("name", "varchar")  # type: ignore[arg-type]


def test_panels_stand_in_order() -> None:
    made = [Panel("test-b", -2), Panel("test-c", -1), Panel("test-a", -2)]
    for panel in made:
        panels.register_panel(panel)
    try:
        names = [panel.name for panel in panels.panels() if panel.name.startswith("test-")]
        assert names == ["test-a", "test-b", "test-c"]
    finally:
        for panel in made:
            panels.unregister_panel(panel.name)


def test_the_gravest_problem_comes_first_and_a_faulty_source_is_one() -> None:
    def problem(severity: panels.Severity) -> Problem:
        return Problem(severity=severity, title=f"test {severity}", cause="c", remedy="r")

    def faulty() -> list[Problem]:
        raise RuntimeError("password=hunter2")

    panels.register_problems(lambda: [problem("info"), problem("error")], name="test-1")
    panels.register_problems(faulty, name="test-2")
    try:
        found = [p for p in panels.problems() if "test" in p.title]
        assert [p.title for p in found] == [
            "test error",
            "test-2 could not be examined",
            "test info",
        ]
        assert "hunter2" not in str(found)
    finally:
        panels.unregister_problems("test-1")
        panels.unregister_problems("test-2")


def test_a_readiness_check_that_fails_is_a_cause() -> None:
    def faulty() -> str | None:
        raise RuntimeError("password=hunter2")

    readiness.register_readiness("test-well", lambda: None)
    readiness.register_readiness("test-ill", faulty)
    try:
        causes = readiness.readiness()
        assert causes["test-well"] is None
        assert causes["test-ill"] == "the check itself failed: RuntimeError"
    finally:
        readiness.unregister_readiness("test-well")
        readiness.unregister_readiness("test-ill")


@pytest.mark.usefixtures("no_stats")
def test_without_pipelines_the_report_is_empty_but_whole() -> None:
    assert stats.stats() == {
        "log_id": "",
        "pipelines": [],
        "ledger": [],
        "workers": [],
        "alarms": [],
    }
    stats.register_stats(lambda: {"log_id": "x", "more": 1})
    assert stats.stats()["more"] == 1
    assert stats.stats()["ledger"] == []
