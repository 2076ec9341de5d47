"""Routes: which types, tenants and severities a sink takes."""

from __future__ import annotations

import pytest

from pipeline.intake.router import Route
from pipeline.record import DEBUG, ERROR, INFO, WARN
from tests.pipeline.support import record


@pytest.mark.parametrize(
    ("route", "type", "tenant", "takes"),
    [
        (Route(), "log", "a", True),
        (Route(types=frozenset({"log"})), "log", "a", True),
        (Route(types=frozenset({"log"})), "event", "a", False),
        (Route(tenants=frozenset({"a", "b"})), "log", "b", True),
        (Route(tenants=frozenset({"a", "b"})), "log", "c", False),
        (Route(types=frozenset({"log"}), tenants=frozenset({"a"})), "log", "b", False),
        (Route(types=frozenset()), "log", "a", False),
        (Route(min_severity=ERROR), "log", "a", True),  # severity is asked per record
    ],
)
def test_a_route_filters_by_type_and_tenant(
    route: Route, type: str, tenant: str, takes: bool
) -> None:
    assert route.takes(type, tenant) is takes


def test_severity_is_a_threshold_that_includes_itself() -> None:
    of = [record(severity=s) for s in (0, DEBUG, INFO, WARN, WARN + 1, ERROR)]
    route = Route(min_severity=WARN)
    assert [one.severity for one in route.passing(of)] == [WARN, WARN + 1, ERROR]
    assert Route().passing(of) == of
