"""Templates: what is filled in, what never becomes structure, what is said when it cannot be."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.execution import templates
from jobs.execution.references import Reference, Scope, TemplateError, parsed
from jobs.types.spec import StepSpec
from pipeline.errors import PermanentError
from tests.jobs.execution.harness import call

PAYLOAD = {
    "user_id": 456,
    "name": "Zoë O'Neil",
    "score": 1.5,
    "yes": True,
    "none": None,
    "empty": "",
    "list": [{"x": 1}, "two"],
    "odd name": "}{",
    "a": {"b": {"c": [10, 20]}},
}
SCOPE = Scope(
    payload=PAYLOAD,
    results={"face": {"score": 0.9, "tags": ["a"]}, "id.check": "ok"},
    job={"id": "j-1", "correlation_id": "c-1", "tenant": "t", "service": "", "attempt": 2},
)


def path_of(path: str, payload: Any = None) -> str:
    scope = SCOPE if payload is None else Scope(payload=payload, results={}, job={})
    return templates.path(call("one", path=path), scope)


def body_of(body: Any, payload: Any = PAYLOAD, **fields: Any) -> Any:
    scope = Scope(payload=payload, results=SCOPE.results, job=SCOPE.job)
    made = templates.body(call("one", body=body, **fields), scope)
    return None if made is None else json.loads(made)


# --- references ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{payload}", ()),
        ("{payload.a.b.c[1]}", ("a", "b", "c", 1)),
        ('{payload["odd name"]}', ("odd name",)),
        ('{payload["}{"]}', ("}{",)),
        (r'{payload["a\"b"]}', ('a"b',)),
        ("{payload.user-id}", ("user-id",)),
        ("{payload.größe}", ("größe",)),
    ],
)
def test_references(text: str, path: tuple[str | int, ...]) -> None:
    (part,) = parsed(text)
    assert isinstance(part, Reference)
    assert part.path == path


def test_braces_are_written_twice() -> None:
    assert parsed("{{payload}}") == ("{payload}",)
    before, part, after = parsed("{{{payload.a}}}")
    assert (before, part.text, after) == ("{", "payload.a", "}")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "{", "}", "a{b", "{}", "{nothing}", "{payloads}", "{payload.}", "{payload[}",
        "{payload[-1]}",
        "{payload[0x1]}", "{payload.a b}", "{payload.a!r}", "{payload.a:>10}", '{payload["a]}',
        "{job}", "{job.secret}", "{job.id.x}", "{steps.face}", "{steps.face.error}",
        "{steps[0].result}",
        "{payload.__class__.a}}", "{payload" + ".a" * 21 + "}", "{payload.a}" * 101, "x" * 16_001,
    ],
)  # fmt: skip
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(TemplateError):
        parsed(text)


@given(st.text(alphabet='{}[].,"\\abpayloadstepsjobresult0129 é\n', max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parts = parsed(text)
    except TemplateError:
        return
    plain = "".join(part for part in parts if isinstance(part, str))
    if not any(isinstance(part, Reference) for part in parts):
        assert plain == text.replace("{{", "{").replace("}}", "}")


# --- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("", ""),
        ("/users/{payload.user_id}", "/users/456"),
        ("/users/{payload.name}/x", "/users/Zo%C3%AB%20O%27Neil/x"),
        ("/x?q={payload.name}&e={payload.empty}", "/x?q=Zo%C3%AB%20O%27Neil&e="),
        ("/a b/ü", "/a%20b/%C3%BC"),
        ("/{steps.face.result.score}/{job.id}/{payload.yes}", "/0.9/j-1/true"),
        ('/{steps["id.check"].result}', "/ok"),
        ("/v1:run/{payload.a.b.c[1]}", "/v1:run/20"),
    ],
)
def test_paths(template: str, path: str) -> None:
    assert path_of(template) == path


@pytest.mark.parametrize(
    "value",
    [
        "a/b",
        "a?b=c",
        "a#b",
        "a&b=c",
        "a%2fb",
        "a\r\nX: y",
        "a\\b",
        "a;b",
        "http://x/",
        "@host",
        "é\0",
    ],
)
def test_a_value_stays_within_its_segment(value: str) -> None:
    made = path_of("/users/{payload.v}/orders?q={payload.v}", {"v": value})
    segment, query = made.removeprefix("/users/").split("/orders?q=")
    assert unquote(segment) == unquote(query) == value
    assert not set(segment) & set("/?#&;\\\r\n@")


@pytest.mark.parametrize(
    "value", [".", "..", "../admin", "a/../b", "..\\admin", "..;x", "/..", "%2e%2e/../x"]
)
def test_a_value_never_climbs(value: str) -> None:
    with pytest.raises(PermanentError, match="would lead to another place"):
        path_of("/users/{payload.v}", {"v": value})
    # In a query there is nowhere to climb.
    assert path_of("/users?q={payload.v}", {"v": value})


def test_two_values_do_not_climb_together() -> None:
    with pytest.raises(PermanentError, match="would lead to another place"):
        path_of("/x/{payload.v}{payload.v}/admin", {"v": "."})


@given(st.text(max_size=30))
def test_any_value_in_a_path_comes_back_as_it_was_or_is_refused(value: str) -> None:
    try:
        made = path_of("/a/{payload.v}/b", {"v": value})
    except PermanentError:
        return
    assert made.count("/") == 3
    assert unquote(made.split("/")[2]) == value
    assert made.isascii()
    assert made.isprintable()


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("/{payload.nothing}", "the payload has no nothing"),
        ("/{payload.a.x.y}", "the payload.a has no x"),
        ("/{payload.user_id.x}", "the payload.user_id is not an object"),
        ("/{payload.a[0]}", "the payload.a is not a list"),
        ("/{payload.list[2]}", "the payload.list has no element 2"),
        ("/{steps.gone.result}", "step gone has no result"),
        ("/{steps.face.result.x}", "the result of step face has no x"),
        ("/{payload.a}", "is an object and not a text or number"),
        ("/{payload.list}", "is a list and not a text or number"),
        ("/{payload.none}", "is null and not a text or number"),
        ("/{payload.empty}/orders", "which is empty"),
        ("/{payload.a", "has a lone {"),
    ],
)
def test_what_a_path_cannot_be_made_of(template: str, why: str) -> None:
    with pytest.raises(PermanentError) as caught:
        path_of(template)
    assert str(caught.value).startswith(f"step one: the path {template!r} ")
    assert why in str(caught.value)


def test_errors_do_not_tell_the_value() -> None:
    with pytest.raises(PermanentError) as caught:
        path_of("/{payload.v}", {"v": "../secret-of-mine"})
    assert "secret-of-mine" not in str(caught.value)


def test_half_a_character_and_a_very_long_path_are_refused() -> None:
    with pytest.raises(PermanentError, match="half a character"):
        path_of("/{payload.v}", {"v": "\ud800"})
    with pytest.raises(PermanentError, match="longer than"):
        path_of("/{payload.v}", {"v": "x" * 5000})


# --- headers ---------------------------------------------------------------------------------


def headers_of(value: Any, payload: Any = PAYLOAD) -> dict[str, str]:
    scope = Scope(payload=payload, results=SCOPE.results, job=SCOPE.job)
    return templates.headers(call("one", headers={"X-User": value}), scope)


def test_headers() -> None:
    assert headers_of("u-{payload.user_id} {{x}}") == {"X-User": "u-456 {x}"}
    assert headers_of("{payload.v}", {"v": " padded "}) == {"X-User": "padded"}


@pytest.mark.parametrize(
    "value",
    ["a\r\nX-Admin: yes", "a\nb", "a\rb", "a\0b", "a\x7fb", "a\x85b", "a\u2028b", "é", "\t"],
)
def test_a_value_never_becomes_another_header(value: str) -> None:
    with pytest.raises(PermanentError, match="the header X-User would hold line breaks"):
        headers_of("{payload.v}", {"v": value})


def test_other_headers_that_cannot_be() -> None:
    for value, payload, why in (
        ("{payload.v}", {"v": {}}, "is an object"),
        ("{payload.v}", {"v": "x" * 5000}, "longer than"),
        (3, {}, "is not a text"),
    ):
        with pytest.raises(PermanentError, match=why):
            headers_of(value, payload)


# --- bodies ----------------------------------------------------------------------------------


def test_without_a_template_the_payload_is_the_body() -> None:
    assert body_of(None) == PAYLOAD
    assert body_of(None, method="GET") is None
    assert body_of(None, method="DELETE") is None


def test_one_reference_keeps_its_type_and_others_are_texts() -> None:
    assert body_of(
        {
            "id": "{payload.user_id}",
            "all": "{payload.a}",
            "none": "{payload.none}",
            "text": "user {payload.user_id}, {payload.yes}, {payload.list}, {payload.none}",
            "nested": [{"face": "{steps.face.result.score}"}, 7, None, True, "{{}}"],
            "empty": [{}, []],
            "{payload.user_id}": "names of members are left alone",
        }
    ) == {
        "id": 456,
        "all": PAYLOAD["a"],
        "none": None,
        "text": 'user 456, true, [{"x":1},"two"], null',
        "nested": [{"face": 0.9}, 7, None, True, "{}"],
        "empty": [{}, []],
        "{payload.user_id}": "names of members are left alone",
    }
    assert body_of("{payload}") == PAYLOAD
    assert body_of([]) == []
    assert body_of(False) is False


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=50)
@given(_json)
def test_any_value_is_sent_as_it_is(value: Any) -> None:
    try:
        made = body_of({"v": ["{payload.v}"]}, {"v": value})
    except PermanentError:
        return  # a name with half a character
    assert made == {"v": [value]}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_within_a_text_changes_nothing_else(value: str) -> None:
    made = body_of({"v": 'a "{payload.v}" b', "w": 1}, {"v": value})
    assert made == {"v": f'a "{value}" b', "w": 1}


def test_many_references_to_much_are_bounded() -> None:
    much = {"v": "x" * 100_000}
    for body in (["{payload.v}"] * 60, "{payload.v}" * 60, ["a{payload.v}" * 30] * 3):
        with pytest.raises(PermanentError, match="becomes longer than"):
            body_of(body, much)


def test_what_no_body_can_hold() -> None:
    for payload, why in (
        ({"v": float("nan")}, "what JSON cannot"),
        ({"v": "\ud800"}, "half a character"),
    ):
        with pytest.raises(PermanentError, match=why):
            body_of({"v": "{payload.v}"}, payload)
    deep: Any = []
    for _ in range(40):
        deep = [deep]
    with pytest.raises(PermanentError, match="nested deeper"):
        body_of(deep)


def test_which_steps_a_step_needs() -> None:
    step = StepSpec(
        name="s",
        path="/{steps.a.result}",
        headers={"X": "{steps.b.result.x}"},
        body={"c": ["{steps.c.result}", "{payload.d} {", 3]},
    )
    assert templates.steps_referred_to(step) == {"a", "b", "c"}
