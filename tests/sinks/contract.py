"""What every sink promises.  Each backend's tests derive from `SinkContract` and say how to look.

class TestNullSink(SinkContract):
    def make(self): return NullSink(NoOptions())
    def stored_ids(self, sink): …      # None where a sink keeps nothing to look at
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import msgspec
import pytest

from pipeline.errors import RetryableError, SinkError
from pipeline.record import Batch
from sinks.base import BaseSink
from sinks.options import OptionsError, decode_options, describe_options
from tests.sinks.records import batch, batch_of_parts, records

WAIT_S = 180.0


class SinkContract:
    """N in, N out; open, write, abort and close in any order that the engine may use."""

    def make(self) -> BaseSink:
        raise NotImplementedError

    def stored_ids(self, sink: BaseSink) -> list[int] | None:
        raise NotImplementedError

    trial_shows = False
    """A trial prints the marked record where `stored_ids` looks."""

    @pytest.fixture
    def sink(self) -> Iterator[BaseSink]:
        sink = self.make()
        sink.open()
        yield sink
        sink.close()

    def expect(self, sink: BaseSink, *batches: Batch) -> None:
        stored = self.stored_ids(sink)
        if stored is not None:
            assert sorted(stored) == sorted(r.id for one in batches for r in one.records)

    def test_stores_every_record_once_with_its_id(self, sink):
        sent = [batch(records(n)) for n in (1, 10, 250)]
        for one in sent:
            written = sink.write(one)
            assert written is None or written.stored == one.count
        self.expect(sink, *sent)

    def test_stores_the_parts_of_several_tenants(self, sink):
        sent = batch_of_parts(records(3), records(1), records(7))
        sink.write(sent)
        self.expect(sink, sent)

    def test_opens_and_closes_any_number_of_times(self):
        sink = self.make()
        sink.close()
        sink.open()
        sink.open()
        sent = [batch(records(2))]
        sink.write(sent[0])
        self.expect(sink, *sent)
        sink.close()
        sink.close()

    def test_writes_again_after_it_was_closed_and_opened(self, sink):
        first, second = batch(records(2)), batch(records(3))
        sink.write(first)
        sink.close()
        sink.open()
        sink.write(second)
        self.expect(sink, first, second)

    @pytest.mark.concurrency
    def test_takes_writes_from_several_threads(self, sink):
        sent = [batch(records(50)) for _ in range(16)]
        errors: list[BaseException] = []
        gate = threading.Barrier(4)

        def work(own: list[Batch]) -> None:
            try:
                gate.wait(WAIT_S)
                for one in own:
                    sink.write(one)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(sent[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert not any(thread.is_alive() for thread in threads)
        assert errors == []
        self.expect(sink, *sent)

    def test_stores_a_repeated_batch_once_where_it_says_so(self, sink):
        if not sink.supports_exactly_once:
            return
        sent = batch(records(20))
        sink.write(sent)
        sent.attempt += 1
        again = sink.write(sent)
        assert again is not None
        assert (again.stored, again.already_stored) == (0, 20)
        self.expect(sink, sent)

    def test_goes_on_after_an_abort(self, sink):
        first, second = batch(records(2)), batch(records(2))
        sink.write(first)
        sink.abort()
        try:
            sink.write(second)
        except RetryableError:
            sink.write(second)
        self.expect(sink, first, second)

    def test_a_trial_answers_and_leaves_nothing(self, sink):
        if not sink.supports_probe:
            with pytest.raises(SinkError):
                sink.probe(batch(records(1)))
            return
        before = self.stored_ids(sink)
        assert sink.probe(batch(records(1)))
        if not self.trial_shows:
            assert self.stored_ids(sink) == before

    def test_describes_its_options(self):
        sink = self.make()
        assert sink.label
        assert sink.description
        fields = describe_options(type(sink).Options)
        assert [field.name for field in fields] == list(type(sink).Options.__struct_fields__)

    def test_refuses_options_it_does_not_know(self):
        struct = type(self.make()).Options
        with pytest.raises(OptionsError, match="unknown option nosuch"):
            decode_options(struct, {"nosuch": 1})

    def test_shows_no_secret_in_its_representations(self):
        sink = self.make()
        shown = f"{sink!r} {sink} {sink.options!r} {sink.options}"
        for text in sink.secret_texts():
            assert text not in shown

    def test_its_checks_are_sentences(self):
        assert all(isinstance(text, str) and text for text in self.make().checks())

    def test_its_options_are_typed_and_frozen(self):
        struct = type(self.make()).Options
        assert issubclass(struct, msgspec.Struct)
        assert struct.__struct_config__.frozen
        assert struct.__struct_config__.forbid_unknown_fields
