"""Types, downstream services and schedules as code: out, in again, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from control.config import apply as applying
from control.config.export import EntryError, export_toml
from jobs.store.models import Job
from jobs.types import catalogue
from jobs.types.models import DownstreamService, JobSchedule, JobType, TypeStep
from sinks.secrets import decrypt, encrypt

pytestmark = pytest.mark.django_db

NAMES = ("downstreams", "job_types", "job_schedules")
BANK = """
[[downstreams]]
name = "bank"
base_url = "https://bank.example/api"
headers = {Accept = "application/json"}
secret_headers = {Authorization = "env:BANK_TOKEN"}
rate_per_s = 5
"""
PAYMENT = """
[[job_types]]
name = "payment"
payload_schema = {type = "object", properties = {n = {type = "integer"}}, required = ["n"]}
max_attempts = 3

[[job_types.steps]]
name = "charge"
downstream = "bank"
path = "/charge/{payload.n}"
body_json = '{"nothing": null, "n": "{payload.n}"}'

[[job_types.steps]]
name = "receipt"
stage = 2
downstream = "bank"
method = "PUT"
path = "/receipts/{steps.charge.result.id}"
"""
NIGHTLY = """
[[job_schedules]]
name = "nightly"
type = "payment"
cron = "0 3 * * *"
timezone = "Europe/Vienna"
payload = {n = 4}
priority = 2
"""
ALL = BANK + PAYMENT + NIGHTLY


def apply(text: str, *, prune: bool = False) -> list[tuple[str, str, str]]:
    changes = applying.plan(applying.parse(text), prune=prune)
    told: list[tuple[str, str, str]] = [(one.action, one.section, one.name) for one in changes]
    applying.apply(changes)
    return told


def refusal(text: str, **more: Any) -> str:
    with pytest.raises(EntryError) as caught:
        apply(text, **more)
    return str(caught.value)


def test_a_file_makes_everything_and_applied_again_changes_nothing():
    assert apply(ALL) == [
        ("add", "downstreams", "bank"),
        ("add", "job_types", "payment"),
        ("add", "job_schedules", "nightly"),
    ]
    assert apply(ALL) == []
    spec = catalogue.load().by_name["payment"]
    assert [(step.name, step.stage) for step in spec.steps] == [("charge", 1), ("receipt", 2)]
    assert spec.steps[0].body == {"nothing": None, "n": "{payload.n}"}
    assert spec.steps[0].downstream is not None
    assert spec.steps[0].downstream.secret_headers == {"Authorization": "env:BANK_TOKEN"}
    row = JobSchedule.objects.get()
    assert (row.type.name, row.priority, row.next_at) == ("payment", 2, None)


def test_what_is_exported_is_what_was_applied():
    apply(ALL)
    text = export_toml(NAMES)
    assert apply(text, prune=True) == []
    for model in (JobSchedule, JobType, DownstreamService):
        model.objects.all().delete()
    apply(text)
    assert export_toml(NAMES) == text


def test_a_change_keeps_what_the_file_does_not_name():
    apply(ALL)
    before = JobSchedule.objects.get()
    JobSchedule.objects.update(last_error="as it was", next_at="2026-01-01T00:00:00Z")
    steps = dict(TypeStep.objects.filter(type__name="payment").values_list("name", "pk"))
    assert apply('[[job_types]]\nname = "payment"\nmax_attempts = 9') == [
        ("change", "job_types", "payment")
    ]
    assert apply('[[job_schedules]]\nname = "nightly"\ncron = "5 3 * * *"') == [
        ("change", "job_schedules", "nightly")
    ]
    row = JobType.objects.get(name="payment")
    assert row.max_attempts == 9
    assert dict(row.steps.values_list("name", "pk")) == steps
    after = JobSchedule.objects.get()
    assert (after.cron, after.last_error, after.pk) == ("5 3 * * *", "as it was", before.pk)
    assert after.next_at is not None


def test_steps_are_taken_as_a_whole_and_those_of_the_same_name_keep_their_rows():
    apply(ALL)
    kept = TypeStep.objects.get(name="charge").pk
    text = PAYMENT.replace('name = "receipt"', 'name = "slip"').replace("/charge/", "/debit/")
    (change,) = applying.plan(applying.parse(text))
    assert set(change.fields) == {"steps.charge", "steps.receipt", "steps.slip"}
    applying.apply([change])
    steps = JobType.objects.get(name="payment").steps
    assert set(steps.values_list("name", flat=True)) == {"charge", "slip"}
    assert steps.get(name="charge").pk == kept
    assert steps.get(name="charge").path == "/debit/{payload.n}"


def test_null_is_unset_by_a_word():
    apply(ALL)
    assert DownstreamService.objects.get().rate_per_s == 5
    apply('[[downstreams]]\nname = "bank"\nrate_per_s = "none"')
    assert DownstreamService.objects.get().rate_per_s is None


# --- secrets ------------------------------------------------------------------------------------


def test_a_stored_secret_is_named_and_kept_and_never_shown():
    apply(ALL)
    DownstreamService.objects.update(secret_headers={"X-Key": encrypt("hush-hush")})
    JobType.objects.filter(name="payment").update(webhook_secret=encrypt("psst"))
    text = export_toml(NAMES)
    assert "hush" not in text
    assert "psst" not in text
    assert 'secrets = ["X-Key"]' in text
    assert 'secrets = ["webhook_secret"]' in text
    assert apply(text) == []
    DownstreamService.objects.all().update(secret_headers={})
    JobType.objects.filter(name="payment").update(webhook_secret="")
    assert 'X-Key = "env:NAME"' in refusal(text)


def test_a_secret_in_a_file_is_encrypted_and_the_same_again_is_no_change():
    text = BANK.replace("env:BANK_TOKEN", "hush-hush")
    (change,) = applying.plan(applying.parse(text))
    assert "hush" not in applying.describe([change])
    applying.apply([change])
    stored = DownstreamService.objects.get().secret_headers["Authorization"]
    assert decrypt(stored, option="") == "hush-hush"
    assert apply(text) == []
    (change,) = applying.plan(applying.parse(text.replace("hush-hush", "another")))
    assert "another" not in applying.describe([change])
    assert list(change.fields) == ["secret_headers.Authorization"]


# --- going --------------------------------------------------------------------------------------


def test_pruning_removes_a_type_and_what_only_it_called():
    apply(ALL)
    told = apply("downstreams = []\njob_types = []\njob_schedules = []", prune=True)
    assert ("remove", "downstreams", "bank") in told
    assert ("remove", "job_types", "payment") in told
    assert not DownstreamService.objects.exists()
    assert not JobType.objects.exists()
    assert not JobSchedule.objects.exists()


def test_a_service_that_is_called_does_not_go():
    apply(ALL)
    assert "'payment' calls it" in refusal("downstreams = []", prune=True)
    kept = '[[job_types]]\nname = "payment"'
    assert "'payment' calls it" in refusal("downstreams = []\n" + kept, prune=True)
    apply("downstreams = []\n" + kept + "\nsteps = []", prune=True)
    assert not DownstreamService.objects.exists()


def test_a_type_with_jobs_does_not_go():
    apply(ALL)
    row = JobType.objects.get(name="payment")
    Job.objects.create(type=row, created_at="2026-01-01T00:00:00Z", run_at="2026-01-01T00:00:00Z")
    assert "there are jobs of it" in refusal("job_types = []", prune=True)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("https://bank", "ftp://bank", 'downstream service "bank": base_url'),
        ("https://bank", "https://user:pw@bank", "secret header"),
        ('"application/json"', '"a\\nb"', "headers"),
        ("rate_per_s = 5", "rate_per_s = inf", "rate_per_s must be a finite number"),
        ("rate_per_s = 5", "burst = 3", "burst"),
        ("rate_per_s = 5", "breaker_ratio = 2", "breaker_ratio"),
        ("rate_per_s = 5", 'expected_status = "200-"', "expected_status"),
        ("rate_per_s = 5", "speed = 5", "unknown field 'speed'"),
        ("rate_per_s = 5", "verify_tls = 1", "verify_tls must be true or false"),
        ('"env:BANK_TOKEN"', "7", "Authorization must be a text"),
        ('name = "payment"', 'name = "Pay ment"', "lower-case"),
        ('{type = "integer"}', '{type = "whole"}', "payload_schema"),
        ("max_attempts = 3", "max_attempts = 0", "max_attempts"),
        ("max_attempts = 3", 'aggregation = "most"', "aggregation"),
        ("max_attempts = 3", 'aggregation = "quorum"\nquorum = 3', "quorum"),
        ("max_attempts = 3", "max_attempts = 3\nmax_attempts_ = 3", "max_attempts_"),
        ("max_attempts = 3", 'payload_schema_json = "{}"', "not both"),
        ("max_attempts = 3", 'secrets = ["x"]', "webhook_secret"),
        ("max_attempts = 3", 'webhook_url = "gopher://x"', "webhook_url"),
        ('downstream = "bank"\npath', 'downstream = "post"\npath', "names 'post'"),
        ('{payload.n}"\nbody', '{payload.m"\nbody', 'step "charge": path'),
        ("steps.charge.result", "steps.other.result", 'step "receipt": path'),
        ('"nothing": null', '"nothing": nul', "body_json: is not JSON"),
        ('method = "PUT"', 'method = "BREW"', "method"),
        ('method = "PUT"', 'name2 = "x"', "name2"),
        ('name = "receipt"', 'name = "charge"', "charge"),
        ('type = "payment"\ncron', 'type = "gone"\ncron', "names 'gone'"),
        ("0 3 * * *", "0 25 * * *", "cron"),
        ("Europe/Vienna", "Mars/Base", "timezone"),
        ("{n = 4}", '{n = "four"}', "payload: /n"),
        ("{n = 4}", "{n = 2026-01-01}", "payload: holds what JSON cannot"),
        ("priority = 2", 'tenant = "nobody"', "tenant"),
        ("priority = 2", "priority = 12", "priority"),
        ("priority = 2", 'missed = "twice"', "missed"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_nothing_is_done(was: str, now: str, said: str):
    assert was in ALL
    assert said in refusal(ALL.replace(was, now, 1))
    assert not DownstreamService.objects.exists()
    assert not JobSchedule.objects.exists()


def test_the_mistakes_of_all_rows_are_told_at_once():
    said = refusal(
        """
        [[downstreams]]
        name = "one"
        base_url = "https://one.example"
        foo = 1
        timeout_s = "long"

        [[downstreams]]
        name = "two"
        base_url = "ftp://two.example"

        [[job_types]]
        name = "kind"
        bar = 2
        """
    ).splitlines()
    assert len(said) == 4
    assert [("foo" in said[0], "timeout_s" in said[1])] == [(True, True)]
    assert '"two"' in said[2]
    assert "bar" in said[3]


def test_no_more_mistakes_are_told_than_can_be_read():
    rows = (f'[[downstreams]]\nname = "d{n}"\nfoo = 1\n' for n in range(60))
    said = refusal("\n".join(rows)).splitlines()
    assert len(said) == 51
    assert said[-1] == "and 10 more"


def test_a_handler_must_be_allowed_and_there():
    text = (
        '[[job_types]]\nname = "h"\n[[job_types.steps]]\nname = "s"\nkind = "handler"\nhandler = '
    )
    assert "os.system" in refusal(text + '"os.system"')
    assert "handler" in refusal(text + '"jobs.examples.ekyc.nothing"')
    apply(text + '"jobs.examples.ekyc.face"')


def test_a_schedule_is_checked_by_the_schema_its_type_will_have():
    apply(ALL)
    text = '[[job_types]]\nname = "payment"\npayload_schema = {required = ["m"]}\n'
    steps = "steps = []\n"
    nightly = '[[job_schedules]]\nname = "nightly"\npayload = '
    assert "payload" in refusal(text + steps + nightly + "{n = 4}")
    apply(text + steps + nightly + "{m = 4}")
