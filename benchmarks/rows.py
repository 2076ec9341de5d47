"""Owns: the records that benchmarks send: about 190 bytes each, made before the clock starts."""

from __future__ import annotations

import json
import random

BODIES = 40

_METHODS = ("GET", "POST", "PUT", "DELETE")
_LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "INFO", "WARN", "ERROR")
_SERVICES = ("checkout", "cart", "search", "billing", "gateway")


def record(rng: random.Random, n: int) -> bytes:
    return json.dumps(
        {
            "timestamp": f"2026-01-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:07.{n % 1000:03}Z",
            "level": rng.choice(_LEVELS),
            "service": rng.choice(_SERVICES),
            "message": f"{rng.choice(_METHODS)} /api/v1/orders/{rng.randrange(10**6)} took "
            f"{rng.randrange(900)} ms for user {rng.randrange(10**5)}",
            "trace_id": f"{rng.getrandbits(128):032x}",
        },
        separators=(",", ":"),
    ).encode()


# What a sink refuses, told apart by one field; and what is refused before it, by its time.
POISON = b'{"poison":true,'
INVALID = b'{"timestamp":"yesterday",'


def bodies(batch: int, *, count: int = BODIES, seed: int = 7, bad: bytes = b"") -> list[bytes]:
    """NDJSON bodies (one JSON object when the batch is one), a few different ones.

    With `bad` one record in every thousand begins with it.
    """
    rng = random.Random(seed)
    made = []
    for i in range(count):
        lines = [record(rng, i * batch + n) for n in range(batch)]
        for n in range(batch):
            if bad and (i * batch + n) % 1000 == 500:
                rest = json.loads(lines[n])
                rest.pop("timestamp" if bad == INVALID else "trace_id")
                lines[n] = bad + json.dumps(rest, separators=(",", ":")).encode()[1:]
        made.append(b"\n".join(lines))
    return made
