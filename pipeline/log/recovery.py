"""Recovery: the log of a process that is gone, read in place until somebody has delivered it.

The journal tells which batches had been formed and what had ended; the segment files are read once
from front to back to count what each sink is still owed and where it begins.  Records themselves
are read later, as they are needed.  Runs on the thread that adopts.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.ledger import Ledger
from pipeline.log.checkpoint import Checkpoint, replay
from pipeline.log.cursor import Cursor
from pipeline.log.disk import Disk
from pipeline.log.encoding import shares_of
from pipeline.log.files import LogFiles, Owned
from pipeline.log.frame import Share
from pipeline.log.journal import Journal, read_journal
from pipeline.log.log import CORRUPT, End, Log
from pipeline.log.manifest import Extent, Manifest
from pipeline.log.quarantine import Quarantine
from pipeline.log.scan import FIRST_OFFSET, Damage, Found
from pipeline.log.segmentfile import (
    VERSION,
    Piece,
    Place,
    SegmentFile,
    SegmentFiles,
    head_of,
    number_of,
    path_of,
    read_from,
)
from pipeline.log.settings import LogSettings
from pipeline.runtime.clock import Clock

log = logging.getLogger(__name__)

# Never on disk, such as what was acknowledged from memory while the disk was full.
UNLOGGED = "unlogged"
UNKNOWN = "(corrupt)"
# What opening something says that is there and is no file.
_NO_FILE = frozenset({errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENXIO})
# More batches than one process forms.
NUMBERS = 1 << 32


@dataclass(kw_only=True)
class Replay:
    """A batch that was formed and had not ended: it is delivered again, unchanged."""

    number: int
    sink: str
    extents: list[Extent] = field(default_factory=list)
    place: Place | None = None
    tenants: Counter[str] = field(default_factory=Counter)
    # Where the first record of each tenant stands: its frame's position, its place in the share.
    firsts: dict[str, tuple[int, int]] = field(default_factory=dict)
    nbytes: int = 0

    @property
    def count(self) -> int:
        return sum(count for _, _, count in self.extents)


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """A log to be delivered, the batches that go first, and what was found out about it."""

    log: Log
    replays: list[Replay]
    keys: frozenset[str]
    lost_records: int

    @property
    def left(self) -> int:
        """Records that some sink is still owed, counted once for each."""
        unread = sum(cursor.unread_records for cursor in self.log.cursors())
        return unread + sum(one.count for one in self.replays)


def recover(
    owned: Owned, *, settings: LogSettings, clock: Clock, disk: Disk | None = None
) -> Recovered:
    """Read a log whose lock this process holds.  Raises OSError; the log is untouched then."""
    disk = disk or Disk()
    log_id = owned.path.name
    generation, checkpoint, entries = read_journal(disk, owned.path)
    if checkpoint is None:
        if any(number_of(name) is not None for name in disk.names(owned.path)):
            log.error(
                "log %s has no sound checkpoint: all that is in its files is delivered, whatever "
                "had been delivered before",
                log_id,
            )
        checkpoint = Checkpoint(log_id=log_id)
    if checkpoint.log_id != log_id:
        raise OSError(errno.EINVAL, f"it is the log {checkpoint.log_id} under another name")
    reader = _Reader(checkpoint, *replay(checkpoint, entries))
    # Numbers that a spoilt journal has forgotten may have proofs: they are not given again.
    reader.manifest.next_number = (reader.manifest.next_number // NUMBERS + 1) * NUMBERS
    quarantine = Quarantine(settings.directory, log_id, disk)
    files, stale = _files(disk, owned, checkpoint, reader)
    for file in files:
        reader.segments.add(file)
    reader.segments.ends = {n: e for n, e in reader.ends.items() if reader.segments.get(n)}
    pieces = [Piece(file.number, file.path, file.end) for file in files]
    for place, found in read_from(disk, pieces, Place(0, 0)):
        if isinstance(found, Found):
            reader.frame(place, found)
        else:
            reader.damage(place, found)
            quarantine.keep(path_of(owned.path, place.file), found)
    reader.damaged |= bool(set(checkpoint.files) - {file.number for file in files})
    journal = Journal(disk=disk, directory=owned.path, durable=settings.fsync != "never")
    journal.take_up(generation)
    made = Log(
        log_id=log_id,
        files=LogFiles(
            owned=owned,
            disk=disk,
            segments=reader.segments,
            journal=journal,
            quarantine=quarantine,
            settings=settings,
            next_file=max([checkpoint.next_file, *(file.number + 1 for file in files)]),
        ),
        manifest=reader.manifest,
        ledger=reader.ledger,
        next_position=reader.next_position,
        clock=clock,
    )
    for cursor in reader.cursors.values():
        made.restore_cursor(cursor)
    for key, number in reader.keys.items():
        made.hold_key(key, number)
    try:
        lost = reader.account_for_lost(made)
        made.checkpoint()
    except BaseException:
        journal.close()
        raise
    for path in stale:
        try:
            disk.unlink(path)
        except OSError as error:
            log.warning("%s is not needed any more and cannot be deleted: %s", path, error)
    return Recovered(
        log=made,
        replays=reader.found_replays(),
        keys=frozenset(reader.keys),
        lost_records=lost,
    )


def _files(
    disk: Disk, owned: Owned, checkpoint: Checkpoint, reader: _Reader
) -> tuple[list[SegmentFile], list[Path]]:
    """The segment files that count, in order, and those that were settled before the crash."""
    files, stale = [], []
    for name in disk.names(owned.path):
        number = number_of(name)
        if number is None:
            continue
        path = owned.path / name
        if number < checkpoint.next_file and number not in checkpoint.files:
            stale.append(path)
            continue
        try:
            fd = disk.open(path)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            log.error("%s is no segment file, and is passed over: %s", path, error)
            reader.damaged = True
            continue
        try:
            size = disk.size(fd)
            head = head_of(disk.read(fd, FIRST_OFFSET, 0))
        finally:
            disk.close(fd)
        if head is not None and head.version != VERSION:
            raise OSError(
                errno.EPROTO,
                f"{path} is of version {head.version} and this program reads {VERSION}",
            )
        if head is not None and head.log_id != owned.path.name[: len(head.log_id)]:
            raise OSError(errno.EINVAL, f"{path} belongs to the log {head.log_id}")
        end = min(reader.ends.get(number, size), size)
        files.append(
            SegmentFile(
                number=number, path=path, size=size, end=max(end, FIRST_OFFSET), sealed=True
            )
        )
    return sorted(files, key=lambda file: file.number), stale


class _Reader:
    """Counts what is owed while the frames go by."""

    def __init__(
        self, checkpoint: Checkpoint, manifest: Manifest, ledger: Ledger, ends: dict[int, int]
    ) -> None:
        self.manifest = manifest
        self.ledger = ledger
        self.ends = ends
        self.segments = SegmentFiles()
        self.cursors: dict[str, Cursor] = {}
        self.keys: dict[str, int] = {}
        self.damaged = False
        self.unknown = 0
        self.next_position = checkpoint.next_position
        self._counted_below = checkpoint.next_position
        # How many records come before the next frame; not known where files have been deleted.
        self._records: int | None = None if checkpoint.next_position else 0
        self._replays = {
            number: Replay(number=number, sink=sink) for number, sink, _ in manifest.items()
        }
        self._extents: dict[tuple[str, int], list[tuple[int, Extent]]] = {}
        for number, sink, extents in manifest.items():
            for extent in extents:
                self._extents.setdefault((sink, extent[0]), []).append((number, extent))
        for sink, (position, _) in manifest.reads.items():
            self._cursor(sink).next_position = position
            self._cursor(sink).next_load = position

    def _cursor(self, sink: str) -> Cursor:
        return self.cursors.setdefault(sink, Cursor(sink))

    def frame(self, place: Place, found: Found) -> None:
        header, meta = found.header, found.meta
        position = header.position
        if self._records is not None and header.records_before > self._records:
            self.damaged = True
            if position > self._counted_below or not self._counted_below:
                self._lose(header.records_before - self._records)
        self._records = header.records_before + header.count
        self.next_position = max(self.next_position, position + 1)
        owed = 0
        for share in shares_of(meta):
            if position >= self._counted_below:
                self.ledger.accepted(share.sink, meta.tenant, share.count)
            owed += self._unread(place, position, meta.tenant, share)
            owed += self._in_batches(place, position, meta.tenant, share)
        if meta.key:
            self.keys[meta.key] = place.file
            owed += 1
        file = self.segments.get(place.file)
        assert file is not None, "only known files are read"
        file.owed += owed

    def _lose(self, records: int) -> None:
        """Records were taken in of which nobody can tell any more for which sinks."""
        self.unknown += records
        self.ledger.passed_by(UNKNOWN, UNKNOWN, records, reason=CORRUPT)

    def damage(self, place: Place, damage: Damage) -> None:
        """What was taken in with a spoilt frame is counted, as far as it can be known."""
        header, meta = damage.header, damage.meta
        if header is None:
            self.damaged |= not damage.tail
            return
        self.damaged = True
        self._records = header.records_before + header.count
        self.next_position = max(self.next_position, header.position + 1)
        if header.position < self._counted_below:
            return  # the checkpoint has counted it
        if meta is None:
            self._lose(header.count)
            return
        for share in meta.shares:
            self.ledger.accepted(share.sink, meta.tenant, share.count)
        if meta.key:
            self.keys[meta.key] = place.file
            file = self.segments.get(place.file)
            assert file is not None, "only known files are read"
            file.owed += 1

    def _unread(self, place: Place, position: int, tenant: str, share: Share) -> int:
        if position < self.manifest.reads.get(share.sink, (0, 0))[0]:
            return 0
        share.start = min(self.manifest.taken(share.sink, position), share.count)
        if not share.unread:
            return 0
        cursor = self._cursor(share.sink)
        cursor.owed(tenant, share)
        if cursor.behind is None:
            cursor.behind = place
        return share.unread

    def _in_batches(self, place: Place, position: int, tenant: str, share: Share) -> int:
        owed = 0
        for number, extent in self._extents.get((share.sink, position), ()):
            one = self._replays[number]
            one.extents.append(extent)
            one.tenants[tenant] += extent[2]
            one.firsts[tenant] = min(extent[:2], one.firsts.get(tenant, extent[:2]))
            one.nbytes += share.weight(extent[2])
            one.place = one.place or place
            owed += extent[2]
        return owed

    def found_replays(self) -> list[Replay]:
        """The batches that have records left, in the order in which they were formed."""
        return [one for _, one in sorted(self._replays.items()) if one.extents]

    def account_for_lost(self, made: Log) -> int:
        """End what the ledger has taken in and the files do not hold; returns how many records.

        The one place where records are counted by subtraction: what is spoilt cannot be counted.
        """
        there: Counter[tuple[str, str]] = Counter()
        for cursor in self.cursors.values():
            for (sink, tenant), count in self.ledger.by_tally(
                cursor.sink, cursor.unread_tenants
            ).items():
                there[sink, tenant] += count
        for one in self._replays.values():
            for (sink, tenant), count in self.ledger.by_tally(one.sink, one.tenants).items():
                there[sink, tenant] += count
            if not one.extents:
                self.manifest.forget(one.number)
        reason = CORRUPT if self.damaged else UNLOGGED
        synced = made.files is not None and made.files.settings.fsync == "group"
        lost = self.unknown
        if lost:
            log.error(
                "log %s: %d records are spoilt, and nobody can tell for which sinks they were; "
                "they are counted as dropped (corrupt)",
                made.log_id,
                lost,
            )
        for (sink, tenant), tally in self.ledger.tallies().items():
            missing = tally.imbalance(there[sink, tenant])
            if missing < 0 and (self.damaged or not synced):
                # More has ended than was found: it was in frames that nobody can read.
                self.ledger.accepted(sink, tenant, -missing)
            if missing > 0:
                lost += missing
                made.end_lost(sink, [End(tenant, reason, missing)])
                log.error(
                    "log %s: %d records of tenant %s for sink %s are not in its files any more "
                    "(%s); they are counted as dropped",
                    made.log_id,
                    missing,
                    tenant,
                    sink,
                    reason,
                )
        return lost
