"""Which Python functions may run: judged before they are imported, and where they are defined."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs.execution.handlers import HandlerError, Handlers
from tests.jobs.execution import handled

HERE = "tests.jobs.execution.handled"


@pytest.mark.parametrize(
    "pattern", [f"{HERE}.remember", f"{HERE}.*", "tests.jobs.*", "*", f" {HERE}.rem*"]
)
def test_a_pattern_allows(pattern: str) -> None:
    assert Handlers(patterns=[pattern]).find(f"{HERE}.remember") is handled.remember


@pytest.mark.parametrize(
    "pattern", [f"{HERE}", f"{HERE}.*x", "jobs.examples.*", "tests?jobs.*", ""]
)
def test_a_pattern_that_does_not_match_does_not_allow(pattern: str) -> None:
    with pytest.raises(HandlerError, match="is not among COLLECTOR_JOBS_HANDLERS"):
        Handlers(patterns=[pattern]).find(f"{HERE}.remember")


def test_nothing_is_imported_that_is_not_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "would_do_harm.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(HandlerError, match="is not among"):
        Handlers(patterns=["would_do_good.*"]).find("would_do_harm.now")
    assert "would_do_harm" not in sys.modules


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (f"{HERE}.run", "which is really subprocess.run, is not among"),
        (f"{HERE}.sys.exit", "cannot be imported: ModuleNotFoundError"),
        (f"{HERE}.nothing", "has no nothing"),
        (f"{HERE}.constant", "is not a function"),
        (f"{HERE}.Made", "is not a function"),
        (f"{HERE}.later", "is not a plain function"),
        (f"{HERE}.one_by_one", "is not a plain function"),
        (f"{HERE}.wants_more", "cannot be called with a StepContext alone"),
        (f"{HERE}._hidden", "is no dotted path"),
        (f"{HERE}.__builtins__", "is no dotted path"),
        ("tests.jobs.gone.f", "cannot be imported: ModuleNotFoundError"),
        ("remember", "is no dotted path"),
        ("tests.jobs..x", "is no dotted path"),
        ("tests.jobs.x\n", "is no dotted path"),
        ("", "is no dotted path"),
        ("tests." + "x" * 300, "is no dotted path"),
    ],
)
def test_what_cannot_be_used(path: str, why: str) -> None:
    handlers = Handlers(patterns=["tests.jobs.*"])
    with pytest.raises(HandlerError) as caught:
        handlers.find(path)
    assert why in str(caught.value)
    assert handlers.problem(path) == str(caught.value)


def test_what_can_be_used_has_no_problem() -> None:
    assert Handlers(patterns=["jobs.examples.*"]).problem("jobs.examples.ekyc.face") == ""


def test_a_module_that_breaks_on_import_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaks_on_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    handlers = Handlers(patterns=["breaks_on_import.*"])
    assert "ZeroDivisionError" in handlers.problem("breaks_on_import.now")
    # Once it is mended it is found without a new start.
    (tmp_path / "breaks_on_import.py").write_text("def now(context):\n    return 1  # mended\n")
    assert handlers.problem("breaks_on_import.now") == ""
