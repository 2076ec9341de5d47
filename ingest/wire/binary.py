"""Bodies that are not text: cut into records, each of which becomes a line of JSON.

In chunks, so that no more than one of them is held both ways, and a thread with a large body lets
others run in between.  What cannot be written as JSON is rejected here, and by its index; all else
goes the way of any line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

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
    line_of: Callable[[bytes], bytes]
    if format is Format.MSGPACK:
        pieces = msgpack.split(body, check_count)
        line_of = partial(msgpack.line_of, max_depth=max_depth)
    else:
        pieces = protobuf.split(body, check_count)
        line_of = protobuf.Lines(max_depth=max_depth).line_of
    for start in range(0, len(pieces), size):
        lines: list[bytes] = []
        indexes: list[int] = []
        for index, piece in enumerate(pieces[start : start + size], start):
            try:
                # What is decoded may be many times as large as what is sent.
                if len(piece) > max_record_bytes:
                    raise RecordError(
                        "record_too_large",
                        f"the record has {len(piece)} bytes, the most is {max_record_bytes}",
                    )
                lines.append(line_of(piece))
            except RecordError as error:
                reject(index, error.code, error.detail)
            else:
                indexes.append(index)
        yield lines, indexes
