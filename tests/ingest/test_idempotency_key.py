"""`Idempotency-Key` at the front door: kept once, answered again, refused with a reason."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from prometheus_client import REGISTRY

from control.auth.keys import create_key, keyring
from control.auth.limits import KeyLimits
from control.idempotency import service
from control.idempotency.models import DONE, IdempotencyKey
from control.ports.adoption import adopted
from pipeline.errors import LogUnavailable, PermanentError, Saturated
from pipeline.runtime.clock import FakeClock
from tests.ingest.bodies import lines
from tests.ingest.front import Front

pytestmark = pytest.mark.django_db(transaction=True)

KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
RECORD = {"message": "paid", "order": 4711}


@pytest.fixture(autouse=True)
def keys(front: Front) -> Iterator[None]:
    service.current().start("test")
    yield
    service.current().stop(30.0)


def told(response: Any, status: int = 202) -> dict[str, Any]:
    assert response.status_code == status, response.content
    body: dict[str, Any] = json.loads(response.content)
    return body


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("idempotent_requests_total", {"outcome": outcome}) or 0.0


def stored(front: Front, expected: int) -> int:
    """How many records the sink holds once everything has settled."""
    assert front.engine.flush(30)
    assert front.sink.join(expected)
    return int(front.sink.stored)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/logs", RECORD),
        ("/health", {"service": "s", "status": "up"}),
        ("/event", {"user_id": "u", "action": "a"}),
    ],
)
def test_the_same_request_is_kept_once_and_answered_again(
    front: Front, path: str, fields: dict[str, Any]
) -> None:
    before = count("kept"), count("replayed")
    first = front.post(path, fields, **KEY, **{"X-Request-ID": "first"})
    again = front.post(path, fields, **KEY, **{"X-Request-ID": "second"})
    assert told(first) == told(again)
    assert first.content == again.content
    assert told(again)["request_id"] == "first"
    assert again.headers["X-Request-ID"] == "second"
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert (count("kept"), count("replayed")) == (before[0] + 1, before[1] + 1)
    assert stored(front, 1) == 1


def test_a_partial_success_is_answered_again_as_it_was(front: Front) -> None:
    body = b"\n".join([*lines(2), b"{bad", *lines(1)])
    first = front.post("/logs", body, "application/x-ndjson", **KEY)
    again = front.post("/logs", body, "application/x-ndjson", **KEY)
    assert first.content == again.content
    assert (told(again)["accepted"], told(again)["rejected"]) == (3, 1)
    assert stored(front, 3) == 3


def test_another_body_is_a_422(front: Front) -> None:
    told(front.post("/logs", RECORD, **KEY))
    before = count("mismatch")
    response = front.post("/logs", {"message": "other"}, **KEY)
    assert told(response, 422)["code"] == "idempotency_mismatch"
    assert told(front.post("/logs", json.dumps(RECORD), "text/plain", **KEY), 422)
    assert count("mismatch") == before + 2
    assert stored(front, 1) == 1


def test_packed_the_body_is_the_same(front: Front) -> None:
    body = json.dumps(RECORD)
    told(front.post("/logs", body, **KEY))
    packed = gzip.compress(body.encode())
    again = front.post("/logs", packed, **KEY, **{"Content-Encoding": "gzip"})
    assert again.headers["Idempotency-Replayed"] == "true"


def test_a_weaker_wish_the_second_time_is_answered_with_what_is_true(front: Front) -> None:
    first = front.post("/logs?ack=stored", RECORD, **KEY)
    assert told(first)["ack"] == "stored"
    assert front.post("/logs?ack=memory", RECORD, **KEY).content == first.content


def test_keys_belong_to_a_tenant_and_an_address(front: Front) -> None:
    from control.auth.models import Tenant

    told(front.post("/logs", RECORD, **KEY))
    told(front.post("/event", {"user_id": "u", "action": "a"}, **KEY))
    acme = Tenant.objects.create(slug="acme")
    _, token = create_key(tenant=acme, name="k", scopes=["logs"])
    keyring().invalidate()
    response = front.post("/logs", {"message": "acme's"}, **KEY, Authorization=f"Bearer {token}")
    assert "Idempotency-Replayed" not in response.headers
    assert told(response)["accepted"] == 1
    assert stored(front, 3) == 3


@pytest.mark.parametrize("key", ["", '""', "a b", "x" * 256])
def test_what_is_no_key_is_a_400(front: Front, key: str) -> None:
    response = front.post("/logs", RECORD, **{"Idempotency-Key": key})
    assert told(response, 400)["code"] == "bad_idempotency_key"
    assert front.engine.stats()["ledger"] == []


def test_what_is_not_valid_needs_no_claim(front: Front) -> None:
    for _ in range(2):
        assert told(front.post("/logs", b"{bad", **KEY), 400)["code"] == "nothing_valid"
    assert not IdempotencyKey.objects.exists()
    told(front.post("/logs", RECORD, **KEY))


def test_while_the_first_is_pending_it_is_a_409(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on, offer = threading.Event(), threading.Event(), front.engine.offer

    def slow(**fields: Any) -> Any:
        reached.set()
        assert go_on.wait(60)
        return offer(**fields)

    monkeypatch.setattr(front.engine, "offer", slow)
    first: list[Any] = []
    thread = threading.Thread(target=lambda: first.append(front.post("/logs", RECORD, **KEY)))
    thread.start()
    assert reached.wait(60)
    before = count("pending")
    response = front.post("/logs", RECORD, **KEY)
    assert told(response, 409)["code"] == "idempotency_pending"
    assert int(response.headers["Retry-After"]) >= 1
    assert told(front.post("/logs", {"message": "other"}, **KEY), 422)
    assert count("pending") == before + 1
    go_on.set()
    thread.join(60)
    assert front.post("/logs", RECORD, **KEY).content == first[0].content


@pytest.mark.parametrize(
    ("refusal", "status"), [(Saturated("full"), 429), (LogUnavailable("disk full"), 503)]
)
def test_what_is_refused_gives_its_key_back(
    front: Front, monkeypatch: pytest.MonkeyPatch, refusal: Exception, status: int
) -> None:
    def refuse(**_: Any) -> None:
        raise refusal

    with monkeypatch.context() as patched:
        patched.setattr(front.engine, "offer", refuse)
        before = count("refused")
        response = front.post("/logs", RECORD, **KEY)
    told(response, status)
    assert int(response.headers["Retry-After"]) >= 1
    assert count("refused") == before + 1
    assert not IdempotencyKey.objects.exists()
    told(front.post("/logs", RECORD, **KEY))


def test_a_fault_of_our_own_gives_the_key_back(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(front.engine, "offer", fail)
        told(front.post("/logs", RECORD, **KEY), 500)
    told(front.post("/logs", RECORD, **KEY))


def test_the_answer_that_came_late_is_the_one_that_is_given_again(front: Front) -> None:
    front.sink.fail_next(PermanentError("this record cannot be stored"))
    first = front.post("/logs?ack=stored", RECORD, **KEY)
    assert told(first)["unstored"] == 1
    assert front.post("/logs?ack=stored", RECORD, **KEY).content == first.content


def test_every_offer_is_durable_and_carries_its_claim(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers: list[dict[str, Any]] = []
    recorded: list[str] = []
    offer, key_recorded = front.engine.offer, front.engine.key_recorded

    def spy(**fields: Any) -> Any:
        offers.append(fields)
        return offer(**fields)

    def note(key: str) -> None:
        recorded.append(key)
        key_recorded(key)

    monkeypatch.setattr(front.engine, "offer", spy)
    monkeypatch.setattr(front.engine, "key_recorded", note)
    told(front.post("/logs?ack=memory", [{"tenant": "a"}, {"tenant": "b"}], **KEY))
    claim = IdempotencyKey.objects.get()
    assert claim.state == DONE
    assert [fields["durable"] for fields in offers] == [True, True]
    keys = [fields["key"] for fields in offers]
    assert sorted(keys) == [f"{claim.id.hex}/a", f"{claim.id.hex}/b"]
    assert all(len(key.encode()) <= 256 for key in keys)
    assert sorted(recorded) == sorted(keys)
    told(front.post("/logs?ack=memory", RECORD))
    assert (offers[-1]["durable"], offers[-1]["key"]) == (False, "")


def test_of_a_dead_process_only_what_is_missing_is_taken_again(front: Front) -> None:
    """It died between the frames of two tenants: one is in its log, the other is not."""
    body = [{"tenant": "a", "n": 1}, {"tenant": "a", "n": 2}, {"tenant": "b", "n": 3}]
    first = front.post("/logs", body, **KEY)
    assert stored(front, 3) == 3
    claim = IdempotencyKey.objects.get()
    IdempotencyKey.objects.update(state="pending", log_id="dead")
    assert told(front.post("/logs", body, **KEY), 409)
    adopted("dead", frozenset({f"{claim.id.hex}/a"}))
    again = front.post("/logs", body, **KEY)
    assert told(again)["accepted"] == told(first)["accepted"] == 3
    assert stored(front, 4) == 4
    replayed = front.post("/logs", body, **KEY)
    assert replayed.content == again.content


def test_of_a_dead_process_that_kept_nothing_all_is_taken(front: Front) -> None:
    told(front.post("/logs", RECORD, **KEY))
    IdempotencyKey.objects.update(state="pending", log_id="dead")
    adopted("dead", frozenset())
    assert "Idempotency-Replayed" not in front.post("/logs", RECORD, **KEY).headers


def test_without_the_control_database_only_requests_with_a_key_are_refused(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    from control.idempotency.store import Store

    def away(*_: Any) -> None:
        raise OperationalError("away")

    before = count("unavailable")
    monkeypatch.setattr(Store, "_once", away)
    for _ in range(3):
        response = front.post("/logs", RECORD, **KEY)
        assert told(response, 503)["code"] == "idempotency_unavailable"
        assert int(response.headers["Retry-After"]) >= 1
    assert told(front.post("/logs", RECORD))["accepted"] == 1
    assert count("unavailable") == before + 3
    assert stored(front, 1) == 1


def test_without_its_service_it_is_a_503(front: Front) -> None:
    service.current().stop(30.0)
    assert told(front.post("/logs", RECORD, **KEY), 503)
    assert told(front.post("/logs", RECORD))


@pytest.mark.concurrency
def test_fifty_at_once_are_one(front: Front) -> None:
    responses: list[Any] = []
    gate = threading.Barrier(50)

    def post() -> None:
        gate.wait(60)
        responses.append(front.post("/logs", RECORD, **KEY))

    threads = [threading.Thread(target=post) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    statuses = sorted(response.status_code for response in responses)
    assert set(statuses) <= {202, 409, 429}
    accepted = {response.content for response in responses if response.status_code == 202}
    assert len(accepted) == 1
    assert stored(front, 1) == 1


def test_a_replayed_request_costs_the_key_of_the_caller_nothing(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = KeyLimits(monotonic=FakeClock().monotonic)
    monkeypatch.setattr("ingest.api.intake.key_limits", lambda: limits)
    _, token = create_key(tenant="default", name="k", scopes=["logs"], rate_per_s=10, burst=100)
    keyring().refresh()
    sender = {**KEY, "Authorization": f"Bearer {token}"}
    first = front.post("/logs", [RECORD] * 40, **sender)
    again = front.post("/logs", [RECORD] * 40, **sender)
    assert told(first) == told(again)
    last = front.post("/logs", RECORD, Authorization=sender["Authorization"])
    assert last.headers["RateLimit"].startswith('"key";r=59;')
