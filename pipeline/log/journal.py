"""The journal: what became of the log's records, on disk: a checkpoint, and the entries since.

Two files of each, written in place by turns, so that a full disk stops neither: the checkpoint of
generation g goes into `checkpoint.<g mod 2>`, the entries that carry it on into
`journal.<g mod 2>`.  The sound checkpoint with the highest generation is the one that counts, with
the entries of its generation up to the first that is not sound.

    checkpoint: "CLcp", version u32, generation u64, bytes u32, CRC-32 of generation and body u32,
                the body: MessagePack
    entry:      bytes u32, CRC-32 of generation and body u32, generation u64, the body: MessagePack;
                padded to 8 bytes.  A length of zero ends them.

Entries are queued under the log's lock and written by whoever needs them on disk first.
"""

from __future__ import annotations

import errno
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from pipeline.log.checkpoint import Checkpoint, Entry
from pipeline.log.disk import Disk
from pipeline.log.encoding import padded
from pipeline.log.groupcommit import Entry as Waiting
from pipeline.log.groupcommit import GroupCommit

MAGIC = b"CLcp"
VERSION = 1
CHECKPOINT_BYTES = 1 << 20
JOURNAL_BYTES = 4 << 20
_CHECKPOINT = struct.Struct("<4sIQII")
_ENTRY = struct.Struct("<IIQ")
_GENERATION = struct.Struct("<Q")
MAX_BODY = 1 << 28

Snapshot = Callable[[], tuple[Checkpoint, Callable[[], None]]]

_encoder = msgspec.msgpack.Encoder()
_checkpoints = msgspec.msgpack.Decoder(Checkpoint)
_entries = msgspec.msgpack.Decoder(Entry)


class _Commit(Waiting):
    """Somebody waits until what is queued by now is written."""

    __slots__ = ("sync",)

    def __init__(self, sync: bool) -> None:
        super().__init__()
        self.sync = sync


class Journal:
    """The journal of one log.  `durable` tells whether a sync is ever made."""

    def __init__(self, *, disk: Disk, directory: Path, durable: bool = True) -> None:
        self._disk = disk
        self._directory = directory
        self._durable = durable
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._queued: list[Entry] = []
        self._group: GroupCommit[_Commit] = GroupCommit(self._carry_out)
        # Owned by whoever leads the group.
        self._generation = 0
        self._offset = 0
        self._synced = True
        self._fds: dict[str, int] = {}
        self._failed: set[str] = set()

    def bind(self, lock: threading.Lock, snapshot: Snapshot) -> None:
        """Give it the log's lock, and what makes a checkpoint under it."""
        self._lock, self._snapshot = lock, snapshot

    # --- life ------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the files, with room set aside.  Raises OSError."""
        for slot in (0, 1):
            for name, size in _names(slot):
                self._fds[name] = self._disk.create(self._directory / name, size)

    def take_up(self, generation: int) -> None:
        """Go on with the files of a log that another process wrote.  Raises OSError."""
        self._generation = generation
        try:
            for slot in (0, 1):
                for name, size in _names(slot):
                    path = self._directory / name
                    try:
                        self._fds[name] = self._disk.open(path, write=True)
                    except FileNotFoundError:
                        self._fds[name] = self._disk.create(path, size)
        except BaseException:
            self._close()
            raise

    def close(self) -> None:
        """Write nothing more; a second time does nothing."""
        self._group.alone(self._close)

    def _close(self) -> None:
        for fd in self._fds.values():
            self._disk.close(fd)
        self._fds.clear()

    # --- writing ---------------------------------------------------------------------------

    def queue(self, entry: Entry) -> None:
        """Note an entry, to be written with the next commit; the log's lock is held."""
        self._queued.append(entry)

    @property
    def newest(self) -> str:
        """The name of the file that holds the checkpoint that counts."""
        return f"checkpoint.{self._generation % 2}"

    @property
    def waiting(self) -> bool:
        """Whether entries are queued that nobody has written."""
        return bool(self._queued)

    @property
    def nearly_full(self) -> bool:
        return self._offset > JOURNAL_BYTES // 2

    def commit(self, *, sync: bool) -> None:
        """Write what is queued by now; returns when that is done.  Raises OSError."""
        waiting = _Commit(sync and self._durable)
        self._group.do(waiting)
        if waiting.error is not None:
            raise OSError(*waiting.error.args) from waiting.error

    def checkpoint(self) -> None:
        """Write the state anew, and begin the next generation of entries.  Raises OSError."""
        self._group.alone(self._write_checkpoint)

    def _carry_out(self, waiting: list[_Commit]) -> None:
        try:
            self._write_queued(sync=any(one.sync for one in waiting))
        except OSError as error:
            for one in waiting:
                one.error = error

    def _write_queued(self, *, sync: bool) -> None:
        if not self._fds:
            raise OSError(errno.ESHUTDOWN, "the log is closed")
        name = f"journal.{self._generation % 2}"
        if name in self._failed:
            self._write_checkpoint()  # what was added to it now would stand behind what was lost
            return
        with self._lock:
            entries, self._queued = self._queued, []
        try:
            if entries:
                self._write(entries)
            if sync and not self._synced:
                self._disk.sync(self._fds[f"journal.{self._generation % 2}"])
                self._synced = True
        except OSError:
            # What a failed sync left is not known: a file that failed is not used again.
            self._failed.add(name)
            with self._lock:
                self._queued[:0] = entries
            self._write_checkpoint()

    def _write(self, entries: list[Entry]) -> None:
        data = b"".join(_encode_entry(entry, self._generation) for entry in entries)
        if self._offset + len(data) + _ENTRY.size > JOURNAL_BYTES or not self._generation:
            with self._lock:
                self._queued[:0] = entries
            entries.clear()  # they wait in the queue again, and the checkpoint holds them
            self._write_checkpoint()
            return
        # The zeros end what an older generation may have left behind it.
        end = bytes(min(_ENTRY.size, JOURNAL_BYTES - self._offset - len(data)))
        fd = self._fds[f"journal.{self._generation % 2}"]
        self._disk.write(fd, [data, end], self._offset)
        self._offset += len(data)
        self._synced = False

    def _write_checkpoint(self) -> None:
        """The state with all that is queued; whatever fails, the old state stays valid."""
        if not self._fds:
            raise OSError(errno.ESHUTDOWN, "the log is closed")
        assert self._snapshot is not None, "bound when the log is made"
        with self._lock:
            checkpoint, written = self._snapshot()
            entries, self._queued = self._queued, []
        generation = self._generation + 1
        name = f"checkpoint.{generation % 2}"
        try:
            fd = self._sound(name, CHECKPOINT_BYTES)
            self._sound(f"journal.{generation % 2}", JOURNAL_BYTES)
            self._failed.add(name)  # until it has not
            self._disk.write(fd, [encode_checkpoint(checkpoint, generation)], 0)
            if self._durable:
                self._disk.sync(fd)
        except OSError:
            if name in self._failed:
                # It may count all the same, and what is added to the older one would not.
                self._failed.add(f"journal.{self._generation % 2}")
            with self._lock:
                self._queued[:0] = entries
            raise
        self._failed.discard(name)
        self._generation, self._offset, self._synced = generation, 0, True
        with self._lock:
            written()

    def _sound(self, name: str, size: int) -> int:
        """The file, or another in its place where a write or a sync of it has failed."""
        if name in self._failed:
            path, fresh = self._directory / name, self._directory / f"{name}.new"
            try:
                self._disk.unlink(fresh)
            except FileNotFoundError:
                pass
            fd = self._disk.create(fresh, size)
            try:
                self._disk.rename(fresh, path)
                self._disk.sync_directory(self._directory)
            except OSError:
                self._disk.close(fd)
                raise
            self._disk.close(self._fds[name])
            self._fds[name] = fd
            self._failed.discard(name)
        return self._fds[name]


def _names(slot: int) -> tuple[tuple[str, int], ...]:
    return (f"checkpoint.{slot}", CHECKPOINT_BYTES), (f"journal.{slot}", JOURNAL_BYTES)


def _checksum(generation: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_GENERATION.pack(generation)))


def encode_checkpoint(checkpoint: Checkpoint, generation: int) -> bytes:
    body = _encoder.encode(checkpoint)
    head = _CHECKPOINT.pack(MAGIC, VERSION, generation, len(body), _checksum(generation, body))
    return head + body


def _encode_entry(entry: Entry, generation: int) -> bytes:
    body = _encoder.encode(entry)
    head = _ENTRY.pack(len(body), _checksum(generation, body), generation)
    return (head + body).ljust(padded(len(head) + len(body)), b"\0")


def read_checkpoint(data: bytes) -> tuple[int, Checkpoint] | None:
    """The generation and the checkpoint of a file; None where it is not sound."""
    if len(data) < _CHECKPOINT.size:
        return None
    magic, version, generation, nbytes, crc = _CHECKPOINT.unpack_from(data)
    body = data[_CHECKPOINT.size : _CHECKPOINT.size + nbytes]
    if magic != MAGIC or version != VERSION or len(body) != nbytes:
        return None
    if crc != _checksum(generation, body):
        return None
    try:
        return generation, _checkpoints.decode(body)
    except msgspec.DecodeError:
        return None


def read_entries(data: bytes, generation: int) -> list[Entry]:
    """The sound entries of one generation, in their order."""
    found: list[Entry] = []
    offset = 0
    while offset + _ENTRY.size <= len(data):
        nbytes, crc, of = _ENTRY.unpack_from(data, offset)
        body = data[offset + _ENTRY.size : offset + _ENTRY.size + nbytes]
        if not nbytes or of != generation or nbytes > MAX_BODY or len(body) != nbytes:
            break
        if crc != _checksum(generation, body):
            break
        try:
            found.append(_entries.decode(body))
        except msgspec.DecodeError:
            break
        offset += padded(_ENTRY.size + nbytes)
    return found


def read_journal(disk: Disk, directory: Path) -> tuple[int, Checkpoint | None, list[Entry]]:
    """The state that a directory holds: its generation, checkpoint and entries.

    Without a sound checkpoint the generation is 0 and there are no entries.  Raises OSError when
    the files cannot be read.
    """
    best: tuple[int, Checkpoint] | None = None
    for slot in (0, 1):
        read = read_checkpoint(_content(disk, directory / f"checkpoint.{slot}"))
        if read is not None and (best is None or read[0] > best[0]):
            best = read
    if best is None:
        return 0, None, []
    generation, checkpoint = best
    data = _content(disk, directory / f"journal.{generation % 2}")
    return generation, checkpoint, read_entries(data, generation)


def _content(disk: Disk, path: Path) -> bytes:
    try:
        fd = disk.open(path)
    except FileNotFoundError:
        return b""
    try:
        return disk.read(fd, min(disk.size(fd), MAX_BODY), 0)
    finally:
        disk.close(fd)
