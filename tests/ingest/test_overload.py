"""What a client is told when there is little room or none: hints, waiting, refusals, shedding."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from control.auth.keys import create_key, keyring
from control.auth.limits import KeyLimits, key_limits
from control.auth.models import Tenant
from ingest.api.patience import Places
from pipeline.record import ERROR
from pipeline.runtime.clock import FakeClock
from tests.ingest.front import Front

SMALL = {
    "capacity_records": 100,
    "max_records": 100,
    "max_wait_s": 3600.0,
    "min_workers": 1,
    "max_workers": 1,
    "shed_watermark": 0.5,
    "shed_below": "INFO",
}


pytestmark = pytest.mark.parametrize("front", [SMALL], indirect=True)


def records(count: int) -> bytes:
    return b"".join(b'{"message":"m%d"}\n' % n for n in range(count))


def send(front: Front, count: int, **headers: Any) -> Any:
    return front.post("/logs", records(count), "application/x-ndjson", **headers)


def key(front: Front, tenant: str = "default", **wanted: Any) -> dict[str, str]:
    Tenant.objects.get_or_create(slug=tenant)
    _, token = create_key(tenant=tenant, name="k", scopes=["logs"], **wanted)
    keyring().refresh()
    return {"Authorization": f"Bearer {token}"}


def test_nothing_is_hinted_while_there_is_room(front: Front) -> None:
    response = send(front, 60)
    assert response.status_code == 202
    assert "RateLimit" not in response.headers


def test_above_the_hint_mark_an_answer_tells_what_is_left(front: Front) -> None:
    response = send(front, 75)
    assert response.status_code == 202
    name, left, seconds = response.headers["RateLimit"].split(";")
    assert (name, left) == ('"room"', "r=5")
    assert 1 <= int(seconds.removeprefix("t=")) <= 60
    assert "RateLimit-Policy" not in response.headers


def test_a_refusal_tells_when_to_come_back_in_both_fields(front: Front) -> None:
    assert send(front, 80).status_code == 202
    response = send(front, 1)
    assert response.status_code == 429
    assert json.loads(response.content)["code"] == "saturated"
    seconds = response.headers["Retry-After"]
    assert 1 <= int(seconds) <= 60
    assert response.headers["RateLimit"] == f'"room";r=0;t={seconds}'


def test_a_tenant_that_floods_shuts_no_other_out(front: Front) -> None:
    flood, quiet = key(front, "flood"), key(front, "quiet")
    assert send(front, 90, **flood).status_code == 202
    assert send(front, 1, **flood).status_code == 429
    assert send(front, 5, **quiet).status_code == 202


# --- shedding --------------------------------------------------------------------------------


def test_what_is_shed_is_told_and_not_accepted(front: Front) -> None:
    assert send(front, 79).status_code == 202
    body = [{"message": "a", "level": "debug"}, {"message": "b", "level": "error"}]
    response = front.post("/logs", body)
    answer = json.loads(response.content)
    assert (response.status_code, answer["accepted"], answer["shed"]) == (202, 1, 1)
    everything = front.post("/logs", {"message": "c", "level": "trace"})
    # One error brought it to the mark for refusals.
    assert everything.status_code == 429
    pipelines: Any = front.engine.stats()["pipelines"]
    (pipeline,) = pipelines
    assert (pipeline["dropped"], pipeline["held_records"]) == ({"shed": 1}, 80)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/counters", {"counter": "orders"}),
        ("/health", {"service": "s", "status": "up"}),
        ("/event", {"user_id": "u", "action": "paid"}),
    ],
)
def test_what_has_no_level_of_its_own_is_not_shed(
    front: Front, path: str, body: dict[str, str]
) -> None:
    pipelines: Any = front.engine.pipelines
    pipelines[0].admission.shed_below = ERROR
    answer = json.loads(front.post(path, body).content)
    assert (answer["accepted"], answer.get("shed")) == (1, None)


# --- waiting ---------------------------------------------------------------------------------


def test_a_request_may_wait_for_room(front: Front) -> None:
    front.limits(admission_wait_s=5.0)
    assert send(front, 80).status_code == 202
    (pipeline,) = front.engine.pipelines
    admission = pipeline.admission
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(send(front, 7).status_code))
    thread.start()
    while not admission.figures()["waiting_requests"]:
        assert thread.is_alive(), "it did not wait"
    front.engine.flush(60.0)
    thread.join(60.0)
    assert answers == [202]
    assert admission.refused == 0


def test_a_wait_that_was_in_vain_ends_in_a_refusal(front: Front) -> None:
    front.limits(admission_wait_s=0.01)
    assert send(front, 80).status_code == 202
    response = send(front, 1)
    assert response.status_code == 429
    (pipeline,) = front.engine.pipelines
    assert pipeline.admission.refused == 1, "once, though it was looked at more than once"


def test_an_offer_that_does_not_fit_waits_as_well(front: Front) -> None:
    front.limits(admission_wait_s=5.0)
    assert send(front, 79).status_code == 202
    (pipeline,) = front.engine.pipelines
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(send(front, 30).status_code))
    thread.start()
    while not pipeline.admission.figures()["waiting_requests"]:
        assert thread.is_alive(), "it did not wait"
    front.engine.flush(60.0)
    thread.join(60.0)
    assert answers == [202]


def test_only_so_many_wait(front: Front) -> None:
    places = Places(limit=2)
    assert [places.try_take() for _ in range(3)] == [True, True, False]
    places.give_back()
    assert places.try_take()


# --- rates of keys ---------------------------------------------------------------------------


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> KeyLimits:
    """Limits by a clock that stands still until it is moved; as `limits.clock`."""
    clock = FakeClock()
    limits = KeyLimits(monotonic=clock.monotonic)
    limits.clock = clock  # type: ignore[attr-defined]
    monkeypatch.setattr("ingest.api.intake.key_limits", lambda: limits)
    return limits


def test_a_key_may_send_its_burst_and_then_its_rate(front: Front, limits: KeyLimits) -> None:
    sender = key(front, rate_per_s=10, burst=20)
    response = send(front, 15, **sender)
    assert response.headers["RateLimit-Policy"] == '"key";q=20;w=2;qu="records"'
    assert response.headers["RateLimit"] == '"key";r=5;t=2'
    response = send(front, 15, **sender)
    assert response.status_code == 202, "more than is left is owed, once"
    assert response.headers["RateLimit"] == '"key";r=0;t=3'
    response = send(front, 1, **sender)
    assert response.status_code == 429
    assert json.loads(response.content)["code"] == "rate_limited"
    assert response.headers["Retry-After"] in ("1", "2")
    assert response.headers["RateLimit"].startswith('"key";r=0;t=')
    assert response.headers["RateLimit-Policy"] == '"key";q=20;w=2;qu="records"'
    limits.clock.advance(1.2)  # type: ignore[attr-defined]
    assert send(front, 1, **sender).status_code == 202


def test_a_burst_below_the_rate_is_no_smaller_rate(front: Front, limits: KeyLimits) -> None:
    sender = key(front, rate_per_s=20, burst=5)
    response = send(front, 45, **sender)
    assert response.headers["RateLimit-Policy"] == '"key";q=20;w=1;qu="records"'
    response = send(front, 1, **sender)
    assert "it may send 20 records a second, at most 5 at once" in response.content.decode()


def test_a_keys_own_time_to_come_back_is_told_as_it_is(front: Front, limits: KeyLimits) -> None:
    sender = key(front, rate_per_s=2, burst=2)
    assert send(front, 79, **sender).headers["RateLimit"].startswith('"key";r=0;t=40,')
    for _ in range(20):
        response = send(front, 1, **sender)
        assert response.headers["Retry-After"] == "39", "half a second before all is there"
        assert response.headers["RateLimit"] == '"key";r=0;t=39'


def test_a_request_larger_than_the_burst_is_not_refused_for_ever(
    front: Front, limits: KeyLimits
) -> None:
    sender = key(front, rate_per_s=1, burst=1)
    assert send(front, 50, **sender).status_code == 202
    assert send(front, 1, **sender).status_code == 429
    limits.clock.advance(50.1)  # type: ignore[attr-defined]
    assert send(front, 1, **sender).status_code == 202


def test_an_empty_bucket_refuses_before_the_body_is_read(front: Front, limits: KeyLimits) -> None:
    sender = key(front, rate_per_s=1, burst=1)
    assert send(front, 5, **sender).status_code == 202
    response = front.post("/logs", b"this is no JSON", **sender)
    assert response.status_code == 429


def test_a_request_that_is_refused_for_want_of_room_costs_the_key_nothing(
    front: Front, limits: KeyLimits
) -> None:
    sender = key(front, rate_per_s=10, burst=100)
    assert send(front, 79, **sender).status_code == 202
    response = send(front, 22, **sender)
    assert response.status_code == 429
    assert json.loads(response.content)["code"] == "saturated"
    told = response.headers["RateLimit"].split(", ")
    assert told[0] == '"key";r=21;t=8'
    assert told[1].startswith('"room";r=0;t=')


def test_only_valid_records_count(front: Front, limits: KeyLimits) -> None:
    sender = key(front, rate_per_s=10, burst=100)
    response = front.post("/logs", b'{"message":"a"}\n{]\n', "application/x-ndjson", **sender)
    assert json.loads(response.content)["rejected"] == 1
    assert response.headers["RateLimit"].startswith('"key";r=99;')


def test_without_a_limit_nothing_is_told(front: Front) -> None:
    response = send(front, 1, **key(front))
    assert "RateLimit" not in response.headers
    assert "RateLimit-Policy" not in response.headers
    assert len(key_limits()._buckets) == 0
