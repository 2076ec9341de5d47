"""What an answer is judged by, beyond having come: status, headers, body.

Compiled when a target's options are decoded, run on the checker's loop.  A body that was read only
in part is judged by that part: what is found there counts, and a condition that would need the
rest says so.  Pure; any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from healthmon.probes.http.answer import AnswerReader, header_name
from healthmon.probes.http.encodings import decode, to_utf8
from healthmon.probes.http.errors import AnswerError
from healthmon.probes.http.jsoncondition import JsonCondition, compile_json
from healthmon.probes.http.regexes import compile_regex
from healthmon.probes.kind import DEGRADED, FAILED, OK

# A path with wildcards in a document larger than this is searched beside the loop, not on it.
SEARCH_ON_LOOP_BYTES = 8 * 1024
SHOWN_CHARS = 80

Verdict = tuple[str, str]
GOOD: Verdict = (OK, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderCondition:
    name: str
    holds: Callable[[str | None], bool]
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    statuses: frozenset[int]
    headers: tuple[HeaderCondition, ...] = ()
    contains: tuple[bytes, ...] = ()
    not_contains: tuple[bytes, ...] = ()
    regex: str = ""
    matches: Callable[[bytes], bool] | None = None
    json: JsonCondition | None = None

    @property
    def reads_body(self) -> bool:
        return bool(self.contains or self.not_contains or self.matches or self.json)


def compile_conditions(
    *,
    statuses: frozenset[int],
    response_headers: Iterable[str] = (),
    contains: Iterable[str] = (),
    not_contains: Iterable[str] = (),
    regex: str = "",
    json_path: str = "",
    json_operator: str = "exists",
    json_value: str = "",
) -> Conditions:
    """Raises ValueError naming the option that is wrong."""
    if "" in (*contains, *not_contains):
        raise ValueError("body_contains: an empty text is in every body")
    if json_value and not json_path:
        raise ValueError("json_path: what should be compared with json_value?")
    if json_value and json_operator in ("exists", "absent"):
        raise ValueError(f"json_operator: {json_operator} compares nothing with json_value")
    return Conditions(
        statuses=statuses,
        headers=tuple(_header_condition(line) for line in response_headers),
        contains=tuple(text.encode() for text in contains),
        not_contains=tuple(text.encode() for text in not_contains),
        regex=regex,
        matches=compile_regex(regex, "body_regex") if regex else None,
        json=compile_json(json_path, json_operator, json_value) if json_path else None,
    )


def _header_condition(line: str) -> HeaderCondition:
    name, colon, value = line.strip().partition(":")
    absent = name.startswith("!")
    name, value = name.removeprefix("!").strip(), value.strip()
    try:
        lower = header_name(name)
    except AnswerError:
        raise ValueError(f"response_headers: {name[:60]!r} is not a header's name") from None
    if absent:
        if colon:
            raise ValueError(f"response_headers: !{name} takes no value")
        return HeaderCondition(
            name=lower, holds=lambda found: found is None, words=f"has a header {name}"
        )
    if not value:
        return HeaderCondition(
            name=lower, holds=lambda found: found is not None, words=f"has no header {name}"
        )
    if value[0] == "=":
        exact = value[1:].strip()
        return HeaderCondition(
            name=lower,
            holds=lambda found: found == exact,
            words=f"has a header {name} that is not {exact[:SHOWN_CHARS]!r}",
        )
    if value[0] == "~":
        matches = compile_regex(value[1:].strip(), "response_headers")
        return HeaderCondition(
            name=lower,
            holds=lambda found: found is not None and matches(found.encode()),
            words=f"has a header {name} that does not match {value[1:].strip()[:SHOWN_CHARS]!r}",
        )
    return HeaderCondition(
        name=lower,
        holds=lambda found: found is not None and value in found,
        words=f"has a header {name} without {value[:SHOWN_CHARS]!r}",
    )


async def judge(answer: AnswerReader, conditions: Conditions) -> Verdict:
    """The outcome and what to say of it; the first condition that fails is the one told."""
    if answer.status not in conditions.statuses:
        return FAILED, f"the status is {answer.status}, which is not expected"
    for condition in conditions.headers:
        found = answer.headers.get(condition.name)
        if not condition.holds(found):
            missing = found is None and not condition.words.startswith("has no")
            words = f"has no header {condition.name}" if missing else condition.words
            return FAILED, f"the answer {words}"
    if not conditions.reads_body:
        return GOOD
    try:
        body, cut = decode(
            bytes(answer.body), answer.headers, cut=answer.cut, bound=answer.max_body_bytes
        )
    except AnswerError as error:
        return FAILED, str(error)
    body = to_utf8(body, answer.headers)
    verdict = _judge_text(body, conditions, cut=cut, bound=answer.max_body_bytes)
    if verdict[0] == FAILED or conditions.json is None:
        return verdict
    if cut:
        return FAILED, _beyond(answer.max_body_bytes, "so that its JSON cannot be judged")
    if conditions.json.plain or len(body) <= SEARCH_ON_LOOP_BYTES:
        problem = conditions.json.problem(body)
    else:
        problem = await asyncio.to_thread(conditions.json.problem, body)
    return (FAILED, problem) if problem else verdict


def _judge_text(body: bytes, conditions: Conditions, *, cut: bool, bound: int) -> Verdict:
    for wanted in conditions.contains:
        if wanted not in body:
            if cut:
                return FAILED, _beyond(bound, f"and {_quoted(wanted)} is not among them")
            return FAILED, f"the body does not contain {_quoted(wanted)}"
    for unwanted in conditions.not_contains:
        if unwanted in body:
            return FAILED, f"the body contains {_quoted(unwanted)}"
    if conditions.matches is not None and not conditions.matches(body):
        shown = conditions.regex[:SHOWN_CHARS]
        if cut:
            return FAILED, _beyond(bound, f"and {shown!r} does not match within them")
        return FAILED, f"the body does not match {shown!r}"
    if cut and conditions.not_contains:
        text = _quoted(conditions.not_contains[0])
        return DEGRADED, _beyond(bound, f"and whether {text} comes later is not known")
    return GOOD


def _beyond(bound: int, rest: str) -> str:
    return f"the body is longer than the {bound} bytes that are read, {rest}"


def _quoted(text: bytes) -> str:
    return repr(text.decode()[:SHOWN_CHARS])
