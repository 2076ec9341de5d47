"""What `manage.py check` says of jobs."""

from __future__ import annotations

import dataclasses

import pytest

from jobs.types.checks import check_configured, check_handlers, check_networks
from jobs.types.models import DownstreamService, JobSchedule, JobType, TypeStep


def having(settings, **jobs: object) -> None:
    settings.COLLECTOR = dataclasses.replace(
        settings.COLLECTOR, jobs=dataclasses.replace(settings.COLLECTOR.jobs, **jobs)
    )


@pytest.mark.parametrize("pattern", ["jobs.examples.*", "shop.steps.pay", "shop.*.steps"])
def test_a_pattern_of_handlers_is_fine(settings, pattern: str):
    having(settings, handlers=(pattern,))
    assert check_handlers() == []


@pytest.mark.parametrize("pattern", ["shop/steps", "shop..steps", "-x", "a b"])
def test_what_is_no_pattern_is_an_error(settings, pattern: str):
    having(settings, handlers=("jobs.examples.*", pattern))
    (message,) = check_handlers()
    assert message.id == "jobs.E001"
    assert repr(pattern) in message.msg
    assert "COLLECTOR_JOBS_HANDLERS" in (message.hint or "")


def test_allowing_everything_is_warned_of(settings):
    having(settings, handlers=("*",))
    assert [message.id for message in check_handlers()] == ["jobs.W001"]


def test_what_is_no_network_is_an_error(settings):
    assert check_networks() == []
    having(settings, deny=("10.0.0.0/40",))
    (message,) = check_networks()
    assert message.id == "jobs.E002"
    assert "10.0.0.0/40" in message.msg


@pytest.mark.django_db
def test_a_fresh_installation_has_nothing_to_say():
    assert JobType.objects.count() == 1
    assert check_configured(databases=["default"]) == []
    assert check_configured(databases=["records"]) == []
    assert check_configured() == []


@pytest.mark.django_db
def test_what_is_configured_and_cannot_be_used_is_named(settings):
    DownstreamService.objects.create(name="bank", base_url="gopher://bank")
    JobType.objects.create(name="worn", backoff_cap_s=0.01)
    pay = JobType.objects.create(name="pay", aggregation="quorum", quorum=4)
    TypeStep.objects.create(type=pay, name="charge", kind="call")
    JobSchedule.objects.create(name="nightly", type=pay, cron="0 99 * * *")
    JobSchedule.objects.create(name="off", type=pay, cron="0 99 * * *", enabled=False)
    having(settings, handlers=("shop.*",))
    said = {
        (message.id, message.msg.partition(" cannot")[0])
        for message in check_configured(["default"])
    }
    assert ("jobs.W011", "Downstream bank") in said
    assert ("jobs.W010", "Type worn") in said
    assert ("jobs.W012", "Type pay") in said
    assert ("jobs.W013", "Type pay, step charge") in said
    assert ("jobs.W014", "Schedule nightly") in said
    # The settings allow its handlers no more.
    assert ("jobs.W013", "Type ekyc-verification, step face") in said
    assert "Schedule off" not in {what for _, what in said}
