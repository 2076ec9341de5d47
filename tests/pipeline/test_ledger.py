"""The ledger: tallies, their law, and the bound on tenants."""

from __future__ import annotations

from pipeline.ledger import OTHER_TENANTS, Ledger, Tally


def test_a_tally_balances_when_every_record_has_ended_or_is_held() -> None:
    tally = Tally(
        accepted=20,
        redriven=5,
        stored=10,
        already_stored=2,
        dead_lettered=3,
        dropped={"permanent": 1, "shutdown": 2},
    )
    assert tally.ended == 18
    assert tally.imbalance(7) == 0
    assert tally.imbalance(5) == 2, "two records are nowhere"
    assert tally.imbalance(8) == -1, "one record is counted twice"


def test_each_end_of_a_record_is_counted_under_its_sink_and_tenant() -> None:
    ledger = Ledger()
    ledger.accepted("a", "t", 10)
    ledger.stored("a", "t", 4)
    ledger.stored("a", "t", 2, already=True)
    ledger.dropped("a", "t", 3, reason="permanent")
    ledger.dropped("a", "t", 1, reason="permanent")
    ledger.passed_by("b", "t", 7, reason="backlog")
    assert ledger.tallies() == {
        ("a", "t"): Tally(accepted=10, stored=4, already_stored=2, dropped={"permanent": 4}),
        ("b", "t"): Tally(accepted=7, dropped={"backlog": 7}, passed=7),
    }
    assert list(ledger.tallies("b")) == [("b", "t")]


def test_a_copy_of_the_tallies_does_not_move_with_them() -> None:
    ledger = Ledger()
    ledger.dropped("a", "t", 1, reason="x")
    before = ledger.tallies()
    ledger.dropped("a", "t", 1, reason="x")
    ledger.accepted("a", "t", 9)
    assert before["a", "t"] == Tally(dropped={"x": 1})


def test_tenants_beyond_the_bound_share_one_tally_per_sink_and_still_balance() -> None:
    ledger = Ledger(max_tenants=3)
    tenants = [f"t{n}" for n in range(50)]
    for tenant in tenants:
        ledger.accepted("a", tenant, 2)
        ledger.accepted("b", tenant, 1)
    for tenant in tenants:
        ledger.stored("a", tenant, 1)
        ledger.dropped("b", tenant, 1, reason="x")
    tallies = ledger.tallies()
    assert len(tallies) <= 3 + 2
    held = ledger.by_tally("a", dict.fromkeys(tenants, 1))
    assert sum(held.values()) == 50
    assert all(tallies["a", tenant].imbalance(count) == 0 for (_, tenant), count in held.items())
    assert tallies["a", OTHER_TENANTS].accepted > 2
    assert all(one.imbalance(0) == 0 for key, one in tallies.items() if key[0] == "b")
