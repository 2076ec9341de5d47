"""What `/api/schema` says of ingest: the bodies, the answers, and an example of each."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import serializers

_REJECTION = inline_serializer(
    name="Rejection",
    fields={
        "index": serializers.IntegerField(help_text="Line or array item, from 0."),
        "code": serializers.CharField(),
        "detail": serializers.CharField(),
    },
    many=True,
)
_ACCEPTED = inline_serializer(
    name="Accepted",
    fields={
        "accepted": serializers.IntegerField(),
        "rejected": serializers.IntegerField(),
        "errors": _REJECTION,
        "errors_omitted": serializers.IntegerField(
            required=False, help_text="How many rejections `errors` does not list."
        ),
        "unstored": serializers.IntegerField(
            required=False,
            help_text="With `ack=stored`: how many of the accepted records are known not to be "
            "stored, as a required sink refused them (its dead letters or counts tell) or no "
            "required sink takes their kind. `ack` then names what else is true.",
        ),
        "shed": serializers.IntegerField(
            required=False,
            help_text="How many valid records were not accepted, as their level is among the "
            "lowest and the sinks are nearly full: dropped on purpose. Not part of `accepted`.",
        ),
        "ack": serializers.ChoiceField(
            choices=["memory", "wal", "wal-unsynced", "stored"],
            help_text="What is true now. `memory`: this process has the records. `wal`: its log on "
            "the disk has them, and they survive a crash and a power cut; `wal-unsynced`, where "
            "the operator chose not to sync each request: a crash, but not a power cut. `stored`: "
            "every required sink has them.",
        ),
        "request_id": serializers.CharField(),
    },
)
_PROBLEM = inline_serializer(
    name="Problem",
    fields={
        "type": serializers.CharField(),
        "title": serializers.CharField(),
        "status": serializers.IntegerField(),
        "detail": serializers.CharField(),
        "code": serializers.CharField(),
        "request_id": serializers.CharField(),
    },
)
_HEALTH = inline_serializer(
    name="Health",
    fields={
        "status": serializers.CharField(),
        "liveness": serializers.DictField(),
        "readiness": serializers.DictField(),
    },
)

_REFUSALS = {
    400: "Nothing in the body was valid, or the body is broken.",
    401: "No API key, or one that is unknown, expired or revoked.",
    403: "The key does not carry the scope.",
    408: "The body did not arrive in time.",
    409: "The first request with this `Idempotency-Key` is not answered yet: come back after "
    "`Retry-After` seconds.",
    411: "A chunked body on a server that cannot read one.",
    413: "More than a limit that `limit` names; coming back will not help.",
    415: "A content type or encoding that is not understood; `detail` says what is.",
    422: "The `Idempotency-Key` was used for a request with another body.",
    429: "No room now, or the API key has used up its rate (`rate_limited`): come back after "
    "`Retry-After` seconds.",
    503: "Stopping, no sink to write to, a log that cannot be written, or, for a request with an "
    "`Idempotency-Key`, a control database that does not answer: nothing was kept; come back "
    "after `Retry-After` seconds.",
}

_ACK = OpenApiParameter(
    "ack",
    str,
    enum=["memory", "stored", "wal"],
    description="What to wait for. `memory`: taken in, not awaited. `wal`, the default unless the "
    "operator set another: in the log on the disk. `stored`: settled by every required sink; "
    "when that takes too long, the answer names what is true so far. An API key may set a "
    "minimum.",
)
_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    OpenApiParameter.HEADER,
    description="A name for this request, a UUID say. Sent again with the same key (for 24 hours, "
    "unless the operator set another time), the request is not kept again but answered as before, "
    "with `Idempotency-Replayed: true`. The key belongs to the caller's tenant and this address; "
    "another body needs another key. `ack` and `Content-Encoding` may differ.",
)
_REPLAYED = OpenApiParameter(
    "Idempotency-Replayed",
    {"type": "string", "enum": ["true"]},
    OpenApiParameter.HEADER,
    response=[202],
    description="This is the answer to an earlier request with the same `Idempotency-Key`.",
)
_RATE_LIMIT = OpenApiParameter(
    "RateLimit",
    str,
    OpenApiParameter.HEADER,
    response=[202, 429],
    description="What is left, in records, as draft-ietf-httpapi-ratelimit-headers has it: "
    '`"key"` of the API key\'s rate, `"room"` of the scarcest required sink of this process, from '
    "its hint mark on; `t` is in how many seconds all of it is there again.",
)
_POLICY = OpenApiParameter(
    "RateLimit-Policy",
    str,
    OpenApiParameter.HEADER,
    response=[202, 429],
    description="The rate of the API key, if it has one: `q` records in `w` seconds.",
)
_REQUEST_ID = OpenApiParameter(
    "X-Request-ID", str, OpenApiParameter.HEADER, description="Taken, or made; always answered."
)
_ENCODING = OpenApiParameter(
    "Content-Encoding", str, OpenApiParameter.HEADER, enum=["gzip", "zstd"]
)


def _responses() -> dict[Any, Any]:
    responses: dict[Any, Any] = {
        202: OpenApiResponse(
            _ACCEPTED,
            description="Taken in; `errors` lists what was not.",
            examples=[
                OpenApiExample(
                    "one line was broken",
                    value={
                        "accepted": 2,
                        "rejected": 1,
                        "errors": [
                            {
                                "index": 1,
                                "code": "malformed_json",
                                "detail": "JSON is malformed: the input ends too early (byte 17)",
                            }
                        ],
                        "ack": "wal",
                        "request_id": "5f2b6c1de0c94d7f8a3f5a1f0f6f7a10",
                    },
                )
            ],
        )
    }
    for status, description in _REFUSALS.items():
        responses[(status, "application/problem+json")] = OpenApiResponse(
            _PROBLEM, description=description
        )
    return responses


def _post(
    *, name: str, summary: str, description: str, example: dict[str, Any], text: bool
) -> dict[str, Any]:
    request: dict[str, Any] = {
        "application/json": OpenApiTypes.OBJECT,
        "application/x-ndjson": OpenApiTypes.STR,
        "application/msgpack": OpenApiTypes.BINARY,
    }
    if text:
        request["text/plain"] = OpenApiTypes.STR
        request["application/x-protobuf"] = OpenApiTypes.BINARY
    return {
        "operation_id": name,
        "summary": summary,
        "description": description,
        "tags": ["ingest"],
        "auth": [{"ApiKeyBearer": []}, {"ApiKeyHeader": []}, {}],
        "parameters": [_ACK, _KEY, _REPLAYED, _RATE_LIMIT, _POLICY, _REQUEST_ID, _ENCODING],
        "request": request,
        "responses": _responses(),
        "examples": [
            OpenApiExample(
                "one record",
                value=example,
                request_only=True,
                media_type="application/json",
            )
        ],
    }


_FORMATS = (
    "One JSON object, an array of them, or one a line (NDJSON){text}; or a MessagePack array of "
    "maps, or maps one after another{binary}; gzip or zstd if "
    "`Content-Encoding` says so. A record that is not valid costs an entry in `errors`, not its "
    "neighbours."
)

logs = extend_schema_view(
    post=extend_schema(
        **_post(
            name="logs_create",
            summary="Send log records",
            description=_FORMATS.format(
                text=", or lines of plain text",
                binary="; or a protobuf `LogBatch` of docs/schema/collector.proto",
            )
            + " All fields are optional: `timestamp` (`ts`, `time`, `@timestamp`), `level` "
            "(`severity`), `service`, `message` (`msg`, `body`), `tenant`, `trace_id`, `span_id`.",
            example={
                "timestamp": "2026-01-31T09:30:00.250Z",
                "level": "ERROR",
                "service": "checkout",
                "message": "payment refused",
                "order": 4711,
            },
            text=True,
        )
    )
)
events = extend_schema_view(
    post=extend_schema(
        **_post(
            name="events_create",
            summary="Send audit events",
            description=_FORMATS.format(text="", binary="") + " `user_id` and `action` are needed.",
            example={
                "user_id": "u-1042",
                "action": "login",
                "timestamp": "2026-01-31T09:30:00Z",
                "ip": "192.0.2.7",
            },
            text=False,
        )
    )
)
counters = extend_schema_view(
    post=extend_schema(
        **_post(
            name="counters_create",
            summary="Add to counters",
            description=_FORMATS.format(text="", binary="")
            + " `counter` is needed; `by` is a whole number, 1 if left out, and may be negative; "
            "`labels` (at most 16) make counters of one name different ones. A field that is not "
            "known is refused (`unknown_field`). Every increment is "
            "kept in the log like any record; stored, they are one row per tenant, name and labels "
            "and a history by minute of arrival.",
            example={"counter": "orders", "by": 1, "labels": {"shop": "berlin"}},
            text=False,
        )
    )
)
health = extend_schema_view(
    get=extend_schema(
        operation_id="health_retrieve",
        summary="Liveness and readiness",
        description="200 while this process takes records, 503 with each cause while it does not.",
        tags=["probes"],
        auth=[],
        responses={200: _HEALTH, 503: _HEALTH},
    ),
    post=extend_schema(
        **_post(
            name="health_create",
            summary="Send health pings",
            description=_FORMATS.format(text="", binary="")
            + " `service` and `status` (up, degraded, down) are needed.",
            example={"service": "checkout", "status": "degraded", "latency_ms": 840},
            text=False,
        )
    ),
)
