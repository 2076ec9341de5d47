"""The types that are configured: found when made a moment ago, and broken alone."""

from __future__ import annotations

import importlib

import pytest
from django.apps import apps
from django.db import connection

from jobs.execution.handlers import Handlers
from jobs.types import catalogue
from jobs.types.example import NAME, STEPS
from jobs.types.models import DownstreamService, JobType, TypeStep

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setattr(catalogue, "_current", catalogue.Catalogue())
    monkeypatch.setattr(catalogue, "_looked_at", None)


class Time:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_a_type_made_a_moment_ago_is_found(django_assert_num_queries):
    now = Time()
    made = JobType.objects.create(name="pay")
    found = catalogue.lookup("pay", monotonic=now)
    assert found is not None
    assert found.id == made.pk
    with django_assert_num_queries(0):
        assert catalogue.lookup("pay", monotonic=now) is found


def test_names_that_nobody_knows_do_not_ask_the_database_each_time(django_assert_num_queries):
    now = Time()
    assert catalogue.lookup("pay", monotonic=now) is None
    JobType.objects.create(name="pay")
    now.at += catalogue.LOOK_AGAIN_S - 0.01
    with django_assert_num_queries(0):
        assert catalogue.lookup("pay", monotonic=now) is None
        assert catalogue.lookup("ship", monotonic=now) is None
    now.at += 0.02
    assert catalogue.lookup("pay", monotonic=now) is not None


def test_a_row_that_cannot_be_used_breaks_its_type_alone():
    bad = DownstreamService.objects.create(name="bad", base_url="http://x", breaker_ratio=7)
    broken, fine = JobType.objects.create(name="broken"), JobType.objects.create(name="fine")
    TypeStep.objects.create(type=broken, name="s", downstream=bad)
    TypeStep.objects.create(type=fine, name="s", kind="handler", handler="x.y")
    read = catalogue.refresh()
    assert "fine" in read.by_name
    assert "broken" not in read.by_name
    assert set(read.broken) == {"downstream bad", "type broken"}


@pytest.mark.parametrize("model", [DownstreamService, JobType, TypeStep])
def test_every_change_is_noticed(model):
    service = DownstreamService.objects.create(name="bank", base_url="http://x")
    row = JobType.objects.create(name="pay")
    TypeStep.objects.create(type=row, name="s", downstream=service)
    before = catalogue.fingerprint()
    assert catalogue.fingerprint() == before
    model.objects.filter(name__in=["bank", "pay", "s"]).update(name="renamed")
    assert catalogue.fingerprint() != before


def test_the_example_is_there_and_can_be_run():
    spec = catalogue.refresh().by_name[NAME]
    assert [(step.stage, step.name, step.handler) for step in spec.steps] == list(STEPS)
    handlers = Handlers(patterns=("jobs.examples.*",))
    assert [handlers.problem(step.handler) for step in spec.steps] == [""] * len(STEPS)


def test_an_example_that_is_there_stays_as_it_was_edited():
    JobType.objects.filter(name=NAME).update(max_attempts=3)
    TypeStep.objects.filter(type__name=NAME, name="face").delete()
    migration = importlib.import_module("jobs.migrations.0002_example_type")
    with connection.schema_editor() if connection.vendor != "sqlite" else _Editor() as editor:
        migration.create(apps, editor)
    row = JobType.objects.get(name=NAME)
    assert row.max_attempts == 3
    assert row.steps.count() == len(STEPS) - 1


class _Editor:
    """SQLite's own cannot begin inside a transaction."""

    connection = connection

    def __enter__(self) -> _Editor:
        return self

    def __exit__(self, *_: object) -> None:
        pass
