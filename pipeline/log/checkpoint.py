"""The checkpoint: the log's state at one moment, and the entries that carry it on from there.

What each sink has read, which batches have not settled, and the ledger, together; so that after a
crash neither is ahead of the other.  Plain values, made under the log's lock.
"""

from __future__ import annotations

import msgspec

from pipeline.ledger import Ledger, Tally
from pipeline.log.manifest import Extent, Manifest, Read


class TallyEntry(msgspec.Struct, array_like=True, gc=False):
    """A tally as it stood after what it is noted with; absolute, so noting it twice is harmless."""

    sink: str
    tenant: str
    tally: Tally


class Checkpoint(msgspec.Struct, kw_only=True):
    """The state of a log.  Frames from `next_position` on are not in the tallies yet.

    `files` are the numbers of the segment files that were there, of all below `next_file`; `ends`
    tells where the sound part of those ends that were cut off after a failed sync.  `ahead` tells
    by sink and position how many records of frames beyond its read were in batches.
    """

    log_id: str
    next_position: int = 0
    next_number: int = 1
    reads: dict[str, Read] = msgspec.field(default_factory=dict)
    batches: list[tuple[int, str, tuple[Extent, ...]]] = msgspec.field(default_factory=list)
    tallies: list[TallyEntry] = msgspec.field(default_factory=list)
    files: list[int] = msgspec.field(default_factory=list)
    next_file: int = 1
    ends: dict[int, int] = msgspec.field(default_factory=dict)
    ahead: dict[str, dict[int, int]] = msgspec.field(default_factory=dict)


class Formed(msgspec.Struct, array_like=True, tag="formed"):
    """A batch was formed, and its sink has read so far, and its extents beyond that."""

    number: int
    sink: str
    extents: tuple[Extent, ...]
    read: Read


class Split(msgspec.Struct, array_like=True, tag="split"):
    """A batch was cut into others."""

    number: int
    sink: str
    children: list[tuple[int, tuple[Extent, ...]]]


class Ended(msgspec.Struct, array_like=True, tag="ended"):
    """Records have ended: those of a batch (`number`, 0 for none), or those of `extents`, which
    were in none."""

    number: int
    sink: str
    read: Read | None
    tallies: list[TallyEntry]
    extents: tuple[Extent, ...] = ()


class Cut(msgspec.Struct, array_like=True, tag="cut"):
    """A segment file ends at an offset; what follows in it was never acknowledged."""

    file: int
    end: int


Entry = Formed | Split | Ended | Cut


def replay(checkpoint: Checkpoint, entries: list[Entry]) -> tuple[Manifest, Ledger, dict[int, int]]:
    """The state that the entries lead to: the manifest, the ledger, the ends of files cut off."""
    manifest, ledger, ends = Manifest(), Ledger(), dict(checkpoint.ends)
    manifest.next_number = checkpoint.next_number
    manifest.reads = dict(checkpoint.reads)
    manifest.restore_ahead(checkpoint.ahead)
    for number, sink, extents in checkpoint.batches:
        manifest.note(number, sink, extents)
    for one in checkpoint.tallies:
        ledger.restore(one.sink, one.tenant, one.tally)
    for entry in entries:
        match entry:
            case Formed():
                manifest.note(entry.number, entry.sink, entry.extents)
                manifest.advance(entry.sink, entry.extents, entry.read)
            case Split():
                for number, extents in entry.children:
                    manifest.note(number, entry.sink, extents)
                manifest.forget(entry.number)
            case Ended():
                manifest.forget(entry.number)
                if entry.read is not None:
                    manifest.advance(entry.sink, entry.extents, entry.read)
                for one in entry.tallies:
                    ledger.carry_on(one.sink, one.tenant, one.tally)
            case Cut():
                ends[entry.file] = entry.end
    return manifest, ledger, ends
