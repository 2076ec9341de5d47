"""The rate of an API key: where it comes from, and how processes share it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError
from django.test import Client

from control.auth.keys import KeyRing, KeyRow, Principal, Snapshot, create_key, load_rows
from control.auth.limits import KeyLimits
from control.auth.models import ApiKey, Tenant
from control.processes.models import Process
from pipeline.runtime.clock import FakeClock


def principal(key_id: int = 1, rate: int | None = 100, burst: int | None = None) -> Principal:
    return Principal(key_id=key_id, tenant="t", scopes=frozenset(), rate_per_s=rate, burst=burst)


def process(role: str = "server", *, silent_s: float = 0.0, stopped: bool = False) -> Process:
    now = datetime.now(UTC)
    return Process.objects.create(
        role=role,
        host="h",
        pid=1,
        started_at=now,
        last_seen_at=now - timedelta(seconds=silent_s),
        stopped_at=now if stopped else None,
    )


def test_a_key_without_a_rate_has_no_limit() -> None:
    limits = KeyLimits()
    assert limits.of(principal(rate=None)) is None
    nobody = Principal(key_id=None, tenant="t", scopes=frozenset(), rate_per_s=5)
    assert limits.of(nobody) is None


def test_a_burst_is_ten_seconds_worth_unless_told() -> None:
    limits = KeyLimits(monotonic=FakeClock().monotonic)
    plain, short = limits.of(principal(1)), limits.of(principal(2, burst=250))
    assert plain is not None
    assert short is not None
    assert (plain.burst, plain.window_s, plain.remaining) == (1_000, 10, 1_000)
    assert (short.burst, short.window_s, short.remaining) == (250, 3, 250)
    assert (plain.quota, short.quota) == (1_000, 250)


def test_a_burst_below_the_rate_leaves_the_rate_what_it_is() -> None:
    limit = KeyLimits(monotonic=FakeClock().monotonic).of(principal(rate=20, burst=5))
    assert limit is not None
    assert (limit.quota, limit.window_s, limit.remaining) == (20, 1, 5)


def test_processes_share_a_rate() -> None:
    clock = FakeClock()
    limits = KeyLimits(monotonic=clock.monotonic)
    limits.processes = 4
    limit = limits.of(principal(rate=100, burst=400))
    assert limit is not None
    assert limit.remaining == 100
    assert limit.charge(100) == 0
    assert limit.charge(1) == pytest.approx(1 / 25)
    clock.advance(1)
    assert limit.remaining == 25
    limits.processes = 2
    limit = limits.of(principal(rate=100, burst=400))
    assert limit is not None
    clock.advance(1)
    assert limit.remaining == 75, "half of the rate from now on"


def test_a_changed_rate_counts_at_once() -> None:
    clock = FakeClock()
    limits = KeyLimits(monotonic=clock.monotonic)
    limit = limits.of(principal(rate=10, burst=10))
    assert limit is not None
    assert limit.charge(30) == 0
    assert limit.due_s() == pytest.approx(2.1)
    faster = limits.of(principal(rate=100, burst=10))
    assert faster is not None
    assert faster.due_s() == pytest.approx(0.21)


def test_one_request_goes_below_zero_and_no_second() -> None:
    limits = KeyLimits(monotonic=FakeClock().monotonic)
    limit = limits.of(principal(rate=1, burst=10))
    assert limit is not None
    assert limit.charge(9) == 0
    assert limit.charge(500) == 0
    assert limit.charge(1) > 490
    assert limit.due_s() > 490
    limit.give_back(500)
    assert limit.due_s() == 0
    assert limit.remaining == 1


@pytest.mark.django_db
def test_living_servers_are_counted() -> None:
    limits = KeyLimits()
    limits.count_processes()
    assert limits.processes == 1, "this one, whose row may not be there yet"
    process()
    process()
    process("checker")
    process(silent_s=60)
    process(stopped=True)
    limits.count_processes()
    assert limits.processes == 2


def test_the_last_count_stands_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = KeyLimits()
    limits.processes = 3

    def away(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(Process.objects, "filter", away)
    with pytest.raises(OperationalError):
        limits.count_processes()
    assert limits.processes == 3


@pytest.mark.django_db
def test_a_keys_rate_reaches_the_ring_and_the_snapshot() -> None:
    Tenant.objects.get_or_create(slug="t")
    key, token = create_key(tenant="t", name="k", scopes=["logs"], rate_per_s=50, burst=70)
    ring = KeyRing(rows=load_rows, snapshot=Snapshot())
    found = ring.authenticate(token)
    assert found is not None
    assert (found.rate_per_s, found.burst) == (50, 70)
    (row,) = [row for row in load_rows() if row.id == key.pk]
    assert (row.rate_per_s, row.burst) == (50, 70)


def test_a_snapshot_of_before_has_no_rates() -> None:
    import msgspec

    row = msgspec.json.decode(
        b'{"id":1,"digest":"00","tenant":"t","scopes":[],"any_tenant":false,"min_ack":"",'
        b'"expires_at":null,"revoked":false}',
        type=KeyRow,
    )
    assert (row.rate_per_s, row.burst) == (None, None)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("rate", "burst"), [(0, None), (-1, None), (2**31, None), (10, 0), (None, 5)]
)
def test_a_limit_that_makes_no_sense_is_refused(rate: int | None, burst: int | None) -> None:
    with pytest.raises(ValidationError):
        create_key(tenant="default", name="k", scopes=["logs"], rate_per_s=rate, burst=burst)


@pytest.mark.django_db
def test_the_command_makes_a_key_with_a_rate() -> None:
    out = StringIO()
    call_command("apikey", "create", "k", "--rate", "50", "--burst", "9", "--json", stdout=out)
    told = json.loads(out.getvalue())
    assert (told["rate_per_s"], told["burst"]) == (50, 9)
    with pytest.raises(CommandError, match="rate limit is between 1"):
        call_command("apikey", "create", "k", "--rate", "0", stderr=StringIO())


@pytest.mark.django_db
def test_the_admin_sets_a_rate_and_refuses_a_burst_alone(admin_client: Client) -> None:
    tenant, _ = Tenant.objects.get_or_create(slug="default")
    form = {"tenant": tenant.pk, "name": "k", "scopes": ["logs"], "min_ack": "", "once": "x"}
    page = admin_client.post("/admin/control/apikey/add/", {**form, "burst": "5"})
    assert "A burst goes with a rate limit" in page.content.decode()
    page = admin_client.post(
        "/admin/control/apikey/add/", {**form, "rate_per_s": "1500", "burst": "5000"}
    )
    assert page.status_code == 200
    made = ApiKey.objects.get(name="k")
    assert (made.rate_per_s, made.burst) == (1_500, 5_000)
    listed = admin_client.get("/admin/control/apikey/").content.decode()
    assert "1,500, burst 5,000" in listed
