"""Posting: from an outbox message to the address that the job or its type names, signed.

    X-Collector-Timestamp: seconds since 1970, when this attempt was made
    X-Collector-Signature: hex of HMAC-SHA256 by the type's secret over `timestamp.body`
    X-Collector-Delivery: the same for each repeat of one message

A job's own address goes before its type's.  Called on the outbox's threads; keeps nothing.  What
the other end says is cleaned of the secret and of the address before anybody sees it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from control.outbound.connecting import Outbound
from control.outbound.policy import PolicyError
from control.outbound.posting import post
from control.outbound.signing import signature
from control.outbound.urls import url_problem
from control.outbox.senders import DoubtfulError, Outgoing, Terms
from jobs.store.models import Job
from jobs.types.models import JobType
from jobs.webhooks.composing import OWN, TYPE
from jobs.webhooks.policy import policy
from pipeline.errors import PermanentError, RetryableError, SinkError
from sinks.secrets import SecretError, decrypt, is_reference, redact, resolve

DEADLINE_S = 10.0
RATE_PER_MINUTE = 6_000.0
MISCONFIGURED_RETRY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to post, and what signs it; "" signs nothing."""

    url: str
    secret: str


class WebhookSender:
    """The outbox's sender of what is said of jobs."""

    deadline_s = DEADLINE_S

    def terms(self, channel: str) -> Terms | None:
        if channel.startswith(OWN):
            return Terms(rate_per_minute=RATE_PER_MINUTE)
        if _type(channel.removeprefix(TYPE)) is None:
            return None
        return Terms(rate_per_minute=RATE_PER_MINUTE)

    def send(self, message: Outgoing) -> str:
        place = _place(message.payload)
        now_s = int(time.time())
        body = body_of(message)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Collector",
            "X-Collector-Delivery": message.dedupe_key,
            "X-Collector-Timestamp": str(now_s),
        }
        if correlation_id := str(message.payload["job"].get("correlation_id") or ""):
            headers["X-Correlation-ID"] = correlation_id
        if place.secret:
            headers["X-Collector-Signature"] = signature(place.secret, timestamp=now_s, body=body)
        hidden = [text for text in (place.secret, place.url) if text]
        try:
            outbound = Outbound(policy=policy(), deadline_s=DEADLINE_S)
            said = post(
                place.url, body=body, headers=headers, outbound=outbound, verify=True, now_s=now_s
            )
            return redact(said, hidden)
        except PolicyError as error:
            raise _later(str(error)) from None
        except RetryableError as error:
            again = DoubtfulError if isinstance(error, DoubtfulError) else RetryableError
            raise again(redact(str(error), hidden), retry_after_s=error.retry_after_s) from None
        except SinkError as error:
            raise PermanentError(redact(str(error), hidden)) from None

    def settled(self, message: Outgoing, sent: bool) -> None:
        """The outbox itself keeps what came of it."""


def body_of(message: Outgoing) -> bytes:
    """The same in each repeat, so that a receiver may compare."""
    told = {name: message.payload[name] for name in ("event", "job")}
    return msgspec.json.encode({"delivery": message.dedupe_key, **told})


def _place(payload: dict[str, Any]) -> Place:
    type = _type(str(payload.get("type_id", "")))
    if type is None:
        raise PermanentError("There is no such job type any more.")
    url = type.webhook_url
    if payload.get("own"):
        if not type.job_webhooks:
            raise PermanentError("Jobs of this type may not name a webhook of their own any more.")
        url = _own_url(str(payload["job"]["id"]))
    if not url:
        raise PermanentError("There is no address to post to any more.")
    if problem := url_problem(url):
        raise PermanentError(f"The address {problem}.")
    return Place(url=url, secret=_plain_secret(type))


def _own_url(id: str) -> str:
    found = Job.objects.filter(pk=UUID(id)).values_list("webhook_url", flat=True).first()
    return found or ""


def _plain_secret(type: JobType) -> str:
    stored = type.webhook_secret
    if not stored:
        return ""
    where = f"{type.name}: webhook secret"
    try:
        if is_reference(stored):
            return str(resolve(stored, option=where))
        return str(decrypt(stored, option=where))
    except SecretError as error:
        # Unsigned it may not go; an operator mends it, and what waits is sent then.
        raise _later(str(error)) from None


def _later(why: str) -> RetryableError:
    return RetryableError(f"the webhook cannot be used: {why}", retry_after_s=MISCONFIGURED_RETRY_S)


def _type(text: str) -> JobType | None:
    return JobType.objects.filter(pk=int(text)).first() if text.isdigit() else None
