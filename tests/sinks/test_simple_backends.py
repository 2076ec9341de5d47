"""The console, null and memory sinks."""

from __future__ import annotations

import io
import json
import re
import threading

import pytest

from pipeline.errors import PermanentError, RetryableError
from sinks.backends.console import ConsoleOptions, ConsoleSink, inert
from sinks.backends.memory import MemoryOptions, MemorySink
from sinks.backends.null import NullSink
from sinks.options import NoOptions
from tests.sinks.contract import WAIT_S, SinkContract
from tests.sinks.records import batch, record, records

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202eevil\u2028\x7f"


class TestNullSink(SinkContract):
    def make(self):
        return NullSink(NoOptions(), name="nothing")

    def stored_ids(self, sink):
        return None


class TestMemorySink(SinkContract):
    def make(self):
        return MemorySink(name="kept")

    def stored_ids(self, sink):
        return [r.id for r in sink.records]

    def test_is_found_by_its_name(self):
        sink = self.make()
        sink.open()
        assert MemorySink.named("kept") is sink

    def test_fails_as_it_is_told(self, sink):
        sink.fail_next(RetryableError("down"), PermanentError("bad"))
        one = batch(records(1))
        with pytest.raises(RetryableError):
            sink.write(one)
        with pytest.raises(PermanentError):
            sink.write(one)
        sink.write(one)
        assert sink.stored == 1

    def test_hangs_until_released_or_aborted(self, sink):
        sink.hold()
        errors = []

        def work():
            try:
                sink.write(batch(records(1)))
            except RetryableError as error:
                errors.append(str(error))

        thread = threading.Thread(target=work)
        thread.start()
        assert sink.join_writing(timeout_s=WAIT_S)
        sink.abort()
        thread.join(WAIT_S)
        assert errors == ["aborted"]
        sink.release()
        sink.write(batch(records(4)))
        assert sink.join(4, timeout_s=WAIT_S)

    def test_keeps_no_more_than_it_should(self):
        sink = MemorySink(MemoryOptions(keep_records=10))
        for _ in range(5):
            sink.write(batch(records(4)))
        assert len(sink.records) == 8
        assert sink.stored == 20


class TestConsoleSink(SinkContract):
    trial_shows = True

    def make(self):
        return ConsoleSink(ConsoleOptions(), name="out", stream=io.StringIO())

    def stored_ids(self, sink):
        return [int(found) for found in re.findall(r" id=(\d+)\n", sink._stream.getvalue())]

    def test_what_a_terminal_would_obey_is_spelled_out(self, sink):
        sink.write(batch([record({}, message=HOSTILE, service=HOSTILE)]))
        text = sink._stream.getvalue()
        assert text.endswith("\n")
        assert text.count("\n") == 1
        assert text[:-1].isprintable()
        assert "\\x1b[2J" in text

    def test_json_lines_stay_json_and_inert(self):
        stream = io.StringIO()
        sink = ConsoleSink(ConsoleOptions(format="json"), stream=stream)
        payload = '{"message":"\u009b31m\u202e","x":1}'.encode()
        one = record(payload)
        sink.write(batch([one]))
        text = stream.getvalue()
        assert text[:-1].isprintable()
        found = json.loads(text)
        assert found["id"] == str(one.id)
        assert found["record"] == {"message": "\x9b31m\u202e", "x": 1}

    def test_a_long_line_is_cut(self):
        stream = io.StringIO()
        sink = ConsoleSink(ConsoleOptions(max_line_chars=100), stream=stream)
        sink.write(batch([record({}, message="x" * 5000)]))
        assert len(stream.getvalue()) == 101

    def test_text_that_the_stream_cannot_encode_is_spelled_out(self):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii")
        sink = ConsoleSink(ConsoleOptions(), stream=stream)
        sink.write(batch([record({}, message="grün")]))
        assert b"gr\\xfcn" in raw.getvalue()

    def test_a_closed_stream_can_be_retried(self):
        stream = io.StringIO()
        stream.close()
        sink = ConsoleSink(ConsoleOptions(), stream=stream)
        with pytest.raises(RetryableError):
            sink.write(batch(records(1)))

    def test_a_date_beyond_the_calendar_is_shown_as_a_number(self, sink):
        sink.write(batch([record({}, timestamp_us=10**18)]))
        assert "@1000000000000000000us" in sink._stream.getvalue()

    def test_inert_leaves_plain_text_alone(self):
        assert inert("grün 漢字 a\\b") == "grün 漢字 a\\b"
