"""Claims in the database: who gets a key, what everybody else is told, what a dead owner leaves."""

from __future__ import annotations

from datetime import timedelta

import pytest

from control.idempotency.claims import (
    Claim,
    Mismatch,
    Pending,
    Replay,
    claim_all,
    finish_all,
    release_all,
    resolve,
)
from control.idempotency.models import DONE, PARTIAL, PENDING, IdempotencyKey
from tests.idempotency.claims import DAY, NOW, claim_one, wanted

pytestmark = pytest.mark.django_db


def taken(**changes: object) -> Claim:
    outcome = claim_one(wanted(**changes))  # type: ignore[arg-type]
    assert isinstance(outcome, Claim)
    return outcome


def state_of(claim: Claim) -> str:
    return IdempotencyKey.objects.get(pk=claim.id).state


def test_the_first_gets_the_key_and_the_same_request_its_answer() -> None:
    first = wanted()
    claim = claim_one(first)
    assert claim == Claim(id=first.id, missing=("default",))
    assert claim_one(wanted()) == Pending()
    finish_all([(first.id, None)])
    assert claim_one(wanted(response="another")) == Replay(status=202, response=first.response)


def test_another_body_is_told_apart_before_and_after_the_answer() -> None:
    claim = taken()
    assert claim_one(wanted(digest="e" * 64)) == Mismatch()
    finish_all([(claim.id, None)])
    assert claim_one(wanted(digest="e" * 64)) == Mismatch()


def test_tenants_and_addresses_have_keys_of_their_own() -> None:
    taken()
    taken(tenant="other")
    taken(path="/event")
    assert claim_one(wanted(tenant="other")) == Pending()


def test_a_claim_made_twice_is_one_claim() -> None:
    """The answer to a commit may be lost, and the desk then does it again."""
    one = wanted()
    assert claim_one(one) == claim_one(one) == Claim(id=one.id, missing=("default",))
    assert IdempotencyKey.objects.count() == 1


def test_one_round_gives_a_key_once() -> None:
    ones = [wanted("same") for _ in range(5)] + [wanted("other")]
    outcomes = claim_all(ones, now=NOW, keep_for=DAY)
    assert sorted(type(one).__name__ for one in outcomes) == ["Claim"] * 2 + ["Pending"] * 4
    assert isinstance(outcomes[5], Claim)


def test_a_key_that_was_given_back_is_free() -> None:
    claim = taken()
    release_all([(claim.id, False)])
    taken()


def test_what_is_done_is_not_given_back() -> None:
    claim = taken()
    finish_all([(claim.id, None)])
    release_all([(claim.id, False)])
    assert state_of(claim) == DONE


def test_a_key_is_free_once_it_has_expired() -> None:
    claim = taken()
    finish_all([(claim.id, None)])
    assert isinstance(claim_one(wanted(), now=NOW + DAY - timedelta(seconds=1)), Replay)
    fresh = claim_one(wanted(digest="e" * 64), now=NOW + DAY)
    assert isinstance(fresh, Claim)
    assert fresh.id != claim.id


def test_the_answer_may_turn_out_otherwise_than_foreseen() -> None:
    claim = taken()
    finish_all([(claim.id, "stored after all")])
    assert claim_one(wanted()) == Replay(status=202, response="stored after all")


# --- a dead owner ----------------------------------------------------------------------------


def test_a_dead_owners_claims_are_settled_by_what_its_log_holds() -> None:
    kept, lost, elsewhere = taken(key="kept"), taken(key="lost"), taken(key="x", log_id="log-2")
    resolved = resolve("log-1", frozenset({kept.frame_key("default"), "unknown/default"}))
    assert (resolved.done, resolved.partial, resolved.forgotten) == (1, 0, 1)
    assert state_of(kept) == DONE
    assert not IdempotencyKey.objects.filter(pk=lost.id).exists()
    assert state_of(elsewhere) == PENDING
    assert not resolve("log-1", frozenset({kept.frame_key("default")})).any


def test_half_a_request_is_neither_stored_twice_nor_lost() -> None:
    both = ("a", "b")
    claim = taken(parts=both)
    resolve("log-1", frozenset({claim.frame_key("b")}))
    assert state_of(claim) == PARTIAL
    again = claim_one(wanted(parts=both, log_id="log-2", response="second"))
    assert again == Claim(id=claim.id, missing=("a",), resumed=True)
    assert claim_one(wanted(parts=both)) == Pending()
    # The second owner dies as well, before and then after its frame is in the log.
    resolve("log-2", frozenset())
    assert state_of(claim) == PARTIAL
    claim_one(wanted(parts=both, log_id="log-3"))
    resolve("log-3", frozenset({claim.frame_key("a")}))
    assert isinstance(claim_one(wanted(parts=both)), Replay)


def test_a_resumed_claim_that_is_given_back_remembers_what_is_kept() -> None:
    claim = taken(parts=("a", "b"))
    resolve("log-1", frozenset({claim.frame_key("a")}))
    again = claim_one(wanted(parts=("a", "b")))
    assert isinstance(again, Claim)
    release_all([(again.id, again.resumed)])
    assert claim_one(wanted(parts=("a", "b"))) == again


def test_another_body_does_not_take_over_what_is_half_done() -> None:
    claim = taken(parts=("a", "b"))
    resolve("log-1", frozenset({claim.frame_key("a")}))
    assert claim_one(wanted(digest="e" * 64, parts=("a", "b"))) == Mismatch()
