"""The manifest: every batch is noted before its first attempt and forgotten when it settled."""

from __future__ import annotations

from functools import partial

import pytest

from pipeline.log.log import Log
from pipeline.log.manifest import Manifest
from pipeline.record import Part
from tests.pipeline.rig import run_all
from tests.pipeline.support import frame, records, share, weight


def parts(*counts: int) -> list[Part]:
    log, made = Log(log_id="log"), []
    log.cursor("a")
    for count in counts:
        of = records(count)
        one = frame(of, share(of))
        log.append(one)
        nbytes = weight(of)
        made.append(Part(frame=one, start=0, count=count, nbytes=nbytes, held_bytes=nbytes))
    return made


def test_batches_are_numbered_for_all_sinks_together_and_tell_their_extents() -> None:
    manifest = Manifest()
    assert manifest.add("a", parts(2, 3)) == 1
    assert manifest.add("b", parts(4)) == 2
    assert manifest.entries("a") == {1: ((0, 0, 2), (1, 0, 3))}
    assert manifest.entries("b") == {2: ((0, 0, 4),)}
    manifest.settle(1)
    assert manifest.entries("a") == {}
    assert manifest.add("a", parts(1)) == 3


def test_a_split_replaces_the_batch_by_its_children_with_the_same_records() -> None:
    manifest = Manifest()
    (whole,) = parts(5)
    number = manifest.add("a", [whole])
    head, rest = whole.split(2)
    assert manifest.split(number, "a", [[head], [rest]]) == [2, 3]
    assert manifest.entries("a") == {2: ((0, 0, 2),), 3: ((0, 2, 3),)}


def test_a_batch_is_settled_once() -> None:
    manifest = Manifest()
    manifest.settle(manifest.add("a", parts(1)))
    with pytest.raises(KeyError):
        manifest.settle(1)


@pytest.mark.concurrency
def test_pipelines_that_share_a_log_never_share_a_number() -> None:
    """The log's lock guards its manifest, which all pipelines' workers add to."""
    log = Log(log_id="log")
    (one,) = parts(1)
    numbers: list[int] = []

    def form(sink: str) -> None:
        numbers.extend(log.form(sink, [one], (1, 0)) for _ in range(300))

    run_all([partial(form, sink) for sink in "abcd"])
    assert sorted(numbers) == list(range(1, 1201))
    assert len(log.manifest.items()) == 1200


def test_what_was_taken_of_the_first_frame_is_known_however_often_others_are_read() -> None:
    """Frames that overtook: the line stands at 1, which is in a batch, while 3 and 5 are taken."""
    manifest = Manifest()
    manifest.advance("a", [(0, 0, 2)], (1, 0))
    manifest.advance("a", [(1, 0, 3)], (1, 0))
    assert manifest.taken("a", 1) == 3
    manifest.advance("a", [(3, 0, 2)], (1, 0))
    manifest.advance("a", [(5, 0, 1)], (1, 0))
    assert [manifest.taken("a", position) for position in (1, 2, 3, 5)] == [3, 0, 2, 1]
    assert manifest.ahead() == {"a": {3: 2, 5: 1}}
    manifest.advance("a", [(2, 0, 4)], (3, 0))
    assert (manifest.reads["a"], manifest.ahead()) == ((3, 2), {"a": {5: 1}})
    manifest.advance("a", [], (6, 0))
    assert (manifest.reads["a"], manifest.ahead()) == ((6, 0), {})
