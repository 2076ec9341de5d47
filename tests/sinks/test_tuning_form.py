"""A sink's pipeline settings in the admin: groups, defaults in grey, errors beside their fields."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from pipeline.settings import PipelineSettings
from sinks.backends.memory import MemorySink
from sinks.models import SinkConfig
from sinks.options import decode_options
from sinks.tuning import PipelineOverrides, as_overrides
from sinks.tuninggroups import GROUPS, LABELS

pytestmark = pytest.mark.django_db

MEMORY = "sinks.backends.memory.MemorySink"
ADD = reverse("admin:sinks_sinkconfig_add") + f"?backend={MEMORY}"
FORM = {"name": "db", "required": "on", "enabled": "on", "option_capacity": "1000"}


@pytest.fixture(autouse=True)
def _no_other_rows(db: None) -> None:
    SinkConfig.objects.all().delete()


def page_of(answer: Any) -> str:
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def errors_at(page: str, name: str) -> str:
    """The errors in the row of one setting."""
    found = re.search(
        rf'<div class="form-row[^"]*field-pipeline_{name}">(.*?)<label', page, re.DOTALL
    )
    assert found is not None, name
    return found[1]


def group(page: str, title: str) -> str:
    """A group of settings as the page has it."""
    found = next(one for one in page.split("<fieldset") if f">Pipeline: {title}<" in one)
    return found.partition("</fieldset>")[0]


def test_every_setting_stands_in_one_group() -> None:
    named = [name for one in GROUPS for name in one.labels]
    assert sorted(named) == sorted(PipelineOverrides.__struct_fields__)


@pytest.mark.parametrize(
    ("ending", "unit"),
    [("_s", "seconds"), ("_bytes", "bytes"), ("_records", "records"), ("_watermark", "share")],
)
def test_labels_tell_units_and_break_between_words(ending: str, unit: str) -> None:
    labels = {name: label for name, label in LABELS.items() if name.endswith(ending)}
    assert labels
    assert all(unit in label for label in labels.values())
    assert max(len(word) for label in LABELS.values() for word in label.split()) <= 12


def test_the_defaults_are_what_overrides_of_them_would_say() -> None:
    defaults = PipelineSettings(partition_by="tenant", ordered=True, shed_watermark=0.7)
    said = {name: value for name, value in as_overrides(defaults).items() if value is not None}
    assert set(as_overrides(defaults)) == set(PipelineOverrides.__struct_fields__)
    assert decode_options(PipelineOverrides, said).applied_to(PipelineSettings()) == defaults


def test_the_form_shows_what_holds_where_nothing_is_set(admin_client: Client) -> None:
    page = page_of(admin_client.get(ADD))
    batches = group(page, "batches")
    assert 'placeholder="5,000"' in batches
    assert "Batch size (records)" in batches
    assert "<code>max_records</code>" in batches
    assert "<details>" in batches
    assert 'placeholder="0.6"' in group(page, "room and marks")
    assert "default (INFO)" in group(page, "room and marks")
    assert "default (on)" in group(page, "breaker")
    assert 'placeholder="none"' in group(page, "retries and giving up")


def test_errors_stand_beside_their_fields_with_both_numbers(admin_client: Client) -> None:
    wrong = {
        "pipeline_high_watermark": "0.5",
        "pipeline_min_workers": "9",
        "pipeline_max_workers": "2",
        "pipeline_autoscale_down": "0.9",
    }
    page = page_of(admin_client.post(ADD, FORM | wrong))
    assert "0 < low_watermark (0.6) <= high_watermark (0.5)" in errors_at(page, "high_watermark")
    assert "errorlist" not in errors_at(page, "low_watermark"), "it is not set here"
    for name in ("min_workers", "max_workers"):
        assert "min_workers (9) <= max_workers (2)" in errors_at(page, name)
    assert "down (0.9) < up (0.8)" in errors_at(page, "autoscale_down")
    for title in ("room and marks", "workers"):
        assert "<details>" not in group(page, title)
    assert "<details>" in group(page, "breaker")
    assert not SinkConfig.objects.exists()


def test_a_group_in_which_something_is_set_is_open(admin_client: Client) -> None:
    row = SinkConfig.objects.create(name="db", backend=MEMORY, pipeline={"breaker": "off"})
    page = page_of(admin_client.get(reverse("admin:sinks_sinkconfig_change", args=[row.pk])))
    assert "<details>" not in group(page, "breaker")
    assert "<details>" in group(page, "batches")
    typed = {
        "pipeline_max_wait_s": "0.5",
        "pipeline_min_workers": "9",
        "pipeline_breaker": "default",
    }
    page = page_of(admin_client.post(ADD, FORM | typed))
    assert "<details>" not in group(page, "batches"), "what was typed stays in sight"
    assert "<details>" in group(page, "breaker")


def test_what_the_sink_does_not_bear_is_refused(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemorySink, "supports_concurrent_writes", False)
    monkeypatch.setattr(MemorySink, "max_batch_records", 100)
    wrong = {"pipeline_max_workers": "4", "pipeline_max_records": "101"}
    page = page_of(admin_client.post(ADD, FORM | wrong))
    assert "4 would have no effect: this sink takes one write" in errors_at(page, "max_workers")
    assert "takes 100 records at once, at most" in errors_at(page, "max_records")
    assert 'placeholder="1"' in group(page, "workers")
    assert 'placeholder="100"' in group(page, "batches")
    fitting = {"pipeline_max_workers": "1", "pipeline_max_records": "100"}
    assert admin_client.post(ADD, FORM | fitting).status_code == 302
