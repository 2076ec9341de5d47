"""Kinds of channels by name and by dotted path, and the check of the settings."""

from __future__ import annotations

import dataclasses

import pytest
from django.conf import settings

from healthmon.notify.channels.webhook import KIND as WEBHOOK
from healthmon.notify.checks import check_channel_kinds
from healthmon.notify.kind import ChannelKind
from healthmon.notify.registry import KindError, kind_of, kinds
from sinks.options import describe_options

OWN = ChannelKind(
    name="own", label="Own", description="A third party's.", Options=WEBHOOK.Options,
    send=lambda delivery: "done",
)  # fmt: skip
HERE = "tests.healthmon.notify.test_registry"


@pytest.fixture
def allow(monkeypatch):
    def give(*paths: str) -> None:
        collector = settings.COLLECTOR
        monitoring = dataclasses.replace(collector.monitoring, channel_kinds=paths)
        changed = dataclasses.replace(collector, monitoring=monitoring)
        monkeypatch.setattr(settings, "COLLECTOR", changed)

    return give


def test_the_built_in_kinds_describe_themselves():
    assert [name for name, _ in kinds()] == ["webhook", "email", "slack"]
    for _, kind in kinds():
        assert kind.label
        assert kind.description
        assert all(option.help for option in describe_options(kind.Options))


def test_only_what_the_settings_name_is_imported(allow):
    with pytest.raises(KindError, match="COLLECTOR_CHANNEL_KINDS"):
        kind_of(f"{HERE}.OWN")
    allow(f"{HERE}.OWN")
    assert kind_of(f"{HERE}.OWN").label == "Own"
    assert [name for name, _ in kinds()][-1] == f"{HERE}.OWN"
    assert check_channel_kinds() == []


@pytest.mark.parametrize("path", [f"{HERE}.HERE", f"{HERE}.NONE", "no.such.module.KIND", "plain"])
def test_what_cannot_be_used_is_said_and_left_out(allow, path):
    allow(path)
    with pytest.raises(KindError, match="COLLECTOR_CHANNEL_KINDS"):
        kind_of(path)
    assert path not in [name for name, _ in kinds()]
    assert [one.id for one in check_channel_kinds()] == ["healthmon.E020"]
