"""Claims in time: expiry, strays, and owners that died without a trace."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from control.idempotency.claims import Claim, finish_all, resolve
from control.idempotency.models import PARTIAL, IdempotencyKey
from control.idempotency.upkeep import FOREIGN_AFTER, GONE_AFTER, forget_expired, sweep
from control.models import Process
from tests.idempotency.claims import DAY, NOW, claim_one, wanted

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


def taken(**changes: Any) -> Claim:
    outcome = claim_one(wanted(**changes))
    assert isinstance(outcome, Claim)
    return outcome


def swept(now: datetime, tmp_path: Path, *, active: set[UUID] | None = None) -> int:
    return sweep(
        now,
        own_log_id="own",
        active=lambda: active or set(),
        wal_directory=tmp_path,
        host="here",
    )


def process(log_id: str, *, last_seen_at: datetime, host: str = "here") -> None:
    Process.objects.create(
        role="server",
        host=host,
        pid=1,
        log_id=log_id,
        started_at=NOW - DAY,
        last_seen_at=last_seen_at,
    )


def test_expired_claims_are_forgotten_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from control.idempotency import upkeep

    monkeypatch.setattr(upkeep, "_CHUNK", 2)
    for n in range(5):
        taken(key=f"old-{n}")
    claim_one(wanted("young"), now=NOW + MINUTE)
    assert forget_expired(NOW + DAY - MINUTE) == 0
    assert forget_expired(NOW + DAY) == 5
    assert [row.key for row in IdempotencyKey.objects.all()] == ["young"]


def test_a_stray_of_this_process_is_given_back_and_no_held_one(tmp_path: Path) -> None:
    held = taken(key="held", log_id="own")
    taken(key="stray", log_id="own")
    assert swept(NOW + timedelta(seconds=29), tmp_path, active={held.id}) == 0
    assert swept(NOW + timedelta(seconds=30), tmp_path, active={held.id}) == 1
    assert IdempotencyKey.objects.get().pk == held.id


def test_a_living_owners_claim_is_its_own(tmp_path: Path) -> None:
    taken()
    now = NOW + timedelta(hours=5)
    process("log-1", last_seen_at=now - timedelta(seconds=5))
    assert swept(now, tmp_path) == 0


def test_a_log_that_is_there_is_left_to_whoever_adopts_it(tmp_path: Path) -> None:
    taken()
    (tmp_path / "log-1").mkdir()
    process("log-1", last_seen_at=NOW)
    assert swept(NOW + DAY, tmp_path) == 0
    (tmp_path / "log-1").rmdir()
    assert swept(NOW + DAY, tmp_path) == 1


@pytest.mark.parametrize(("host", "after"), [("here", GONE_AFTER), ("elsewhere", FOREIGN_AFTER)])
def test_a_silent_owner_without_a_log_loses_its_claims_in_time(
    tmp_path: Path, host: str, after: timedelta
) -> None:
    taken()
    seen = NOW + MINUTE
    process("log-1", last_seen_at=seen, host=host)
    assert swept(seen + after - timedelta(seconds=1), tmp_path) == 0
    assert swept(seen + after, tmp_path) == 1
    assert isinstance(claim_one(wanted()), Claim)


def test_an_owner_that_nobody_ever_saw(tmp_path: Path) -> None:
    taken()
    assert swept(NOW + FOREIGN_AFTER - MINUTE, tmp_path) == 0
    assert swept(NOW + FOREIGN_AFTER, tmp_path) == 1


def test_what_is_done_or_half_done_is_not_swept(tmp_path: Path) -> None:
    done, half = taken(key="done"), taken(key="half", parts=("a", "b"))
    finish_all([(done.id, None)])
    resolve("log-1", frozenset({half.frame_key("a")}))
    claim_one(wanted("half", parts=("a", "b"), log_id="log-2"))
    assert swept(NOW + FOREIGN_AFTER, tmp_path) == 1
    assert IdempotencyKey.objects.get(pk=half.id).state == PARTIAL
    assert IdempotencyKey.objects.count() == 2
