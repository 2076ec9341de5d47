"""Records on standard output or error, for development and for containers whose output is read.

What a terminal would obey (escape sequences, control characters, marks that turn the direction of
text) is spelled out, whoever sent it.  `_lock` keeps the lines of one batch together.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Literal, TextIO

import msgspec
from msgspec import Meta

from pipeline.errors import RetryableError
from pipeline.record import Batch, Part, level_name
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.options import SinkOptions

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# C0, DEL, C1, soft hyphen, zero-width and direction marks, line separators, the byte order mark.
_ACTIVE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


class ConsoleOptions(SinkOptions, frozen=True, kw_only=True):
    format: Literal["text", "json"] = "text"
    stream: Literal["stdout", "stderr"] = "stdout"
    max_line_chars: Annotated[
        int, Meta(ge=80, le=1_000_000, description="A longer line of text is cut.")
    ] = 4_000


class ConsoleSink(BaseSink[ConsoleOptions]):
    """Prints one line per record."""

    Options: ClassVar[type[SinkOptions]] = ConsoleOptions
    label = "Console"
    description = "Prints a line per record on the server's standard output."
    supports_probe = True

    def __init__(
        self, options: ConsoleOptions, *, name: str = "", stream: TextIO | None = None
    ) -> None:
        super().__init__(options, name=name)
        self._stream = stream
        self._lock = threading.Lock()
        self._lines: Callable[[Part], Iterable[str]] = (
            _json_lines if options.format == "json" else self._text_lines
        )

    def write(self, batch: Batch) -> Written:
        text = "".join(f"{line}\n" for part in batch.parts for line in self._lines(part))
        # Looked up now: a server may have redirected its output since.
        stream = self._stream or getattr(sys, self.options.stream)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        try:
            with self._lock:
                stream.write(text)
                stream.flush()
        except (OSError, ValueError) as error:
            raise RetryableError(f"{self.options.stream} cannot be written: {error}") from error
        return Written(stored=batch.count)

    def probe(self, batch: Batch) -> str:
        self.write(batch)
        return f"A marked line was printed on {self.options.stream}."

    def _text_lines(self, part: Part) -> Iterable[str]:
        most = self.options.max_line_chars
        for record in part.records:
            text = " ".join(
                (
                    _time(record.timestamp_us),
                    level_name(record.severity).ljust(5),
                    part.type,
                    inert(part.tenant),
                    inert(record.service) or "-",
                    inert(record.message),
                )
            )
            # The id stays whole: it tells a line that was printed twice.
            end = f" id={record.id}"
            fits = len(text) + len(end) <= most
            yield f"{text}{end}" if fits else f"{text[: most - len(end) - 1]}…{end}"


def inert(text: str) -> str:
    """The text with everything that a terminal would act on spelled out."""
    return _ACTIVE.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _json_lines(part: Part) -> Iterable[str]:
    about = msgspec.json.encode({"type": part.type, "tenant": part.tenant}).decode()[1:-1]
    for record in part.records:
        payload = record.payload.decode("utf-8", "backslashreplace")
        line = f'{{"id":"{record.id}",{about},"record":{payload}}}'
        yield _ACTIVE.sub(_json_spelled, line)


def _json_spelled(found: re.Match[str]) -> str:
    # Raw control characters are legal JSON only as white space; all others stand inside strings.
    return " " if found[0] in "\t\n\r" else f"\\u{ord(found[0]):04x}"


def _time(us: int) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"@{us}us"
