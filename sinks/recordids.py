"""A record's own id, as its sender gave it: the field `id` of the payload, a string or an integer.

Kept as JSON text, so that 1 and "1" stay two ids; one that is longer than `LONGEST` is kept as its
digest.  Records of another tenant or type never share an id.  Pure; runs in worker threads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import msgspec

from pipeline.record import Batch

LONGEST = 200
DEFAULT_DAYS = 7

Key = tuple[str, str, str]
"""Tenant, type, id."""

_INTEGER = re.compile(r"-?\d+")


class _Payload(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(_Payload).decode


def own_id(payload: bytes) -> str:
    """The payload's id as text; "" when it has none that is a string or an integer."""
    try:
        raw = bytes(_decode(payload).id).decode()
        if raw.startswith('"'):
            if "\\" in raw:  # the same text can be escaped in several ways
                raw = msgspec.json.encode(msgspec.json.decode(raw)).decode()
        elif not _INTEGER.fullmatch(raw):
            return ""
    except ValueError:  # not JSON, or not UTF-8: whoever stores the record says so
        return ""
    if len(raw) > LONGEST:
        return "sha256:" + hashlib.sha256(raw.encode()).hexdigest()
    return raw


@dataclass(slots=True)
class OwnIds:
    """The ids of a batch's records: who has which, and who comes after one of the same id."""

    first: dict[Key, int] = field(default_factory=dict)
    """The record that is stored for each id."""
    later: dict[Key, list[int]] = field(default_factory=dict)
    """The further records of the same id, in order."""
    key_of: dict[int, Key] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch, indices: Iterable[int]) -> OwnIds:
        """Of the records at `indices`; those without an id are left out."""
        wanted = set(indices)
        found = cls()
        index = -1
        for part in batch.parts:
            tenant, type_ = part.tenant, part.type
            for record in part.records:
                index += 1
                if index not in wanted or not (text := own_id(record.payload)):
                    continue
                key = (tenant, type_, text)
                found.key_of[index] = key
                if found.first.setdefault(key, index) != index:
                    found.later.setdefault(key, []).append(index)
        return found

    def stored_before(self, keys: Collection[Key]) -> set[int]:
        """The records that are not to be stored, when `keys` were claimed by earlier batches."""
        known = {self.first[key] for key in keys}
        return known.union(*self.later.values()) if self.later else known

    def successors(self, refused: Iterable[int], known: Collection[Key]) -> dict[int, Key]:
        """Who takes the place of refused records: the next with the same id."""
        found: dict[int, Key] = {}
        for index in refused:
            key = self.key_of.get(index)
            if key is not None and key not in known and self.later.get(key):
                found[self.later[key].pop(0)] = key
        return found
