"""Templates: whatever a field holds, the structure stays what the operator wrote."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthmon.notify.template import FIELDS, TemplateError, check, fill

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)


def shape(node):
    if isinstance(node, dict):
        return {name: shape(member) for name, member in node.items()}
    if isinstance(node, list):
        return [shape(member) for member in node]
    return type(node).__name__


@given(template=JSON, values=st.dictionaries(st.sampled_from(FIELDS), TEXT))
def test_what_passes_the_check_can_be_filled_in_and_keeps_its_shape(template, values):
    try:
        check(template)
    except TemplateError:
        return
    full = dict.fromkeys(FIELDS, "x") | values
    assert shape(json.loads(fill(template, full))) == shape(template)


@given(value=TEXT)
def test_a_value_is_not_filled_in_again(value):
    body = json.loads(fill(["$target and ${target}"], {"target": value}))
    assert body == [f"{value} and {value}"]


@pytest.mark.parametrize("text", ["$", "a $ b", "${", "${}", "$ {target}", "${Target}", "$1"])
def test_a_dollar_that_means_nothing_is_refused(text):
    with pytest.raises(TemplateError):
        check({"a": [text]})


def test_a_long_value_is_cut_inside_a_text():
    body = json.loads(fill(["<$notes>"], {"notes": "n" * 10_000}))
    assert len(body[0]) < 4_100
