"""Mistakes in the settings as Django shows them."""

from __future__ import annotations

from dataclasses import replace

from django.conf import settings
from django.core.checks import Error, Warning, run_checks
from django.test import override_settings

from collector_site.checks import check_settings
from control.config.settings import load


def test_this_installation_is_without_fault() -> None:
    assert check_settings() == []
    # W005 depends on where the tests keep their files.
    found = [message.id for message in run_checks() if message.level >= 30]
    assert found in ([], ["collector.W005"])


def test_mistakes_become_numbered_messages_with_hints() -> None:
    mistakes = load({"PORT": "http", "COLLECTOR_THREDS": "3"}).mistakes
    with override_settings(COLLECTOR=replace(settings.COLLECTOR, mistakes=mistakes)):
        found = check_settings()
    assert [type(message) for message in found] == [Error, Warning]
    assert [message.id for message in found] == ["collector.E003", "collector.W001"]
    assert all(message.hint for message in found)
