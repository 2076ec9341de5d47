"""Results that both databases hold, and errors cut to what is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.execution.results import kept, said
from pipeline.errors import PermanentError

_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=50)
@given(_json)
def test_json_is_kept_as_it_is(value: Any) -> None:
    assert kept(value, step="one", max_bytes=1_000_000) == value


def test_python_becomes_json() -> None:
    value = {1: (1, 2), "x": {"y": ()}}
    assert kept(value, step="one", max_bytes=100) == {"1": [1, 2], "x": {"y": []}}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "is not JSON"),
        ({"x": {1, 2}}, "is not JSON"),
        (float("nan"), "is not JSON"),
        (float("inf"), "is not JSON"),
        (b"bytes", "is not JSON"),
        ({(1, 2): 3}, "is not JSON"),
        ("a\0b", "holds a NUL character"),
        ({"a\0b": 1}, "holds a NUL character"),
        (["\ud800"], "half a character"),
        (10**2000, "too many digits"),
        (10**5000, "is not JSON"),
        ("x" * 2000, "has 2002 bytes, more than the 1000"),
        (deep(65), "nested deeper than 64"),
        (deep(100_000), "nested too deeply"),
    ],
    ids=range(14),
)
def test_what_is_not_kept(value: Any, why: str) -> None:
    with pytest.raises(PermanentError) as caught:
        kept(value, step="one", max_bytes=1000 if why.startswith("has") else 10_000)
    assert str(caught.value).startswith("step one: its result ")
    assert why in str(caught.value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(PermanentError, match="is not JSON"):
        kept(value, step="one", max_bytes=1000)


def test_errors_are_bounded_and_hold_nothing_that_a_database_refuses() -> None:
    assert said(ValueError()) == "ValueError"
    assert said("a\0b\ud800") == "a␀b\\ud800"
    assert len(said("x" * 10_000)) == 2_000
