"""The smaller parts of the API: acknowledgements, samplers, rates, Retry-After."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest

from control.web.retryafter import retry_after
from control.web.sampling import Sampler
from ingest.api import answers, intake
from ingest.api.acks import Waiters, choose_ack, weakest
from ingest.api.keyed import KeyPending, KeysAway, digest_of, key_of
from ingest.metrics import RateMeter
from ingest.wire.errors import RequestError
from ingest.wire.formats import Format
from pipeline.errors import Draining, LogUnavailable, NoSink, Refused, Saturated, TooLarge
from pipeline.receipt import Receipt


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("query", "minimum", "expected"),
    [
        ("", "", "wal"),
        ("ack=memory", "", "memory"),
        ("ack=wal", "", "wal"),
        ("ack=stored", "", "stored"),
        ("x=1&ack=stored", "memory", "stored"),
        ("ack=memory&ack=stored", "", "stored"),
        ("ack=memory", "wal", "wal"),
        ("ack=memory", "stored", "stored"),
        ("", "stored", "stored"),
        ("ack=stored", "wal", "stored"),
        ("ack=", "", "wal"),
        ("back=1", "", "wal"),
    ],
)
@pytest.mark.parametrize("logs_to", ["wal", "wal-unsynced"])
def test_which_ack(query: str, minimum: str, expected: str, logs_to: str) -> None:
    assert choose_ack(query, minimum=minimum, default="wal", logs_to=logs_to) == expected


@pytest.mark.parametrize("query", ["ack=all", "ack=%FF", "ack=STORED", "&" * 1000 + "ack=x"])
def test_no_such_ack(query: str) -> None:
    with pytest.raises(RequestError) as refused:
        choose_ack(query, minimum="", default="memory", logs_to="wal")
    assert (refused.value.status, refused.value.code) == (400, "ack_unavailable")
    assert refused.value.extra["available"] == ["memory", "wal", "stored"]


def test_without_a_log_on_the_disk_nobody_is_promised_one() -> None:
    def choose(query: str, minimum: str = "") -> str:
        return choose_ack(query, minimum=minimum, default="wal", logs_to="memory")

    assert choose("") == "wal"  # only the default: the answer will name what is true
    assert choose("ack=stored", "wal") == "stored"
    with pytest.raises(RequestError) as refused:
        choose("ack=wal")
    assert (refused.value.status, refused.value.extra["available"]) == (400, ["memory", "stored"])
    with pytest.raises(LogUnavailable, match="API key demands"):
        choose("", "wal")
    with pytest.raises(LogUnavailable):
        choose("ack=memory", "wal")


def test_an_answer_for_several_offers_names_the_weakest() -> None:
    def receipt(logged: str) -> Receipt:
        made = Receipt(count=1, owed=1, request_flush=lambda _: None)
        made.logged = logged
        return made

    kinds = ["wal", "wal-unsynced", "memory"]
    assert weakest([receipt("wal")]) == "wal"
    assert weakest([receipt(kind) for kind in kinds[:2]]) == "wal-unsynced"
    assert weakest([receipt(kind) for kind in reversed(kinds)]) == "memory"


# --- Idempotency-Key -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"8e03978e"', "8e03978e"),
        (r'"a\"b\\c"', r'a"b\c'),
        ('"', '"'),
        ("x" * 255, "x" * 255),
        (f'"{"x" * 255}"', "x" * 255),
        (" padded ", "padded"),
    ],
)
def test_a_key(sent: str, key: str) -> None:
    assert key_of({"HTTP_IDEMPOTENCY_KEY": sent}) == key


@pytest.mark.parametrize(
    "sent", ["", " ", '""', "a b", "x" * 256, "ключ", "a\tb", "a\x7f", '"a b"']
)
def test_what_is_no_key(sent: str) -> None:
    with pytest.raises(RequestError) as refused:
        key_of({"HTTP_IDEMPOTENCY_KEY": sent})
    assert (refused.value.status, refused.value.code) == (400, "bad_idempotency_key")


def test_without_the_header_there_is_no_key() -> None:
    assert key_of({}) is None


def test_the_same_bytes_read_differently_are_another_body() -> None:
    digests = {digest_of(b"{}", format) for format in Format} | {digest_of(b"{} ", Format.JSON)}
    assert len(digests) == len(Format) + 1
    assert all(len(digest) == 64 for digest in digests)


def test_retry_after_is_whole_at_least_one_and_spread() -> None:
    for seconds in (0.0, 0.2, 1.0, 7.5, 30.0):
        told = [retry_after(seconds) for _ in range(500)]
        assert min(told) >= max(1, int(seconds))
        assert max(told) <= max(1.0, seconds) * 1.25 + 1
        assert len(set(told)) > 1
        assert all(isinstance(one, int) for one in told)


def test_retry_after_is_spread_below_a_minute_where_it_would_be_more() -> None:
    told = [retry_after(60.0) for _ in range(500)]
    assert len(set(told)) > 1
    assert (min(told) >= 45, max(told)) == (True, 60)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Saturated("full"), 429),
        (Draining("stopping"), 503),
        (NoSink("none"), 503),
        (LogUnavailable("disk full"), 503),
        (KeysAway("away"), 503),
        (KeyPending("pending"), 409),
        (TooLarge("never", limit="x=1"), 413),
    ],
)
def test_how_a_refusal_is_answered(error: Refused, status: int) -> None:
    response = answers.turned_away(error, request_id="r")
    assert response.status_code == status
    assert ("Retry-After" in response.headers) == (status != 413)


def test_waiting_gives_up_at_its_time_and_asks_for_a_flush() -> None:
    clock = Clock()
    asked: list[Receipt] = []
    receipt = Receipt(count=1, owed=1, request_flush=asked.append)
    waiters = Waiters(limit=1)
    assert not waiters.wait([receipt], 0.0, monotonic=clock)
    assert asked == [receipt]
    assert waiters.waiting == 0
    receipt.settled_one()
    assert waiters.wait([receipt], 0.0, monotonic=clock)


def test_a_sampler_tells_how_much_it_left_out() -> None:
    clock = Clock()
    sampler = Sampler(per_second=2, monotonic=clock)
    assert [sampler.admit("a") for _ in range(5)] == [0, 0, -1, -1, -1]
    assert sampler.admit("b") == 0
    clock.now += 1
    assert [sampler.admit("a") for _ in range(2)] == [3, 0]


def test_the_rate_follows_what_comes_and_returns_to_nothing() -> None:
    clock = Clock()
    meter = RateMeter(monotonic=clock)
    for _ in range(20):
        meter.add(2000)
        clock.now += 2
        meter.refresh()
    assert meter.per_second == pytest.approx(1000, rel=0.01)
    for _ in range(40):
        clock.now += 2
        meter.refresh()
    assert meter.per_second == 0


def test_only_so_many_tenants_have_a_label_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest import metrics

    monkeypatch.setattr(metrics, "_tenants", set())
    labels = [metrics._label_of(f"t{i}") for i in range(150)]
    assert labels[:100] == [f"t{i}" for i in range(100)]
    assert set(labels[100:]) == {"other"}
    assert metrics._label_of("t5") == "t5"
    assert metrics._label_of("default") == "default"


def test_the_default_tenant_takes_no_label_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest import metrics

    monkeypatch.setattr(metrics, "_tenants", set())
    labels = [metrics._label_of(tenant) for tenant in ("default", *(f"t{i}" for i in range(101)))]
    assert labels == ["default", *(f"t{i}" for i in range(100)), "other"]


def test_a_refusal_leaves_nothing_to_the_collector_of_cycles() -> None:
    class Environ:
        """Stands for what a request holds."""

    def refused_request() -> weakref.ref[Environ]:
        environ = Environ()
        with contextlib.suppress(Refused):
            intake._let_in(Saturated("there is no room"))
        return weakref.ref(environ)

    gc.disable()
    try:
        assert refused_request()() is None
    finally:
        gc.enable()
