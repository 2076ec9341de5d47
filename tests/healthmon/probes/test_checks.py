"""What the system checks say of settings that probing cannot use."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from django.conf import settings as django_settings

from healthmon.probes.checks import check_networks, check_probe_kinds


@pytest.fixture
def monitoring(settings: Any) -> Any:
    """Sets fields of [monitoring] for one test."""

    def change(**fields: Any) -> None:
        collector = django_settings.COLLECTOR
        changed = dataclasses.replace(collector.monitoring, **fields)
        settings.COLLECTOR = dataclasses.replace(collector, monitoring=changed)

    return change


def test_the_defaults_are_fine() -> None:
    assert check_probe_kinds() == check_networks() == []


def test_a_kind_that_cannot_be_imported_is_named(monitoring: Any) -> None:
    monitoring(probe_kinds=("nowhere.at_all.KIND",))
    [found] = check_probe_kinds()
    assert found.id == "healthmon.E010"
    assert "nowhere.at_all.KIND" in found.msg


def test_what_is_no_network_is_named(monitoring: Any) -> None:
    monitoring(probe_deny=("10.0.0.0/8", "nonsense"))
    [found] = check_networks()
    assert found.id == "healthmon.E011"
    assert "nonsense" in found.msg
