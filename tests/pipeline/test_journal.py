"""The journal: the newest sound checkpoint with its entries counts, whatever was torn or failed."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger import Ledger, Tally
from pipeline.log import journal as journal_module
from pipeline.log.checkpoint import (
    Checkpoint,
    Cut,
    Ended,
    Entry,
    Formed,
    Split,
    TallyEntry,
    replay,
)
from pipeline.log.journal import (
    Journal,
    _encode_entry,
    encode_checkpoint,
    read_checkpoint,
    read_entries,
    read_journal,
)
from pipeline.log.manifest import Manifest
from tests.pipeline.faultydisk import FaultyDisk
from tests.pipeline.rig import run_all


class Noted:
    """A journal whose state is a counter, kept in the checkpoint's `next_number`."""

    def __init__(self, root: Path, disk: FaultyDisk | None = None, *, durable: bool = True) -> None:
        self.root = root
        self.disk = disk or FaultyDisk()
        self.lock = threading.Lock()
        self.journal = Journal(disk=self.disk, directory=root, durable=durable)
        self.journal.bind(self.lock, self.snapshot)
        self.number = 0
        self.written = 0

    def snapshot(self) -> tuple[Checkpoint, Callable[[], None]]:
        return Checkpoint(log_id="log", next_number=self.number), self.told

    def told(self) -> None:
        self.written += 1

    def note(self) -> int:
        """Note the next number; returns it."""
        with self.lock:
            self.number += 1
            self.journal.queue(Cut(self.number, 0))
            return self.number

    def found(self) -> list[int]:
        """All numbers that the disk has."""
        _, checkpoint, entries = read_journal(self.disk, self.root)
        assert checkpoint is not None
        later = [entry.file for entry in entries if isinstance(entry, Cut)]
        return [*range(1, checkpoint.next_number + 1), *later]

    def found_after_a_power_cut(self, seed: int = 0) -> list[int]:
        self.disk.crash(Random(seed), power=True)
        return self.found()


@pytest.fixture
def noted(tmp_path: Path) -> Noted:
    one = Noted(tmp_path)
    one.journal.create()
    one.journal.checkpoint()
    return one


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "JOURNAL_BYTES", 256)
    monkeypatch.setattr(journal_module, "CHECKPOINT_BYTES", 256)


def test_what_was_committed_with_a_sync_survives_a_power_cut(noted: Noted) -> None:
    noted.note()
    assert noted.journal.waiting
    noted.journal.commit(sync=True)
    assert not noted.journal.waiting
    noted.note()
    noted.note()
    noted.journal.commit(sync=True)
    for seed in range(10):
        assert noted.found_after_a_power_cut(seed) == [1, 2, 3]


def test_what_was_committed_without_survives_a_kill_and_of_a_power_cut_what_is_whole(
    noted: Noted,
) -> None:
    noted.note()
    noted.journal.commit(sync=True)
    for _ in range(300):
        noted.note()
    noted.journal.commit(sync=False)
    assert noted.found() == list(range(1, 302))
    found = noted.found_after_a_power_cut(7)
    assert found == list(range(1, len(found) + 1))


def test_a_second_sync_with_nothing_new_is_none(noted: Noted) -> None:
    noted.note()
    noted.journal.commit(sync=False)
    before = noted.disk.calls["sync"]
    noted.journal.commit(sync=True)
    noted.journal.commit(sync=True)
    assert noted.disk.calls["sync"] == before + 1


def test_without_durability_nothing_is_synced(tmp_path: Path) -> None:
    noted = Noted(tmp_path, durable=False)
    noted.journal.create()
    noted.disk.calls.clear()
    noted.journal.checkpoint()
    noted.note()
    noted.journal.commit(sync=True)
    assert noted.disk.calls["sync"] == 0
    assert noted.found() == [1]


def test_checkpoints_take_turns_and_begin_the_entries_anew(noted: Noted) -> None:
    for turn in range(5):
        noted.note()
        noted.journal.commit(sync=True)
        noted.note()
        noted.journal.checkpoint()
        generation, checkpoint, entries = read_journal(noted.disk, noted.root)
        assert generation == turn + 2
        assert noted.journal.newest == f"checkpoint.{generation % 2}"
        assert checkpoint is not None
        assert checkpoint.next_number == noted.number
        assert entries == []
    assert noted.written == 6


@pytest.mark.usefixtures("small")
def test_a_full_journal_is_a_checkpoint(noted: Noted) -> None:
    for _ in range(100):
        noted.note()
        noted.journal.commit(sync=True)
        assert noted.found() == list(range(1, noted.number + 1))
    assert noted.written > 5
    assert len(noted.disk.content(noted.root / "journal.0")) <= 256


@pytest.mark.usefixtures("small")
def test_more_at_once_than_a_journal_takes_is_a_checkpoint(noted: Noted) -> None:
    for _ in range(50):
        noted.note()
    noted.journal.commit(sync=True)
    assert noted.found_after_a_power_cut() == list(range(1, 51))


def test_a_journal_says_when_it_is_nearly_full(tmp_path: Path, small: None) -> None:
    noted = Noted(tmp_path)
    noted.journal.create()
    noted.journal.checkpoint()
    assert not noted.journal.nearly_full
    while not noted.journal.nearly_full:
        noted.note()
        noted.journal.commit(sync=False)
    noted.journal.checkpoint()
    assert not noted.journal.nearly_full


@pytest.mark.parametrize("what", ["write", "sync"])
def test_a_failure_leads_to_a_checkpoint_elsewhere(noted: Noted, what: str) -> None:
    noted.note()
    noted.journal.commit(sync=True)
    noted.disk.fail(what, errno.EIO, times=1)
    noted.note()
    noted.journal.commit(sync=True)
    for seed in range(10):
        assert noted.found_after_a_power_cut(seed) == [1, 2]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("what", ["write", "sync"])
def test_a_file_that_failed_is_not_used_again_once_the_disk_heals(
    tmp_path: Path, what: str, seed: int
) -> None:
    """The checkpoint fails too: what is committed later must not stand behind what was lost."""
    noted = Noted(tmp_path)
    noted.disk._random = Random(seed)
    noted.journal.create()
    noted.journal.checkpoint()
    noted.note()
    noted.journal.commit(sync=True)
    noted.disk.fail(what, errno.EIO, times=2)
    noted.note()
    with pytest.raises(OSError, match="Input/output"):
        noted.journal.commit(sync=True)
    assert noted.journal.waiting
    noted.note()
    noted.journal.commit(sync=True)
    assert noted.found_after_a_power_cut(seed) == [1, 2, 3]


@pytest.mark.parametrize("what", ["write", "sync", "create", "rename", "sync_directory"])
def test_whatever_fails_in_a_checkpoint_the_old_state_stays_valid(noted: Noted, what: str) -> None:
    noted.note()
    noted.journal.commit(sync=True)
    noted.disk.fail("sync", errno.EIO, times=1)
    with pytest.raises(OSError, match="Input/output"):
        noted.journal.checkpoint()  # from now on a new file is needed
    noted.note()
    noted.disk.heal()
    noted.disk.fail(what, errno.ENOSPC, times=1)
    with pytest.raises(OSError, match="No space"):
        noted.journal.checkpoint()
    assert noted.found() in ([1], [1, 2])
    assert noted.journal.waiting
    # The checkpoint that failed may be there for a reader, and counts then: what is committed
    # must not go where only the older one leads.
    noted.journal.commit(sync=True)
    assert noted.found() == [1, 2]
    noted.note()
    noted.journal.checkpoint()
    assert noted.found_after_a_power_cut() == [1, 2, 3]


def test_a_file_that_is_made_anew_takes_the_place_of_what_a_crash_left_there(noted: Noted) -> None:
    noted.disk.close(noted.disk.create(noted.root / "checkpoint.0.new", 10))
    noted.disk.fail("sync", errno.EIO, times=1)
    with pytest.raises(OSError, match="Input/output"):
        noted.journal.checkpoint()
    noted.note()
    noted.journal.checkpoint()
    assert noted.found_after_a_power_cut() == [1]
    assert noted.disk.names(noted.root) == [
        "checkpoint.0",
        "checkpoint.1",
        "journal.0",
        "journal.1",
    ]


def test_a_closed_journal_takes_nothing_and_closes_twice(noted: Noted) -> None:
    noted.note()
    noted.journal.close()
    noted.journal.close()
    for act in (lambda: noted.journal.commit(sync=True), noted.journal.checkpoint):
        with pytest.raises(OSError, match="closed"):
            act()
    assert noted.disk.open_files == 0


def test_closing_waits_for_who_is_writing(noted: Noted) -> None:
    """A descriptor must not be closed, and perhaps become another file's, in the middle."""

    def commit() -> None:
        for _ in range(50):
            noted.note()
            try:
                noted.journal.commit(sync=True)
            except OSError as error:
                errors.add(error.errno)

    errors: set[int | None] = set()
    run_all([commit, commit, commit, noted.journal.close])
    assert errors <= {errno.ESHUTDOWN}
    assert noted.disk.open_files == 0


def test_another_process_goes_on_where_it_ended(noted: Noted) -> None:
    noted.note()
    noted.journal.commit(sync=True)
    noted.disk.unlink(noted.root / "journal.0")
    noted.disk.crash(Random(0), power=False)
    generation, _, _ = read_journal(noted.disk, noted.root)
    other = Noted(noted.root, noted.disk)
    other.number = noted.number
    other.journal.take_up(generation)
    other.journal.checkpoint()
    other.note()
    other.journal.commit(sync=True)
    assert other.found() == [1, 2]


def test_many_threads_lose_nothing(noted: Noted) -> None:
    def work(sync: bool) -> None:
        for _ in range(100):
            noted.note()
            noted.journal.commit(sync=sync)

    run_all([lambda sync=n % 2 == 0: work(sync) for n in range(6)])  # type: ignore[misc]
    assert sorted(noted.found()) == list(range(1, 601))


class TestReading:
    ENTRIES: ClassVar[list[Entry]] = [
        Formed(7, "a", ((3, 0, 2),), (4, 0)),
        Split(7, "a", [(8, ((3, 0, 1),)), (9, ((3, 1, 1),))]),
        Ended(8, "a", None, [TallyEntry("a", "t", Tally(accepted=2, stored=1))]),
        Cut(2, 640),
    ]

    @staticmethod
    def encoded(entries: list[Entry], generation: int = 5) -> bytes:
        return b"".join(_encode_entry(entry, generation) for entry in entries)

    def test_entries_come_back_as_they_were(self) -> None:
        data = self.encoded(list(self.ENTRIES))
        assert read_entries(data + bytes(64), 5) == self.ENTRIES
        assert read_entries(data, 4) == []
        assert read_entries(b"", 5) == []

    @given(data=st.data())
    def test_reading_ends_at_the_first_that_is_not_sound(self, data: st.DataObject) -> None:
        entries = list(self.ENTRIES)
        lengths = [len(self.encoded([entry])) for entry in entries]
        whole = bytearray(self.encoded(entries))
        at = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            whole[at] ^= data.draw(st.integers(1, 255))
        else:
            whole = whole[:at]
        sound, end = 0, 0
        for length in lengths:
            end += length
            if end > at:
                break
            sound += 1
        found = read_entries(bytes(whole), 5)
        # A flip in the padding spoils nothing.
        assert entries[:sound] == found[:sound]
        assert found == entries[: len(found)]

    def test_what_fits_its_checksum_and_is_no_entry_ends_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = self.encoded([Cut(1, 2)])
        with monkeypatch.context() as patch:
            patch.setattr(
                journal_module, "_encoder", type("E", (), {"encode": lambda self, one: b"\xc1"})()
            )
            nonsense = self.encoded([Cut(1, 2)])
            unreadable = encode_checkpoint(Checkpoint(log_id="x"), 3)
        assert read_entries(first + nonsense + first, 5) == [Cut(1, 2)]
        assert read_checkpoint(unreadable) is None

    def test_entries_of_an_older_generation_are_not_taken_for_newer_ones(
        self, noted: Noted
    ) -> None:
        for _ in range(40):
            noted.note()
        noted.journal.commit(sync=True)
        noted.journal.checkpoint()
        noted.journal.checkpoint()
        noted.note()
        noted.journal.commit(sync=True)
        assert noted.found() == list(range(1, 42))

    def test_a_checkpoint_with_one_flipped_byte_is_none(self) -> None:
        whole = encode_checkpoint(Checkpoint(log_id="log", next_number=9), 4)
        found = read_checkpoint(whole)
        assert found is not None
        assert (found[0], found[1].next_number) == (4, 9)
        for at in range(len(whole)):
            spoilt = bytearray(whole)
            spoilt[at] ^= 0x20
            assert read_checkpoint(bytes(spoilt)) is None
        assert read_checkpoint(whole[:-1]) is None
        assert read_checkpoint(b"") is None

    def test_without_a_sound_checkpoint_there_is_nothing(self, tmp_path: Path) -> None:
        assert read_journal(FaultyDisk(), tmp_path) == (0, None, [])

    def test_the_older_checkpoint_counts_where_the_newer_is_torn(self, noted: Noted) -> None:
        noted.note()
        noted.journal.commit(sync=True)
        noted.journal.checkpoint()
        noted.disk.damage(noted.root / noted.journal.newest, 20, b"\xff\xff")
        assert noted.found() == [1]


def test_the_state_is_what_the_entries_lead_to() -> None:
    checkpoint = Checkpoint(
        log_id="log",
        next_number=7,
        reads={"a": (3, 0)},
        batches=[(5, "a", ((0, 0, 2),)), (6, "b", ((1, 0, 1),))],
        tallies=[TallyEntry("a", "t", Tally(accepted=10, stored=4, passed=1))],
        ends={1: 64},
    )
    entries: list[Entry] = [
        Formed(7, "a", ((3, 0, 2),), (3, 2)),
        Split(7, "a", [(8, ((3, 0, 1),)), (9, ((3, 1, 1),))]),
        Ended(8, "a", None, [TallyEntry("a", "t", Tally(accepted=99, stored=5, passed=3))]),
        Ended(0, "b", (2, 0), []),
        Ended(4, "b", None, []),
        Cut(2, 640),
    ]
    manifest, ledger, ends = replay(checkpoint, entries)
    assert sorted(manifest.items()) == [
        (5, "a", ((0, 0, 2),)),
        (6, "b", ((1, 0, 1),)),
        (9, "a", ((3, 1, 1),)),
    ]
    assert manifest.next_number == 10
    assert manifest.reads == {"a": (3, 2), "b": (2, 0)}
    assert manifest.lowest("a") == 5
    assert manifest.lowest("c") == 10
    tally = ledger.tallies()["a", "t"]
    # Frames are counted as they are found; those that stood in no file are in the entry alone.
    assert (tally.accepted, tally.stored, tally.passed) == (12, 5, 3)
    assert ends == {1: 64, 2: 640}


def test_a_ledger_carries_a_tally_on_that_no_checkpoint_had() -> None:
    ledger = Ledger()
    ledger.carry_on("a", "t", Tally(accepted=5, stored=2, passed=2))
    tally = ledger.tallies()["a", "t"]
    assert (tally.accepted, tally.stored) == (2, 2)
    assert Manifest().lowest("a") == 1
