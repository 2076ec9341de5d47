"""Bodies that are not text: cut into records, each of which becomes a line of JSON.

In chunks, so that no more than one of them is held both ways, and a thread with a large body lets
others run in between.  What cannot be written as JSON is rejected here, and by its index; all else
goes the way of any line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from ingest.wire import msgpack, protobuf
from ingest.wire.errors import RecordError
from ingest.wire.formats import Format

BINARY = frozenset({Format.MSGPACK, Format.PROTOBUF})


def chunks_of(
    body: bytes,
    format: Format,
    *,
    size: int,
    max_depth: int,
    max_record_bytes: int,
    check_count: Callable[[int], None],
    reject: Callable[[int, str, str], None],
) -> Iterator[tuple[list[bytes], list[int]]]:
    """Lines with their indexes, `size` at most at once; `reject` is told of what is none.

    Raises RequestError for the body as a whole, before anything of it is handed out.
    """
    read: _Reader
    if format is Format.MSGPACK:
        pieces, read = msgpack.split(body, check_count), msgpack.Lines(max_depth=max_depth)
    else:
        pieces, read = protobuf.split(body, check_count), protobuf.Lines(max_depth=max_depth)
    for start in range(0, len(pieces), size):
        chunk = pieces[start : start + size]
        indexes = list(range(start, start + len(chunk)))
        # What is decoded may be many times as large as what is sent.
        if max(map(len, chunk)) > max_record_bytes:
            for index in indexes:
                if len(pieces[index]) > max_record_bytes:
                    reject(
                        index,
                        "record_too_large",
                        f"the record has {len(pieces[index])} bytes, the most is "
                        f"{max_record_bytes}",
                    )
            indexes = [index for index in indexes if len(pieces[index]) <= max_record_bytes]
            chunk = [pieces[index] for index in indexes]
        lines: list[bytes] = []
        odd: list[int] = []
        left = read.swiftly(chunk)
        while True:
            try:
                lines.extend(left)
                break
            except read.odd:  # of the piece after those in `lines`; `left` goes on behind it
                odd.append(len(lines))
                lines.append(b"")
        refused: list[int] = []
        for place in odd:
            try:
                lines[place] = read.carefully(chunk[place])
            except RecordError as error:
                reject(indexes[place], error.code, error.detail)
                refused.append(place)
        for place in reversed(refused):
            del lines[place], indexes[place]
        yield lines, indexes


class _Reader(Protocol):
    """Writes encoded records out as JSON objects.

    `swiftly` raises one of `odd` for a piece that only `carefully` can tell about, which then
    returns its line after all or raises RecordError.
    """

    odd: tuple[type[Exception], ...]

    def swiftly(self, pieces: Iterable[bytes]) -> Iterator[bytes]: ...

    def carefully(self, piece: bytes) -> bytes: ...
