"""Reading log files: whole lines, rotation, truncation, restarts. Plain files, no server."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.shipper.lines import Line, LineCutter, as_ndjson, as_text
from ingest.shipper.state import Position, StateError, StateFile
from ingest.shipper.tail import NotAFile, Tail


class Follower:
    """A tail under test, with what it warned about."""

    def __init__(self, path, position=None, **options):
        self.warnings: list[str] = []
        self.tail = Tail(
            path,
            position=position,
            max_line_bytes=options.pop("max_line_bytes", 1000),
            warn=self.warnings.append,
            **options,
        )
        self.position = position

    def look(self, *, looks=1, to_the_end=False, max_lines=1000, max_bytes=10**6):
        found = []
        for _ in range(looks):
            lines = self.tail.read(max_lines=max_lines, max_bytes=max_bytes, to_the_end=to_the_end)
            if lines:
                self.position = self.tail.at(lines[-1].end)
            found += [line.data.decode() for line in lines]
        return found


@pytest.fixture
def log(tmp_path):
    return tmp_path / "app.log"


def append(path, text):
    with open(path, "ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def test_lines_come_as_they_are_finished(log):
    append(log, "one\ntwo\nthr")
    follower = Follower(log)
    assert follower.look() == ["one", "two"]
    assert follower.look() == []
    append(log, "ee\n")
    assert follower.look() == ["three"]


def test_an_unfinished_last_line_is_a_line_when_the_file_will_not_grow(log):
    append(log, "one\ntwo")
    follower = Follower(log)
    assert follower.look(to_the_end=True, looks=3) == ["one", "two"]
    assert follower.position.offset == 7


def test_reading_is_bounded_by_lines_and_bytes(log):
    append(log, "".join(f"{n:09}\n" for n in range(100)))
    follower = Follower(log)
    assert len(follower.look(max_lines=7)) == 7
    assert len(follower.look(max_bytes=50)) == 5
    assert follower.position.offset == 120
    assert len(follower.look()) == 88


def test_a_restart_goes_on_where_it_was(log):
    append(log, "one\ntwo\nthree\n")
    first = Follower(log)
    assert first.look(max_lines=2) == ["one", "two"]
    assert Follower(log, first.position).look() == ["three"]


def test_renaming_reads_the_old_file_to_its_end_first(log):
    append(log, "one\n")
    follower = Follower(log)
    assert follower.look() == ["one"]
    append(log, "two\nlast without a break")
    os.rename(log, log.with_suffix(".log.1"))
    append(log, "new\n")
    assert follower.look(looks=4) == ["two", "last without a break", "new"]
    assert follower.position.offset == 4


def test_a_writer_that_holds_the_renamed_file_is_still_read(log):
    append(log, "one\n")
    follower = Follower(log)
    old = log.with_suffix(".log.1")
    assert follower.look() == ["one"]
    os.rename(log, old)
    append(log, "new\n")
    assert follower.look() == []
    append(old, "late\n")
    assert follower.look(looks=4) == ["late", "new"]


def test_lines_of_two_files_never_share_a_batch(log):
    append(log, "one\n")
    follower = Follower(log)
    assert follower.look() == ["one"]
    append(log, "two\n")
    os.rename(log, log.with_suffix(".log.1"))
    append(log, "new\n")
    follower.look(looks=1)
    lines = follower.tail.read(max_lines=9, max_bytes=999, to_the_end=True, stay=True)
    assert lines == []
    assert follower.look(to_the_end=True) == ["new"]


def test_rotation_while_nobody_read_loses_nothing(log):
    append(log, "one\ntwo\n")
    first = Follower(log)
    assert first.look(max_lines=1) == ["one"]
    first.tail.close()
    for number, text in ((1, "three\n"), (2, "four\n")):
        os.rename(log, log.with_name(f"app.log.{number}"))
        append(log, text)
        os.utime(log.with_name(f"app.log.{number}"), ns=(number, number))
    second = Follower(log, first.position)
    assert second.look(looks=8) == ["two", "three", "four"]
    assert second.warnings == []


def test_a_file_that_is_gone_is_said_and_the_new_one_read(log):
    append(log, "one\n")
    first = Follower(log)
    first.look()
    other = log.with_name("other")
    append(other, "new\nnewer\n")
    os.replace(other, log)
    second = Follower(log, first.position)
    assert second.look() == ["new", "newer"]
    assert "not the file that was read last" in second.warnings[0]


def test_the_same_inode_with_other_contents_is_another_file(log):
    """File systems give a freed inode to the next file."""
    append(log, "one\n")
    first = Follower(log)
    first.look()
    with open(log, "r+b") as file:
        file.write(b"ANOTHER FILE\nline\n")
    second = Follower(log, first.position)
    assert second.look() == ["ANOTHER FILE", "line"]


@pytest.mark.parametrize("rewritten", ["x\n", "a longer text than there was\nx\n"])
def test_truncation_is_seen_even_when_the_file_has_grown_past_the_place(log, rewritten):
    append(log, "one\ntwo\n")
    follower = Follower(log)
    assert follower.look() == ["one", "two"]
    log.write_text(rewritten)
    assert follower.look(looks=2) == rewritten.splitlines()
    assert "truncated" in follower.warnings[0]
    assert follower.tail.truncations == 1


def test_a_file_that_is_not_there_yet_is_waited_for(log):
    follower = Follower(log)
    assert follower.look(looks=3) == []
    assert len(follower.warnings) == 1
    append(log, "one\n")
    assert follower.look() == ["one"]


def test_beginning_at_the_end(log):
    append(log, "old\n")
    follower = Follower(log, from_end=True)
    assert follower.look() == []
    append(log, "new\n")
    assert follower.look() == ["new"]


def test_a_directory_is_no_log(tmp_path):
    with pytest.raises(NotAFile):
        Follower(tmp_path)


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAFile):
        Follower(tmp_path / "pipe")


def test_a_long_line_is_cut_in_bounded_memory_and_the_next_is_whole(log):
    append(log, b"x" * 3_000_000 + b"\nnext\n")
    follower = Follower(log)
    lines: list[Line] = []
    while len(lines) < 2:
        lines += follower.tail.read(max_lines=10, max_bytes=10**6, to_the_end=False)
        assert follower.tail.behind or lines
    assert [len(line.data) for line in lines] == [1000, 4]
    assert lines[0].cut == 2_999_000
    assert lines[1].end == 3_000_006
    assert as_text(lines[0]).endswith(b"x [cut by ship: 2999000 bytes more]")


@given(data=st.binary(max_size=300), sizes=st.lists(st.integers(1, 40), min_size=1))
def test_however_the_bytes_arrive_the_lines_are_the_same(data, sizes):
    cutter = LineCutter(offset=5, max_line_bytes=20)
    lines, at = [], 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        lines += cutter.feed(data[at : at + size])
        at += size
    if cutter.unfinished:
        lines.append(cutter.finish())
    whole = data.removesuffix(b"\n").split(b"\n") if data else []
    assert [line.data for line in lines] == [line[:20] for line in whole]
    assert [line.cut for line in lines] == [max(len(line) - 20, 0) for line in whole]
    assert cutter.offset == 5 + len(data)


@given(st.binary(max_size=80), st.integers(0, 3))
def test_any_bytes_become_one_line_of_utf8(data, cut):
    line = Line(data.replace(b"\n", b""), 0, cut)
    text = as_text(line)
    text.decode()
    assert b"\n" not in text
    assert b"\r" not in text


def test_a_cut_ndjson_line_becomes_a_message():
    assert as_ndjson(Line(b'{"message":"aaa', 0, 9)).startswith(b'{"message": "{\\"message')
    assert as_ndjson(Line(b'{"a":1}\r', 0)) == b'{"a":1}'


# -- the remembered place -----------------------------------------------------------------------


def test_a_place_survives_and_is_one_file_a_source(tmp_path, log):
    state = StateFile(tmp_path / "ship", log)
    state.acquire()
    assert state.load() is None
    place = Position(device=1, inode=2, offset=3, prefix_length=4, prefix_crc=5)
    state.save(place)
    assert state.load() == place
    assert StateFile(tmp_path / "ship", log.with_name("other.log")).path != state.path
    assert sorted(file.suffix for file in (tmp_path / "ship").iterdir()) == [".json", ".lock"]
    state.release()


def test_two_shippers_of_one_file_are_one_too_many(tmp_path, log):
    first, second = StateFile(tmp_path, log), StateFile(tmp_path, log)
    first.acquire()
    with pytest.raises(StateError, match="another `ship`"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"offset": 1}', '{"offset": null}'])
def test_a_broken_state_is_not_guessed_at(tmp_path, log, text):
    state = StateFile(tmp_path, log)
    state.path.write_text(text)
    with pytest.raises(StateError, match="delete it"):
        state.load()
