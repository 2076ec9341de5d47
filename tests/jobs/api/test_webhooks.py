"""Webhooks of jobs: composed with the job's end, posted signed, and of every end exactly once."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from control.outbox import store as outbox
from control.outbox.models import OutboxMessage
from control.outbox.senders import Outgoing, sender_named
from control.outbox.service import ROLES
from jobs.api import tools
from jobs.states import CANCELLED, DEAD, SUCCEEDED
from jobs.store.models import Job
from jobs.store.protocol import Draft, Ended
from jobs.types import catalogue
from jobs.types.models import JobType
from jobs.webhooks import unheard
from jobs.webhooks.composing import MAX_RESULT_BYTES, OWN_LANES, compose, own_channel
from jobs.webhooks.sender import WebhookSender
from jobs.webhooks.unheard import Unheard
from pipeline.errors import PermanentError, RetryableError
from sinks.secrets import encrypt
from tests.healthmon.notify.webserver import HANG, WebServer, answer

pytestmark = pytest.mark.django_db

SECRET = "sh4red-s3cret"


@pytest.fixture
def web():
    server = WebServer()
    yield server
    server.stop()


def submit(type, **fields) -> UUID:
    draft = Draft(type_id=type.pk, payload={"user_id": 1}, correlation_id="c-1", **fields)
    tools.the_store().submit([draft])
    return draft.id


def end(type, state=SUCCEEDED, **fields) -> None:
    """As a runner does."""
    store = tools.the_store()
    store.join("r", host="h", pid=1)
    spec = catalogue.current().types[type.pk]
    for job in store.claim("r", "w", 100, types=[type.pk]):
        ended = Ended(id=job.id, claim=job.claim, state=state, worker="w", **fields)
        assert store.write([replace(ended, webhook=compose(job, spec, ended))]) == [True]


def outgoing(row: OutboxMessage) -> Outgoing:
    return Outgoing(
        dedupe_key=row.dedupe_key,
        channel=row.channel,
        subject=row.subject,
        payload=row.payload,
        attempt=1,
        created_at=row.created_at,
    )


def sent(row: OutboxMessage) -> str:
    return WebhookSender().send(outgoing(row))


def test_the_end_of_a_job_is_told_with_it_signed(make_type, web):
    type = make_type(webhook_url=web.url, webhook_secret=encrypt(SECRET))
    id = submit(type, service="shop")
    end(type, result={"steps": {"face": 1}})
    (row,) = OutboxMessage.objects.all()
    assert (row.sender, row.state) == ("jobs", "waiting")
    assert row.channel == f"type:{type.pk}"
    # What waits holds neither the address nor the secret.
    assert "s3cret" not in json.dumps(row.payload) + row.channel_name + row.subject
    assert sent(row) == "200 thanks"
    (posted,) = web.posted
    stamp = posted.headers["x-collector-timestamp"]
    wanted = hmac.new(SECRET.encode(), f"{stamp}.".encode() + posted.body, hashlib.sha256)
    assert posted.headers["x-collector-signature"] == wanted.hexdigest()
    assert posted.headers["x-collector-delivery"] == row.dedupe_key
    assert posted.headers["x-correlation-id"] == "c-1"
    body = json.loads(posted.body)
    assert (body["event"], body["delivery"]) == ("job.succeeded", row.dedupe_key)
    job = body["job"]
    assert (job["id"], job["type"], job["status"]) == (str(id), "verify", SUCCEEDED)
    assert (job["attempts"], job["service"]) == (1, "shop")
    assert (job["result"], job["result_omitted"]) == ({"steps": {"face": 1}}, False)


def test_nobody_is_told_where_nobody_wants_to_know(verify):
    submit(verify)
    end(verify)
    assert not OutboxMessage.objects.exists()


def test_a_jobs_own_address_goes_before_its_types(make_type, web):
    type = make_type(webhook_url="http://127.0.0.1:1/nobody")
    submit(type, webhook_url=web.url)
    end(type, DEAD, reason="permanent", error="face: 404")
    (row,) = OutboxMessage.objects.all()
    assert row.channel == own_channel(web.url)
    sent(row)
    (posted,) = web.posted
    assert json.loads(posted.body)["job"]["reason"] == "permanent"
    assert "x-collector-signature" not in posted.headers


def test_own_addresses_share_a_few_lanes():
    assert len({own_channel(f"https://h{n}.example/") for n in range(500)}) == OWN_LANES


def test_a_large_result_is_left_for_who_fetches_it(make_type, web):
    type = make_type(webhook_url=web.url)
    submit(type)
    end(type, result="x" * MAX_RESULT_BYTES)
    job = OutboxMessage.objects.get().payload["job"]
    assert (job["result"], job["result_omitted"]) == (None, True)


def test_a_job_that_ended_before_is_told_of_again_when_it_ends_anew(make_type):
    type = make_type(webhook_url="https://e.example/")
    id = submit(type)
    end(type, DEAD, reason="attempts")
    tools.the_store().change("retry", [id], by="ada")
    end(type)
    events = OutboxMessage.objects.order_by("id").values_list("payload__event", flat=True)
    assert list(events) == ["job.dead", "job.succeeded"]


# --- sending ------------------------------------------------------------------------------------


def waiting(make_type, web, **fields) -> OutboxMessage:
    type = make_type(**{"webhook_url": web.url, "webhook_secret": encrypt(SECRET), **fields})
    submit(type)
    end(type)
    return OutboxMessage.objects.get()


def test_what_the_other_end_repeats_is_not_shown(make_type, web):
    row = waiting(make_type, web)
    web.will(answer(200, SECRET), answer(500, f"no: {SECRET}"), answer(422, f"bad {web.url}"))
    assert SECRET not in sent(row)
    with pytest.raises(RetryableError) as again:
        sent(row)
    with pytest.raises(PermanentError) as never:
        sent(row)
    assert SECRET not in str(again.value)
    assert "s3cret" not in str(never.value)


def test_a_metadata_address_is_never_called(make_type, web):
    row = waiting(make_type, web, webhook_url="http://169.254.169.254/latest/")
    with pytest.raises(PermanentError, match="metadata"):
        sent(row)


def test_a_private_address_is_called_only_where_it_is_allowed(make_type, web, settings):
    row = waiting(make_type, web)
    collector = settings.COLLECTOR
    open_ = replace(collector, server=replace(collector.server, host="0.0.0.0"))
    settings.COLLECTOR = open_
    with pytest.raises(PermanentError, match="COLLECTOR_JOBS_ALLOW"):
        sent(row)
    settings.COLLECTOR = replace(open_, jobs=replace(open_.jobs, allow=("127.0.0.0/8",)))
    assert sent(row) == "200 thanks"


def test_redirects_are_not_followed(make_type, web):
    row = waiting(make_type, web)
    web.will(answer(302, Location="http://169.254.169.254/"))
    with pytest.raises(RetryableError, match="redirect"):
        sent(row)
    assert len(web.posted) == 1


def test_one_that_hangs_is_given_up_in_time(make_type, web, monkeypatch):
    monkeypatch.setattr("jobs.webhooks.sender.DEADLINE_S", 0.2)
    row = waiting(make_type, web)
    web.will(HANG)
    with pytest.raises(RetryableError):
        sent(row)


def test_without_its_secret_it_waits_rather_than_goes_unsigned(make_type, web):
    row = waiting(make_type, web, webhook_secret="env:NO_SUCH_SECRET_HERE")
    with pytest.raises(RetryableError, match="NO_SUCH_SECRET_HERE"):
        sent(row)
    assert not web.posted


@pytest.mark.parametrize(
    ("change", "words"),
    [({"webhook_url": ""}, "no address"), ({"webhook_url": "ftp://x"}, "http")],
    ids=["gone", "broken"],
)
def test_what_is_nowhere_to_be_sent_fails(make_type, web, change, words):
    row = waiting(make_type, web)
    JobType.objects.update(**change)
    with pytest.raises(PermanentError, match=words):
        sent(row)


def test_a_type_may_take_own_webhooks_back(make_type, web):
    type = make_type()
    submit(type, webhook_url=web.url)
    end(type)
    JobType.objects.update(job_webhooks=False)
    with pytest.raises(PermanentError, match="not name a webhook"):
        sent(OutboxMessage.objects.get())


def test_the_sender_is_there_in_every_process_that_delivers(make_type):
    sender = sender_named("jobs")
    assert sender is not None
    assert {"server", "checker", "jobs"} == ROLES
    type = make_type()
    assert sender.terms(f"type:{type.pk}") is not None
    assert sender.terms("own:1") is not None
    assert sender.terms("type:999999") is None
    assert sender.terms("type:x") is None


# --- ends in nobody's hands ---------------------------------------------------------------------


class Eye:
    """A look at a time of its own."""

    def __init__(self) -> None:
        self.at = 0.0
        self.look = Unheard(monotonic=lambda: self.at)

    def __call__(self) -> int:
        made = self.look(datetime.now(UTC))
        self.at += unheard.EVERY_S
        return made


def test_what_is_cancelled_while_it_waits_is_told_once(make_type, web, api):
    type = make_type(webhook_url=web.url)
    ids = [submit(type), submit(type, webhook_url=web.url)]
    for id in ids:
        api("POST", f"/jobs/{id}/cancel")
    eye = Eye()
    assert [eye(), eye(), Eye()()] == [2, 0, 0]
    rows = OutboxMessage.objects.order_by("id")
    assert {row.payload["job"]["id"] for row in rows} == {str(id) for id in ids}
    sent(rows[0])
    body = json.loads(web.posted[0].body)
    assert (body["event"], body["job"]["reason"]) == ("job.cancelled", "asked")
    assert body["job"]["finished_at"] >= body["job"]["submitted_at"]


def test_every_end_is_told_in_the_same_fields(make_type, api):
    type = make_type(webhook_url="https://e.example/")
    submit(type)
    end(type, result={"steps": {}}, ran_s=2.5)
    submit(type)
    end(type, DEAD, reason="permanent")
    api("POST", f"/jobs/{submit(type)}/cancel")
    assert Eye()() == 1
    ran, died, cancelled = (row.payload["job"] for row in OutboxMessage.objects.order_by("id"))
    assert ran.keys() == died.keys() == cancelled.keys()
    began, ended = (datetime.fromisoformat(ran[at]) for at in ("started_at", "finished_at"))
    assert ended - began == timedelta(seconds=2.5)
    assert (died["started_at"], cancelled["started_at"]) == (None, None)
    assert cancelled["finished_at"]


def test_what_a_runner_told_is_not_told_again(make_type):
    type = make_type(webhook_url="https://e.example/")
    submit(type)
    end(type, DEAD, reason="permanent")
    assert Eye()() == 0
    assert OutboxMessage.objects.count() == 1


def test_what_nobody_wants_to_know_is_not_looked_at(verify, api):
    api("POST", f"/jobs/{submit(verify)}/cancel")
    assert Eye()() == 0


def test_it_looks_only_now_and_then(make_type, api):
    type = make_type(webhook_url="https://e.example/")
    look = Unheard(monotonic=lambda: 0.0)
    now = datetime.now(UTC)
    assert look(now) == 0
    api("POST", f"/jobs/{submit(type)}/cancel")
    assert look(now) == 0
    assert Eye()() == 1


def test_many_that_ended_at_once_are_all_told(make_type, monkeypatch):
    monkeypatch.setattr(unheard, "PAGE", 2)
    monkeypatch.setattr(unheard, "PAGES", 2)
    type = make_type(webhook_url="https://e.example/")
    ids = [submit(type) for _ in range(9)]
    tools.the_store().change("cancel", ids, by="ada")
    at = datetime.now(UTC) - timedelta(seconds=1)
    Job.objects.filter(state=CANCELLED).update(finished_at=at)
    eye = Eye()
    eye.look(datetime.now(UTC))
    # It goes on at once where it had to stop.
    assert [eye.look(datetime.now(UTC)) for _ in range(2)] == [4, 1]
    assert OutboxMessage.objects.count() == 9


def test_the_deliverer_finds_them(make_type):
    type = make_type(webhook_url="https://e.example/")
    submit(type)
    end(type)
    assert outbox.due_lanes(datetime.now(UTC) + timedelta(seconds=1)) == [
        ("jobs", f"type:{type.pk}")
    ]
