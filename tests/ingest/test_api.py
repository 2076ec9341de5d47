"""The HTTP contract: what is answered, and that it is true."""

from __future__ import annotations

import gzip
import json
import logging
import threading
from typing import Any

import pytest
import zstandard

from control.auth.keys import create_key, keyring
from control.auth.models import Tenant
from control.web.permits import permits
from ingest.wire.decode import MAX_TENANTS
from pipeline.errors import LogUnavailable, PermanentError, RetryableError
from pipeline.receipt import Receipt
from tests.ingest.bodies import lines
from tests.ingest.front import Front


def answer(response: Any, status: int = 202) -> dict[str, Any]:
    assert response.status_code == status, response.content
    kind = "application/json" if status == 202 else "application/problem+json"
    assert response.headers["Content-Type"] == kind
    body: dict[str, Any] = json.loads(response.content)
    assert body["request_id"] == response.headers["X-Request-ID"]
    if status != 202:
        assert body["status"] == status
        assert body["title"]
        assert body["detail"]
    return body


def test_one_record(front: Front) -> None:
    response = front.post("/logs", {"message": "hello", "x": 1}, **{"X-Request-ID": "mine"})
    assert answer(response) == {
        "accepted": 1,
        "rejected": 0,
        "errors": [],
        "ack": "wal",
        "request_id": "mine",
    }
    assert front.sink.join(1)
    (batch,) = front.sink.batches
    (part,) = batch.parts
    assert (part.type, part.tenant, part.request_id) == ("log", "default", "mine")
    (record,) = batch.records
    assert (record.message, record.payload) == ("hello", b'{"message": "hello", "x": 1}')


@pytest.mark.parametrize(
    ("path", "type", "fields"),
    [
        ("/logs", "log", {"message": "m"}),
        ("/health", "health", {"service": "s", "status": "down"}),
        ("/event", "event", {"user_id": "u", "action": "a"}),
    ],
)
def test_each_address_has_its_record_type(
    front: Front, path: str, type: str, fields: dict[str, Any]
) -> None:
    assert answer(front.post(path, [fields, fields]))["accepted"] == 2
    assert front.sink.join(2)
    assert {part.type for batch in front.sink.batches for part in batch.parts} == {type}


@pytest.mark.parametrize("path", ["/logs", "/health", "/event"])
def test_other_methods(front: Front, path: str) -> None:
    head = front.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    refused = front.client.put(path, b"{}", content_type="application/json")
    assert answer(refused, 405)["code"] == "method_not_allowed"
    assert "POST" in refused.headers["Allow"]
    options = front.client.options(path)
    assert options.status_code == 200
    assert "POST" in options.headers["Allow"]


def test_get_is_for_health_only(front: Front) -> None:
    assert front.client.get("/logs").status_code == 405
    ready = front.client.get("/health")
    assert ready.status_code in (200, 503)
    assert "readiness" in ready.json()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)],
)
def test_compressed(front: Front, encoding: str, pack: Any) -> None:
    body = b"\n".join(lines(3000))
    response = front.post(
        "/logs", pack(body), "application/x-ndjson", **{"Content-Encoding": encoding}
    )
    assert answer(response)["accepted"] == 3000
    assert front.sink.join(3000)


def test_partial_success_names_the_lines(front: Front) -> None:
    body = b"\n".join([*lines(2), b"{bad", b'{"service": 5}', *lines(1)])
    told = answer(front.post("/logs", body, "application/x-ndjson"))
    assert (told["accepted"], told["rejected"]) == (3, 2)
    assert [(entry["index"], entry["code"]) for entry in told["errors"]] == [
        (2, "malformed_json"),
        (3, "wrong_type"),
    ]
    assert "errors_omitted" not in told
    assert front.sink.join(3)


def test_errors_beyond_a_hundred_are_counted(front: Front) -> None:
    body = b"\n".join([b"{bad"] * 130 + lines(1))
    told = answer(front.post("/logs", body, "application/x-ndjson"))
    assert (told["rejected"], len(told["errors"]), told["errors_omitted"]) == (130, 100, 30)


def test_nothing_valid(front: Front) -> None:
    told = answer(front.post("/logs", b"{bad\nworse"), 400)
    assert (told["code"], told["accepted"], told["rejected"]) == ("nothing_valid", 0, 2)
    assert [entry["index"] for entry in told["errors"]] == [0, 1]
    assert told["detail"].startswith("none of the 2 records is valid; the first: JSON is malformed")


def test_the_one_record_that_is_not_valid_is_not_called_the_first_of_many(front: Front) -> None:
    told = answer(front.post("/logs", b'{"message":'), 400)
    assert told["detail"] == (
        "the record is not valid: JSON is malformed: the input ends too early (byte 11)"
    )


@pytest.mark.parametrize("body", [b"", b"\n\n", b"[]"])
def test_an_empty_body(front: Front, body: bytes) -> None:
    assert answer(front.post("/logs", body), 400)["code"] == "empty_body"


def test_an_empty_text(front: Front) -> None:
    assert answer(front.post("/logs", b"\r\n", "text/plain"), 400)["code"] == "empty_body"


def test_a_form_is_told_what_to_send(front: Front) -> None:
    told = answer(front.post("/logs", b"a=b", "application/x-www-form-urlencoded"), 415)
    assert "--data-binary" in told["detail"]
    assert answer(front.post("/logs", b"{}", ""), 415)["supported"]
    assert answer(front.post("/event", b"text", "text/plain"), 415)


def test_an_unknown_encoding(front: Front) -> None:
    told = answer(front.post("/logs", b"{}", **{"Content-Encoding": "br"}), 415)
    assert told["code"] == "unsupported_encoding"


def test_limits(front: Front) -> None:
    front.limits(max_body_bytes=2000, max_inflated_bytes=5000, max_records=20, max_record_bytes=300)
    assert answer(front.post("/logs", b" " * 2001), 413)["limit"] == "max_body_bytes=2000"
    packed = gzip.compress(b" " * 100_000)
    told = answer(front.post("/logs", packed, **{"Content-Encoding": "gzip"}), 413)
    assert told["limit"] == "max_inflated_bytes=5000"
    told = answer(front.post("/logs", b"[" + b"{}," * 20 + b"{}]"), 413)
    assert told["limit"] == "max_records=20"
    told = answer(front.post("/logs", {"message": "m" * 400}), 400)
    assert told["errors"][0]["code"] == "record_too_large"


# --- who may send ----------------------------------------------------------------------------


def test_without_keys_only_this_machine_is_served(front: Front) -> None:
    response = front.client.post(
        "/logs", b"{}", content_type="application/json", REMOTE_ADDR="192.0.2.1"
    )
    assert answer(response, 401)["code"] == "key_required"
    told = answer(front.post("/logs", b"{}", **{"X-Forwarded-For": "127.0.0.1"}), 401)
    assert told["code"] == "key_required"


def test_a_key_carries_scopes_and_a_tenant(front: Front) -> None:
    acme = Tenant.objects.create(slug="acme")
    _, token = create_key(tenant=acme, name="k", scopes=["logs"])
    keyring().invalidate()
    bearer = {"Authorization": f"Bearer {token}"}
    assert answer(front.post("/logs", b"{}"), 401)
    assert answer(front.post("/logs", b"{}", Authorization="Bearer nonsense"), 401)
    assert answer(front.post("/event", {"user_id": "u", "action": "a"}, **bearer), 403)
    assert answer(front.post("/logs", {"message": "m"}, **{"X-API-Key": token}))
    body = [{"tenant": "other"}, {"tenant": "acme"}, {}]
    told = answer(front.post("/logs", body, **bearer))
    assert [(entry["index"], entry["code"]) for entry in told["errors"]] == [(0, "wrong_tenant")]
    assert front.sink.join(3)
    assert {part.tenant for batch in front.sink.batches for part in batch.parts} == {"acme"}


def test_a_key_for_any_tenant(front: Front) -> None:
    _, token = create_key(tenant="default", name="k", scopes=["logs"], any_tenant=True)
    keyring().invalidate()
    body = [{"tenant": "a"}, {}, {"tenant": "b"}, {"tenant": "a"}]
    told = answer(front.post("/logs", body, Authorization=f"Bearer {token}"))
    assert (told["accepted"], told["rejected"]) == (4, 0)
    assert front.sink.join(4)
    tenants = [part.tenant for batch in front.sink.batches for part in batch.parts
               for _ in part.records]  # fmt: skip
    assert sorted(tenants) == ["a", "a", "b", "default"]


def test_a_refusal_by_access_is_logged_and_counted_as_what_it_is(
    front: Front, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prometheus_client import REGISTRY

    caplog.set_level(logging.DEBUG, logger="ingest.requests")  # so that no line is left out
    _, token = create_key(tenant="default", name="k", scopes=["events"])
    keyring().invalidate()

    def check(status: int, code: str, detail: str, **headers: str) -> None:
        before = REGISTRY.get_sample_value("ingest_errors_total", {"code": code}) or 0.0
        caplog.clear()
        told = answer(front.post("/logs", b"{}", **headers), status)
        (line,) = [record for record in caplog.records if record.name == "ingest.requests"]
        said = (line.status, line.code, line.detail)  # type: ignore[attr-defined]
        assert said == (status, told["code"], told["detail"])
        assert told["code"] == code
        assert detail in told["detail"]
        assert REGISTRY.get_sample_value("ingest_errors_total", {"code": code}) == before + 1

    check(401, "key_required", "API key is required")
    check(401, "invalid_key", "unknown, expired or revoked", Authorization="Bearer nonsense")
    check(403, "missing_scope", "'logs'", Authorization=f"Bearer {token}")
    monkeypatch.setattr(type(keyring()), "known", False)
    check(503, "keys_unavailable", "control database")


def test_a_request_may_name_a_hundred_tenants_and_no_more(front: Front) -> None:
    body = [{"tenant": f"t{n}"} for n in range(MAX_TENANTS)]
    told = answer(front.post("/logs", [*body, {"tenant": "one-more"}]), 413)
    assert (told["code"], told["limit"]) == ("too_many_tenants", f"max_tenants={MAX_TENANTS}")
    assert str(MAX_TENANTS) in told["detail"]
    assert front.engine.stats()["ledger"] == []
    assert answer(front.post("/logs", body * 2))["accepted"] == 2 * MAX_TENANTS
    assert front.sink.join(2 * MAX_TENANTS)


# --- room ------------------------------------------------------------------------------------

SMALL = {"max_records": 10, "capacity_records": 100, "max_wait_s": 0.01}


@pytest.mark.parametrize("front", [SMALL], indirect=True)
def test_a_full_sink_is_a_429_with_the_time_to_come_back(front: Front) -> None:
    front.sink.hold()
    body = b"\n".join(lines(40))
    while (response := front.post("/logs", body, "application/x-ndjson")).status_code == 202:
        pass
    told = answer(response, 429)
    assert told["code"] == "saturated"
    assert int(response.headers["Retry-After"]) >= 1
    front.sink.release()
    assert front.engine.flush(30)
    assert answer(front.post("/logs", b"{}"))


@pytest.mark.parametrize("front", [SMALL], indirect=True)
def test_a_429_is_decided_before_the_body_is_read(front: Front) -> None:
    front.sink.hold()
    while front.post("/logs", b"[" + b"{}," * 39 + b"{}]").status_code == 202:
        pass
    # Were it read, broken gzip would be a 400.
    response = front.post("/logs", b"not gzip", **{"Content-Encoding": "gzip"})
    assert answer(response, 429)


@pytest.mark.parametrize("front", [SMALL], indirect=True)
def test_a_request_that_can_never_fit_is_told_so(front: Front) -> None:
    told = answer(front.post("/logs", b"\n".join(lines(101)), "application/x-ndjson"), 413)
    assert "capacity_records=100" in told["limit"]


@pytest.mark.parametrize("front", [SMALL], indirect=True)
def test_when_one_of_several_tenants_finds_no_room(front: Front) -> None:
    front.sink.hold()
    body = [{"tenant": "large"}] * 90 + [{"tenant": "small"}] * 30
    told = answer(front.post("/logs", body))
    assert (told["accepted"], told["rejected"]) == (90, 30)
    assert told["errors"][0]["index"] == 90
    assert {entry["code"] for entry in told["errors"]} == {"saturated"}


def test_the_byte_gate_counts_every_body(front: Front) -> None:
    front.limits(gate_bytes=2000)
    told = answer(front.post("/logs", b" " * 2001), 413)
    assert told["limit"] == "gate_bytes=2000"
    from ingest.api.door import door

    with door().gate.reserve(1900):
        assert answer(front.post("/logs", b"[" + b"{}," * 100 + b"{}]"), 429)
    assert answer(front.post("/logs", b"[" + b"{}," * 100 + b"{}]"))
    assert door().gate.held_bytes == 0


def test_without_a_thread_to_spare_it_is_a_429(front: Front) -> None:
    taken = permits.limit - permits.taken
    for _ in range(taken):
        assert permits.try_take()
    try:
        assert answer(front.post("/logs", b"{}"), 429)
        assert front.client.get("/health").status_code in (200, 503)
    finally:
        for _ in range(taken):
            permits.give_back()
    assert answer(front.post("/logs", b"{}"))
    assert permits.taken == 0


def test_draining_is_a_503(front: Front) -> None:
    front.engine.drain(5)
    response = front.post("/logs", b"{}")
    assert answer(response, 503)["code"] == "draining"
    assert int(response.headers["Retry-After"]) >= 1


def test_without_a_sink_it_is_a_503(front: Front) -> None:
    front.engine.configure([])
    assert answer(front.post("/logs", b"{}"), 503)["code"] == "no_sink"


def test_a_fault_of_our_own_is_a_500_that_leaves_nothing_taken(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest.api.door import door

    def fail(**_: Any) -> None:
        raise RuntimeError("something that must not be told")

    monkeypatch.setattr(front.engine, "offer", fail)
    response = front.post("/logs", b"{}")
    assert answer(response, 500)["code"] == "internal_error"
    assert b"must not be told" not in response.content
    assert permits.taken == 0
    assert door().gate.held_bytes == 0


# --- acknowledgements ------------------------------------------------------------------------


@pytest.mark.parametrize("front", [{"max_wait_s": 3600}], indirect=True)
def test_stored_is_answered_once_it_is_and_does_not_wait_for_the_batch_to_age(
    front: Front,
) -> None:
    told = answer(front.post("/logs?ack=stored", {"message": "m"}))
    assert told["ack"] == "stored"
    assert front.sink.stored == 1


def test_stored_that_takes_too_long_is_answered_with_what_is_true(front: Front) -> None:
    front.limits(ack_timeout_s=0.01)
    front.sink.hold()
    told = answer(front.post("/logs?ack=stored", {"message": "m"}))
    assert (told["accepted"], told["ack"]) == (1, "wal")
    front.sink.release()
    assert front.sink.join(1)


def test_stored_waits_through_a_retry(front: Front) -> None:
    front.sink.fail_next(RetryableError("once"))
    assert answer(front.post("/logs?ack=stored", {"message": "m"}))["ack"] == "stored"


def test_stored_is_not_said_of_what_a_sink_refused(front: Front) -> None:
    front.sink.fail_next(PermanentError("this record cannot be stored"))
    told = answer(front.post("/logs?ack=stored", {"message": "m"}))
    assert (told["accepted"], told["ack"], told["unstored"]) == (1, "wal", 1)


@pytest.mark.parametrize(
    ("query", "ack"),
    [("", "wal"), ("?ack=", "wal"), ("?ack=wal", "wal"), ("?ack=memory", "memory")],
)
def test_what_is_asked_is_what_is_answered(front: Front, query: str, ack: str) -> None:
    assert answer(front.post(f"/logs{query}", {"message": "m"}))["ack"] == ack


def test_an_acknowledgement_that_is_not_there(front: Front) -> None:
    told = answer(front.post("/logs?ack=all", {"message": "m"}), 400)
    assert (told["code"], told["available"]) == ("ack_unavailable", ["memory", "wal", "stored"])


@pytest.mark.usefixtures("log_in_memory")
def test_without_a_log_on_the_disk_there_is_no_wal(front: Front) -> None:
    assert answer(front.post("/logs", {"message": "m"}))["ack"] == "memory"
    told = answer(front.post("/logs?ack=wal", {"message": "m"}), 400)
    assert (told["code"], told["available"]) == ("ack_unavailable", ["memory", "stored"])


@pytest.mark.usefixtures("log_unsynced")
def test_a_log_that_is_not_synced_is_not_called_synced(front: Front) -> None:
    for query in ("", "?ack=wal"):
        assert answer(front.post(f"/logs{query}", {"message": "m"}))["ack"] == "wal-unsynced"
    assert answer(front.post("/logs?ack=memory", {"message": "m"}))["ack"] == "memory"


@pytest.mark.parametrize("minimum", ["wal", "stored"])
def test_a_keys_minimum_is_kept(front: Front, minimum: str) -> None:
    _, token = create_key(tenant="default", name="k", scopes=["logs"], min_ack=minimum)
    keyring().invalidate()
    for query in ("", "?ack=memory"):
        response = front.post(f"/logs{query}", {}, Authorization=f"Bearer {token}")
        assert answer(response)["ack"] == minimum


@pytest.mark.usefixtures("log_in_memory")
def test_a_minimum_that_this_process_cannot_keep_is_a_503(front: Front) -> None:
    """There is no log on the disk here; a stronger promise can still be asked for."""
    _, token = create_key(tenant="default", name="k", scopes=["logs"], min_ack="wal")
    keyring().invalidate()
    bearer = {"Authorization": f"Bearer {token}"}
    for query in ("", "?ack=memory"):
        response = front.post(f"/logs{query}", {}, **bearer)
        assert answer(response, 503)["code"] == "log_unavailable"
        assert int(response.headers["Retry-After"]) >= 1
    assert answer(front.post("/logs?ack=wal", {}, **bearer), 400)
    assert front.engine.stats()["ledger"] == []
    assert answer(front.post("/logs?ack=stored", {}, **bearer))["ack"] == "stored"


def test_a_log_that_cannot_be_written_is_a_503_and_nothing_is_kept(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise LogUnavailable("the disk is full", retry_after_s=7.0)

    monkeypatch.setattr(front.engine, "offer", refuse)
    response = front.post("/logs", {"message": "m"})
    assert answer(response, 503)["code"] == "log_unavailable"
    assert int(response.headers["Retry-After"]) >= 7


@pytest.mark.concurrency
def test_no_more_than_some_wait(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.api.door import door

    waits, wait = threading.Semaphore(0), Receipt.wait

    def told_wait(receipt: Receipt, timeout_s: float | None = None) -> bool:
        waits.release()
        return wait(receipt, timeout_s)

    monkeypatch.setattr(Receipt, "wait", told_wait)
    front.sink.hold()
    first: list[Any] = []
    threads = [
        threading.Thread(target=lambda: first.append(front.post("/logs?ack=stored", {})))
        for _ in range(door().waiters.limit)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert waits.acquire(timeout=180)
    assert door().waiters.waiting == door().waiters.limit
    assert answer(front.post("/logs?ack=stored", {}))["ack"] == "wal"
    front.sink.release()
    for thread in threads:
        thread.join(180)
    assert {answer(response)["ack"] for response in first} == {"stored"}


# --- what is counted -------------------------------------------------------------------------


def test_metrics(front: Front) -> None:
    from prometheus_client import REGISTRY

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def figures() -> list[float]:
        return [
            value("ingest_requests_total", path="/logs", status="202"),
            value("ingest_requests_total", path="/logs", status="400"),
            value("ingest_records_total", type="log", tenant="default"),
            value("ingest_errors_total", code="malformed_json"),
            value("ingest_errors_total", code="nothing_valid"),
        ]

    before = figures()
    answer(front.post("/logs", b"\n".join([*lines(7), b"{bad"]), "application/x-ndjson"))
    answer(front.post("/logs", b"{bad"), 400)
    assert [now - then for now, then in zip(figures(), before, strict=True)] == [1, 1, 7, 2, 1]


def test_the_schema_is_whole() -> None:
    from drf_spectacular.drainage import GENERATOR_STATS
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.validation import validate_schema

    GENERATOR_STATS.reset()
    schema = SchemaGenerator().get_schema(request=None, public=True)
    validate_schema(schema)
    assert not GENERATOR_STATS
    for path in ("/logs", "/health", "/event"):
        operation = schema["paths"][path]["post"]
        assert set(operation["responses"]) == {
            "202", "400", "401", "403", "408", "409", "411", "413", "415", "422", "429", "503",
        }  # fmt: skip
        assert operation["requestBody"]["content"]["application/json"]["examples"]
        parameters = {one["name"]: one for one in operation["parameters"]}
        assert parameters["ack"]["schema"]["enum"] == ["memory", "stored", "wal"]
        assert parameters["Idempotency-Key"]["in"] == "header"
        assert parameters["Idempotency-Key"]["schema"]["maxLength"] == 255
        assert "Idempotency-Replayed" in operation["responses"]["202"]["headers"]
