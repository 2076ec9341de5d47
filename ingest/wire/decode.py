"""From a body to records: all at once where it can be, one by one where something is wrong.

A body is worked on in chunks of lines, so that a thread with a large one lets others run in
between, and so that a bad record slows its chunk only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

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
    lines, indexes = split(body, format)
    _check_count(len(lines), limits)
    screen = Screen(
        body,
        records=len(lines),
        max_depth=limits.max_depth,
        max_record_bytes=limits.max_record_bytes,
    )
    work = _Work(
        kind=kind, tenant=tenant, any_tenant=any_tenant, arrival_us=arrival_us, screen=screen
    )
    if len(lines) <= CHUNK_LINES:
        work.chunk(lines, indexes)
    else:
        for start in range(0, len(lines), CHUNK_LINES):
            end = start + CHUNK_LINES
            work.chunk(lines[start:end], indexes[start:end])
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
    """One body on its way; `done` collects."""

    def __init__(
        self, *, kind: Kind, tenant: str, any_tenant: bool, arrival_us: int, screen: Screen
    ) -> None:
        self.done = Decoded()
        self._kind = kind
        self._tenant = tenant
        self._any_tenant = any_tenant
        self._arrival_us = arrival_us
        self._screen = screen

    def chunk(self, lines: list[bytes], indexes: Sequence[int]) -> None:
        if not lines:
            return
        suspects = () if self._screen.clean else self._screen.suspects(lines)
        if not suspects:
            try:
                parsed = list(map(self._kind.decode, lines))
                named = {one.tenant for one in parsed}
                if named <= {None, "", self._tenant}:
                    self._keep(
                        self._tenant,
                        self._kind.build(parsed, lines, self._arrival_us),
                        indexes,
                    )
                    return
            except _UNUSUAL:
                pass  # the careful way finds out which record, and why
        self._carefully(lines, indexes, frozenset(suspects))

    def _carefully(
        self, lines: list[bytes], indexes: Sequence[int], suspects: frozenset[int]
    ) -> None:
        decode, build = self._kind.decode, self._kind.build
        for place, (line, index) in enumerate(zip(lines, indexes, strict=True)):
            try:
                if place in suspects:
                    self._screen.judge(line)
                try:
                    one = decode(line)
                    (record,) = build([one], [line], self._arrival_us)
                    named = one.tenant
                except _UNUSUAL:
                    if not line.strip():
                        continue
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
