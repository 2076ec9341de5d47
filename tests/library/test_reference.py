"""What is public is described: each name with its units, its errors and its threads."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import msgspec
import pytest

import pipeline
from scripts.pipeline_api import GROUPS, OUT, members, reference
from tests.library.conftest import SOURCE

UNITS = ("_s", "_us", "_bytes", "_records", "_workers", "_mib", "count")
CLASSES = [name for name in pipeline.__all__ if inspect.isclass(getattr(pipeline, name))]
STRUCTS = (msgspec.Struct,)


def fields(thing: type) -> dict[str, str]:
    """The fields of a dataclass or Struct with their types, as written."""
    if dataclasses.is_dataclass(thing):
        return {one.name: str(one.type) for one in dataclasses.fields(thing)}
    if issubclass(thing, STRUCTS):
        return {one.name: str(one.type) for one in msgspec.structs.fields(thing)}
    return {}


def test_the_reference_is_what_the_code_says() -> None:
    assert OUT.read_text() == reference(), "write it anew: python -m scripts.pipeline_api"


def test_every_public_name_stands_in_the_reference_once() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(pipeline.__all__)
    assert len(set(named)) == len(named)


@pytest.mark.parametrize("name", CLASSES)
def test_everything_public_has_a_docstring_of_its_own(name: str) -> None:
    thing = getattr(pipeline, name)
    assert "__doc__" in vars(thing)
    assert thing.__doc__
    assert not thing.__doc__.startswith(f"{name}("), "that is what dataclass makes up"
    silent = [one for one in members(thing) if not inspect.getdoc(vars(thing)[one])]
    assert silent == []


def shared(name: str) -> bool:
    """Whether several threads may meet in it: neither an error nor what never changes."""
    thing: Any = getattr(pipeline, name)
    if issubclass(thing, Exception):
        return False
    if dataclasses.is_dataclass(thing):
        return not getattr(thing, "__dataclass_params__").frozen  # noqa: B009 - no type has it
    return not (issubclass(thing, STRUCTS) and thing.__struct_config__.frozen)


@pytest.mark.parametrize("name", [name for name in CLASSES if shared(name)])
def test_whoever_meets_other_threads_says_so(name: str) -> None:
    assert "thread" in (getattr(pipeline, name).__doc__ or "")


@pytest.mark.parametrize("name", [name for name in CLASSES if fields(getattr(pipeline, name))])
def test_every_number_has_its_unit_in_its_name_or_is_explained(name: str) -> None:
    thing = getattr(pipeline, name)
    numbers = [one for one, type in fields(thing).items() if re.search(r"\b(int|float)\b", type)]
    unclear = [
        one
        for one in numbers
        if not one.endswith(UNITS) and not re.search(rf"\b{one}\b", thing.__doc__ or "")
    ]
    assert unclear == []


def test_every_refusal_that_an_offer_raises_is_named_by_it() -> None:
    doc = pipeline.Engine.offer.__doc__ or ""
    kinds = [name for name in CLASSES if issubclass(getattr(pipeline, name), pipeline.Refused)]
    assert [name for name in kinds if name != "Refused" and name not in doc] == []


def test_every_error_that_a_sink_may_raise_is_named_by_it() -> None:
    doc = pipeline.Sink.write.__doc__ or ""
    kinds = [name for name in CLASSES if issubclass(getattr(pipeline, name), pipeline.SinkError)]
    assert [name for name in kinds if name != "SinkError" and name not in doc] == []


def test_the_readme_shows_the_first_example_as_it_is() -> None:
    shown = re.findall(r"```python\n(.*?)```", (SOURCE / "README.md").read_text(), re.DOTALL)
    example = (SOURCE / "examples" / "batch_into_list.py").read_text()
    assert shown[0] in example


def test_names_in_the_readme_are_public() -> None:
    readme = (SOURCE / "README.md").read_text()
    named = set(re.findall(r"`([A-Z][a-z]+[A-Za-z]*)", readme))
    assert named <= set(pipeline.__all__), "the README speaks of what nobody may rely on"
