"""What an answer tells of limits, so that a client can slow down before it is refused.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10, structured fields both, in records:

    RateLimit-Policy: "key";q=10000;w=10;qu="records"
    RateLimit: "key";r=2500;t=8, "room";r=120000;t=4

`"key"` is the rate limit of the API key: `q` records may be sent in `w` seconds, which is its burst
in the time in which that comes back, or what a second gives where the burst is less.  `"room"` is
what the scarcest required sink of this process still takes in, told from its hint mark on; it has
no policy, as it depends on how fast the sink is.  `r` is what is left, `t` the seconds until there
is all of it again, or in a refusal when to come back.
"""

from __future__ import annotations

import math

from django.http import HttpResponse

from control.auth.limits import KeyLimit
from pipeline.errors import Refused, Saturated
from pipeline.intake.room import Remaining

POLICY, FIELD = "RateLimit-Policy", "RateLimit"


class RateLimited(Refused):
    """The API key has used up its rate."""

    reason = "rate_limited"


def rate_limited(limit: KeyLimit, due_s: float) -> RateLimited:
    return RateLimited(
        f"the API key has used up its rate: it may send {limit.rate_per_s:,} records a second, "
        f"at most {limit.burst:,} at once",
        retry_after_s=due_s,
    )


def tell_accepted(
    response: HttpResponse, limit: KeyLimit | None, remaining: Remaining | None
) -> None:
    """What is left, on a 202."""
    told = []
    if limit is not None:
        response[POLICY] = _policy(limit)
        told.append(_item("key", limit.remaining, limit.reset_s))
    if remaining is not None:
        told.append(_item("room", remaining.records, remaining.reset_s))
    if told:
        response[FIELD] = ", ".join(told)


def tell_refused(response: HttpResponse, limit: KeyLimit | None, error: Refused) -> None:
    """When to come back, on a 429."""
    again_s = float(response["Retry-After"])
    told = []
    if limit is not None:
        response[POLICY] = _policy(limit)
        if isinstance(error, RateLimited):
            told.append(_item("key", 0, again_s))
        else:
            told.append(_item("key", limit.remaining, limit.reset_s))
    if isinstance(error, Saturated):
        told.append(_item("room", 0, again_s))
    response[FIELD] = ", ".join(told)


def _policy(limit: KeyLimit) -> str:
    return f'"key";q={limit.quota};w={limit.window_s};qu="records"'


def _item(name: str, remaining: int, reset_s: float) -> str:
    return f'"{name}";r={remaining};t={math.ceil(reset_s)}'
