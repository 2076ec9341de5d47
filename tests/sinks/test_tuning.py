"""What a sink sets of its own pipeline: laid over the installation's defaults."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.delivery.breaker import BreakerSettings
from pipeline.delivery.retry import RetryPolicy
from pipeline.settings import PipelineSettings
from sinks.options import OptionsError, decode_options, describe_options
from sinks.tuning import PipelineOverrides, with_words

DEFAULTS = PipelineSettings(
    retry=RetryPolicy(base_s=0.5, max_attempts=7), breaker=BreakerSettings(open_s=11.0)
)


def applied(**values: object) -> PipelineSettings:
    return decode_options(PipelineOverrides, values).applied_to(DEFAULTS)


def test_what_is_not_set_stays_as_the_installation_has_it() -> None:
    assert applied() == DEFAULTS


def test_each_limit_of_the_failure_policy_can_be_set_for_one_sink() -> None:
    settings = applied(
        attempt_timeout_s=5,
        max_hung_workers=2,
        poison_limit=0.5,
        retry_max_age_s=600,
        breaker_consecutive=3,
        breaker_failure_ratio=0.9,
        breaker_min_calls=10,
        breaker_window_s=20,
        breaker_half_open_probes=2,
    )
    assert (settings.attempt_timeout_s, settings.max_hung_workers) == (5, 2)
    assert settings.poison_limit == 0.5
    assert settings.retry == dataclasses.replace(DEFAULTS.retry, max_age_s=600)
    assert settings.breaker == BreakerSettings(
        consecutive=3,
        failure_ratio=0.9,
        min_calls=10,
        window_s=20,
        half_open_probes=2,
        open_s=11.0,
    )


@pytest.mark.parametrize(("said", "enabled"), [("on", True), ("off", False), ("default", True)])
def test_the_breaker_can_be_switched_off_and_on(said: str, enabled: bool) -> None:
    assert applied(breaker=said).breaker.enabled is enabled


def test_a_sink_may_have_a_breaker_where_the_installation_has_none() -> None:
    without = dataclasses.replace(DEFAULTS, breaker=BreakerSettings(enabled=False))
    overrides = decode_options(PipelineOverrides, {"breaker": "on"})
    assert overrides.applied_to(without).breaker.enabled
    assert not PipelineOverrides().applied_to(without).breaker.enabled


def test_fewer_workers_than_the_least_lower_the_least() -> None:
    many = dataclasses.replace(DEFAULTS, min_workers=3)
    settings = decode_options(PipelineOverrides, {"max_workers": 2}).applied_to(many)
    assert (settings.min_workers, settings.max_workers) == (2, 2)


@pytest.mark.parametrize(
    "values",
    [
        {"poison_limit": 0},
        {"poison_limit": 1.5},
        {"attempt_timeout_s": 0},
        {"max_hung_workers": 0},
        {"breaker_open_s": 0},
        {"breaker": "maybe"},
        {"retry_deadline_s": 5},
    ],
)
def test_values_without_sense_are_refused_by_name(values: dict[str, object]) -> None:
    with pytest.raises(OptionsError, match=next(iter(values))):
        applied(**values)


def test_every_setting_of_breaker_and_retry_policy_that_a_sink_has_is_one_of_theirs() -> None:
    names = {field.name for field in describe_options(PipelineOverrides)}
    breaker = {n.removeprefix("breaker_") for n in names if n.startswith("breaker_")}
    own = {field.name for field in dataclasses.fields(BreakerSettings)}
    assert breaker == own - {"enabled"}
    policy = {field.name for field in dataclasses.fields(RetryPolicy)}
    assert {n.removeprefix("retry_") for n in names if n.startswith("retry_")} < policy


def test_switches_may_be_written_as_the_installations_are() -> None:
    """`ordered = true` is right in [pipeline]; in a sink's section it must not stop the sink."""
    said = with_words({"ordered": True, "breaker": False, "max_records": 7})
    settings = applied(**said)
    assert (settings.ordered, settings.breaker.enabled, settings.max_records) == (True, False, 7)
