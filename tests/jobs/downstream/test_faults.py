"""A service that misbehaves, each way with a real listener: what the call ends with, and when."""

from __future__ import annotations

import socket

import pytest

from jobs.downstream.calls import FailedCall, RefusedCall
from jobs.execution.interruption import DEADLINE, Interrupted
from tests.jobs.downstream.stand import spec

SOON_S = 0.3


@pytest.mark.parametrize(
    "path",
    ["/faults/hang", "/faults/hang?after=head", "/faults/drip", "/faults/drip?of=head"],
    ids=["hangs", "hangs-after-head", "drips-body", "drips-head"],
)
def test_the_calls_deadline_ends_it_however_it_is_dragged_out(caller, toy, path):
    with pytest.raises(FailedCall, match=r"toy gave no full answer within 0\.3 s"):
        caller.call(spec(toy.url, timeout_s=SOON_S), path)
    assert caller.state()["failures"] == 1


def test_the_steps_timeout_goes_before_the_services(caller, toy):
    with pytest.raises(FailedCall, match=r"within 0\.2 s"):
        caller.call(spec(toy.url), "/faults/hang", timeout_s=0.2)


def test_a_drip_that_says_why_it_fails_does_not_drag_the_failure_out(caller, toy):
    with pytest.raises(FailedCall, match=r"within 0\.3 s"):
        caller.call(spec(toy.url, timeout_s=SOON_S, expected_status="204"), "/faults/hang")
    with pytest.raises(RefusedCall, match="answered 200"):
        caller.call(spec(toy.url, timeout_s=SOON_S, expected_status="204"), "/faults/drip")


@pytest.mark.parametrize("path", ["/faults/hang", "/faults/drip"])
def test_the_jobs_deadline_ends_it_and_says_nothing_about_the_service(caller, toy, path):
    with pytest.raises(Interrupted) as raised:
        caller.call(spec(toy.url), path, left_s=SOON_S)
    assert raised.value.why == DEADLINE
    assert caller.state()["failures"] == 0
    assert caller.state()["in_flight"] == 0


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/faults/reset", "reset"),
        ("/faults/reset?after=head", "reset"),
        ("/faults/close", "without sending a response"),
        ("/faults/short", "closed connection"),
        ("/faults/garbage", "illegal"),
        ("/faults/endless-head", "too"),
    ],
)
def test_a_connection_that_breaks_or_talks_nonsense_is_a_failed_call(caller, toy, path, words):
    with pytest.raises(FailedCall) as raised:
        caller.call(spec(toy.url), path)
    assert "toy broke the call off" in str(raised.value)
    assert words in str(raised.value)
    assert raised.value.status is None
    assert caller.state()["failures"] == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"half":', "is not JSON"),
        ("<html>", "is not JSON"),
        ("[NaN]", "NaN is no number"),
        ("[1e999]", "too large"),
        ("[" * 300 + "]" * 300, "nested"),
        ("9" * 5000, "is not JSON"),
    ],
    ids=["half", "html", "nan", "infinite", "deep", "digits"],
)
def test_a_body_that_is_not_the_json_it_says_it_is_fails(caller, toy, body, words):
    with pytest.raises(FailedCall, match=words) as raised:
        caller.call(spec(toy.url), f"/faults/bad-json?body={body}")
    assert raised.value.status == 200


def test_texts_that_no_database_stores_are_written_out(caller, toy):
    body = "[%22a%5Cu0000b%22,{%22%5Cud800%22:%22%5Cud83d%5Cude00%22}]"
    answer = caller.call(spec(toy.url), f"/faults/bad-json?body={body}")
    assert answer.body == ["a\\u0000b", {"\\ud800": "😀"}]


@pytest.mark.parametrize("path", ["/faults/large?bytes=70000", "/faults/bomb?bytes=20000000"])
def test_an_answer_that_is_too_large_is_refused_unread(caller, toy, path):
    with pytest.raises(RefusedCall, match="more than 65536 bytes") as raised:
        caller.call(spec(toy.url, max_response_bytes=65536), path)
    assert raised.value.status == 200
    assert caller.state()["failures"] == 0  # it did answer


def test_what_just_fits_is_taken(caller, toy):
    service = spec(toy.url, max_response_bytes=65536)
    assert len(caller.call(service, "/faults/large?bytes=65536").body) == 65536
    assert caller.call(service, "/faults/bomb?bytes=600").body == "\\u0000" * 600


def test_nobody_listens(caller):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(FailedCall) as raised:
        caller.call(spec(f"http://127.0.0.1:{port}"))
    assert str(raised.value) == (
        f"toy could not be reached: cannot connect to 127.0.0.1:{port}: connection refused"
    )


def test_one_that_does_not_take_the_connection_up(caller, blackhole):
    with pytest.raises(FailedCall, match=r"no full answer within 0\.3 s"):
        caller.call(spec(blackhole, timeout_s=SOON_S))


def test_the_next_call_is_not_touched_by_a_broken_one(caller, toy):
    service = spec(toy.url)
    for path in ("/faults/reset", "/faults/short", "/faults/garbage", "/faults/close"):
        with pytest.raises(FailedCall):
            caller.call(service, path)
        assert caller.call(service, "/fine").status == 200


def test_a_metadata_address_is_never_called_though_the_operator_wrote_it(caller):
    with pytest.raises(RefusedCall) as raised:
        caller.call(spec("http://169.254.169.254/latest", timeout_s=SOON_S))
    assert str(raised.value) == (
        "toy was not called: 169.254.169.254 is a metadata address, and those are never connected"
        " to"
    )
    assert caller.state()["failures"] == 0
