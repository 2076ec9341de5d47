"""From a body to records: all at once where it can be, one by one where something is wrong.

A body is worked on in chunks of lines, so that a thread with a large one lets others run in
between.  A bad record takes the careful way by itself: its neighbours do not pay for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec

from ingest.wire.binary import BINARY, chunks_of
from ingest.wire.errors import RecordError, Rejection, RequestError
from ingest.wire.fields import decode_object, text_of
from ingest.wire.formats import Format, split
from ingest.wire.kinds import Kind
from ingest.wire.logs import text_records
from ingest.wire.screen import Screen
from pipeline.record import Record

CHUNK_LINES = 512
MAX_REJECTIONS = 100  # entries in an answer; the others are counted
# Each tenant of a request is an offer of its own, with a receipt, a frame and a row in the ledger:
# without a bound one body could make a hundred thousand of each.
MAX_TENANTS = 100

_TENANT = re.compile(r"[a-z0-9\-_.]{1,63}\Z")
_UNUSUAL = (
    RecordError,
    TypeError,
    OverflowError,
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    max_records: int
    max_record_bytes: int
    max_depth: int


@dataclass(slots=True)
class Decoded:
    """The outcome of one body.

    `records` by tenant, in the order of the body; `indexes` tells where the records of a tenant
    stood, and is kept only once there is more than one tenant.
    """

    records: dict[str, list[Record]] = field(default_factory=dict)
    indexes: dict[str, list[int]] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)
    rejected: int = 0
    codes: dict[str, int] = field(default_factory=dict)

    def reject(self, index: int, code: str, detail: str) -> None:
        self.rejected += 1
        self.codes[code] = self.codes.get(code, 0) + 1
        if len(self.rejections) < MAX_REJECTIONS:
            self.rejections.append(Rejection(index, code, detail))


def decode(
    body: bytes,
    *,
    format: Format,
    kind: Kind,
    tenant: str,
    any_tenant: bool,
    arrival_us: int,
    limits: Limits,
) -> Decoded:
    """Every record of the body, or why it is none; raises RequestError for the body as a whole."""
    if format is Format.TEXT:
        return _decode_text(body, tenant=tenant, arrival_us=arrival_us, limits=limits)
    work = _Work(kind=kind, tenant=tenant, any_tenant=any_tenant, arrival_us=arrival_us)
    if format in BINARY:
        return _decode_binary(body, format, work, limits)
    lines, indexes = split(body, format)
    _check_count(len(lines), limits)
    work.screen = _screen(body, lines, limits)
    if len(lines) <= CHUNK_LINES:
        work.chunk(lines, indexes)
    else:
        for start in range(0, len(lines), CHUNK_LINES):
            end = start + CHUNK_LINES
            work.chunk(lines[start:end], indexes[start:end])
    return work.done


def _screen(body: bytes, lines: list[bytes], limits: Limits) -> Screen:
    return Screen(body, lines, max_depth=limits.max_depth, max_record_bytes=limits.max_record_bytes)


def _decode_binary(body: bytes, format: Format, work: _Work, limits: Limits) -> Decoded:
    for lines, indexes in chunks_of(
        body,
        format,
        size=CHUNK_LINES,
        max_depth=limits.max_depth,
        max_record_bytes=limits.max_record_bytes,
        check_count=lambda count: _check_count(count, limits),
        reject=work.done.reject,
    ):
        work.screen = _screen(b"\n".join(lines), lines, limits)
        work.chunk(lines, indexes)
    # What is no JSON is found before what is not right in it.
    work.done.rejections.sort(key=attrgetter("index"))
    return work.done


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.max_records:
        raise RequestError(
            413,
            "too_many_records",
            f"{count} records in one request, the most is {limits.max_records}",
            limit=f"max_records={limits.max_records}",
        )


class _Work:
    """One body on its way; `done` collects.  `screen` is that of the chunk to come."""

    screen: Screen

    def __init__(self, *, kind: Kind, tenant: str, any_tenant: bool, arrival_us: int) -> None:
        self.done = Decoded()
        self._kind = kind
        self._tenant = tenant
        self._any_tenant = any_tenant
        self._arrival_us = arrival_us

    def chunk(self, lines: list[bytes], indexes: Sequence[int]) -> None:
        if not lines:
            return
        refused = {} if self.screen.clean else self._refused(lines)
        sound = lines
        if refused:
            # An empty line does not decode, which makes an odd one of it.
            sound = [b"" if i in refused else line for i, line in enumerate(lines)]
        parsed, odd = self._parse(sound)
        start = 0
        for place in odd:
            self._build(parsed[start:place], lines[start:place], indexes[start:place])
            if place in refused:
                error = refused[place]
                self.done.reject(indexes[place], error.code, error.detail)
            else:
                self._carefully(lines[place], indexes[place])
            start = place + 1
        if start:
            parsed, lines, indexes = parsed[start:], lines[start:], indexes[start:]
        self._build(parsed, lines, indexes)

    def _refused(self, lines: list[bytes]) -> dict[int, RecordError]:
        """What the screen refuses, by place."""
        refused = {}
        for place in self.screen.suspects(lines):
            try:
                self.screen.judge(lines[place])
            except RecordError as error:
                refused[place] = error
        return refused

    def _parse(self, lines: list[bytes]) -> tuple[list[Any], list[int]]:
        """A struct for each line, None for odd ones, and the places of those.

        Odd is what did not decode, and what names another tenant than the key's.
        """
        parsed: list[Any] = []
        odd: list[int] = []
        left = map(self._kind.decode, lines)
        while True:
            try:
                parsed.extend(left)
                break
            except _UNUSUAL:  # of the line after those in `parsed`; `left` goes on behind it
                odd.append(len(parsed))
                parsed.append(None)
        usual = (None, "", self._tenant)
        named = {one.tenant for one in parsed} if not odd else {0}
        if not named.issubset(usual):
            odd = [i for i, one in enumerate(parsed) if one is None or one.tenant not in usual]
        return parsed, odd

    def _build(self, parsed: list[Any], lines: list[bytes], indexes: Sequence[int]) -> None:
        """Keep the records of usual lines: in halves where one of them turns out to be odd."""
        if not parsed:
            return
        try:
            records = self._kind.build(parsed, lines, self._arrival_us)
        except _UNUSUAL:
            if len(lines) == 1:
                self._carefully(lines[0], indexes[0])
                return
            middle = len(lines) // 2
            self._build(parsed[:middle], lines[:middle], indexes[:middle])
            self._build(parsed[middle:], lines[middle:], indexes[middle:])
        else:
            self._keep(self._tenant, records, indexes)

    def _carefully(self, line: bytes, index: int) -> None:
        """Keep the record of a line that the screen has no objection to, or say what is wrong."""
        try:
            try:
                one = self._kind.decode(line)
                (record,) = self._kind.build([one], [line], self._arrival_us)
                named = one.tenant
            except _UNUSUAL:
                if not line.strip():
                    return
                fields = decode_object(line)
                record = self._kind.read(fields, line, self._arrival_us)
                named = text_of("tenant", fields.get("tenant"))
            tenant = self._tenant_of(named)
        except RecordError as error:
            self.done.reject(index, error.code, error.detail)
        else:
            self._keep(tenant, [record], (index,))

    def _tenant_of(self, named: str | None) -> str:
        if not named or named == self._tenant:
            return self._tenant
        if not self._any_tenant:
            raise RecordError(
                "wrong_tenant",
                f"the API key writes for tenant {self._tenant!r}, the record names {named[:63]!r}",
            )
        if not _TENANT.match(named):
            raise RecordError(
                "bad_value",
                "a tenant is 1 to 63 lower-case letters, digits, '-', '_' or '.', "
                f"this is {named[:63]!r}",
            )
        return named

    def _keep(self, tenant: str, records: list[Record], indexes: Sequence[int]) -> None:
        kept = self.done.records.get(tenant)
        if kept is None:
            if len(self.done.records) >= MAX_TENANTS:
                raise RequestError(
                    413,
                    "too_many_tenants",
                    f"the records are of more than {MAX_TENANTS} tenants, which is the most in "
                    "one request; nothing of it was stored. Send them in several requests",
                    limit=f"max_tenants={MAX_TENANTS}",
                )
            self.done.records[tenant] = records
            self.done.indexes[tenant] = list(indexes)
        else:
            kept += records
            self.done.indexes[tenant] += indexes


def _decode_text(body: bytes, *, tenant: str, arrival_us: int, limits: Limits) -> Decoded:
    """Lines of text.  What is no text (NUL, invalid UTF-8) is written out as \\x00, not refused."""
    text = body.decode("utf-8-sig", "backslashreplace")
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    lines = text.split("\n")
    if "\r" in text:
        lines = [line.rstrip("\r") for line in lines]
    indexes: Sequence[int] = range(len(lines))
    if not all(lines):
        indexes = [index for index, line in enumerate(lines) if line]
        lines = [line for line in lines if line]
    _check_count(len(lines), limits)
    done = Decoded()
    if len(body) > limits.max_record_bytes // 4:
        # Encoded, a line may be up to six times as long; measured only where it could matter.
        lines, indexes = _without_long_lines(lines, indexes, limits, done)
    if lines:
        records: list[Record] = []
        for start in range(0, len(lines), CHUNK_LINES):
            records += text_records(lines[start : start + CHUNK_LINES], arrival_us)
        done.records[tenant] = records
        done.indexes[tenant] = list(indexes)
    return done


def _without_long_lines(
    lines: list[str], indexes: Sequence[int], limits: Limits, done: Decoded
) -> tuple[list[str], list[int]]:
    kept_lines: list[str] = []
    kept_indexes: list[int] = []
    for line, index in zip(lines, indexes, strict=True):
        size = len(line.encode())
        if size > limits.max_record_bytes:
            done.reject(
                index,
                "record_too_large",
                f"the line has {size} bytes, the most is {limits.max_record_bytes}",
            )
        else:
            kept_lines.append(line)
            kept_indexes.append(index)
    return kept_lines, kept_indexes
