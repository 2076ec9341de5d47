"""The list of targets: what stands first, what is shown, what it costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from healthmon.admin import statuses
from healthmon.targets.models import SLOTS, slot_of
from tests.healthmon.admin.cast import (
    EVIL,
    group,
    living_checker,
    make_results,
    make_rollups,
    make_target,
)

pytestmark = pytest.mark.django_db

LIST = "/admin/healthmon/target/"


def names(response: Any) -> list[str]:
    return [row.name for row in response.context["cl"].result_list]


def status_words(response: Any) -> dict[str, str]:
    return {row.name: row.shown.status for row in response.context["cl"].result_list}


def test_problems_stand_first(admin_client: Client) -> None:
    living_checker()
    for name, status in (("a", "up"), ("b", "unknown"), ("c", "degraded"), ("d", "down")):
        make_target(name, status)
    make_target("e", paused=True)
    make_target("f")
    assert names(admin_client.get(LIST)) == ["d", "c", "b", "f", "a", "e"]


def test_a_status_is_a_word_and_not_a_colour_alone(admin_client: Client) -> None:
    living_checker()
    make_target("shop", "down")
    body = admin_client.get(LIST).content.decode()
    assert re.search(r'class="status status-down"><i aria-hidden="true"></i>down<', body)


def test_what_the_rows_of_a_page_show(admin_client: Client) -> None:
    living_checker()
    target = make_target("shop", "up", tags=("web",), group=group("shops"))
    make_results(target, 2)
    make_rollups(target)
    response = admin_client.get(LIST)
    (row,) = response.context["cl"].result_list
    assert row.p95_ms == pytest.approx(20 * 1.9 * 1.4, rel=0.4)
    assert row.day == 1.0
    assert any(value is not None for value in row.spark)
    assert row.last_text.endswith("ago")
    assert row.next_text.startswith("in ")
    body = response.content.decode()
    assert "shops" in body
    assert ">web<" in body
    assert '<svg class="sparkline"' in body


def test_the_number_of_queries_does_not_grow_with_the_rows(admin_client: Client) -> None:
    living_checker()

    def queries() -> int:
        with (
            CaptureQueriesContext(connections["default"]) as control,
            CaptureQueriesContext(connections["records"]) as records,
        ):
            assert admin_client.get(LIST).status_code == 200
        return len(control) + len(records)

    make_target("first", "up", tags=("web",))
    few = queries()
    for number in range(40):
        target = make_target(f"t{number}", "up", tags=("web", f"tag{number}"))
        make_rollups(target, hours=3)
    assert queries() == few


def test_a_page_has_a_hundred(admin_client: Client) -> None:
    living_checker()
    for number in range(103):
        make_target(f"t{number:03}")
    assert len(names(admin_client.get(LIST))) == 100
    assert names(admin_client.get(LIST, {"p": 2})) == ["t100", "t101", "t102"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "down"}, ["bank"]),
        ({"status": "problems"}, ["bank"]),
        ({"status": "new"}, ["fresh"]),
        ({"status": "paused"}, ["asleep"]),
        ({"kind": "tcp"}, ["asleep"]),
        ({"tag": "web"}, ["bank", "shop"]),
        ({"group": "-"}, ["bank", "fresh", "asleep"]),
        ({"severity": "info"}, ["bank"]),
        ({"paused": "yes"}, ["asleep"]),
        ({"owner": "-"}, ["bank", "fresh", "shop", "asleep"]),
        ({"q": "BANK"}, ["bank"]),
        ({"q": "10.0.0.7"}, ["shop"]),
        ({"status": "", "kind": "", "tag": ""}, ["bank", "fresh", "shop", "asleep"]),
        ({"status": "nonsense"}, []),
        ({"tag": "absent"}, []),
        ({"group": "x"}, []),
    ],
)
def test_filters(admin_client: Client, query: dict[str, str], expected: list[str]) -> None:
    living_checker()
    make_target("shop", "up", tags=("web", "eu"), group=group("shops"), address="http://10.0.0.7/")
    make_target("bank", "down", tags=("web",), severity="info")
    make_target("fresh")
    make_target("asleep", kind="tcp", paused=True)
    assert names(admin_client.get(LIST, query)) == expected


def test_a_group_is_chosen_by_its_id(admin_client: Client) -> None:
    make_target("shop", group=group("shops"))
    make_target("bank")
    assert names(admin_client.get(LIST, {"group": str(group("shops").pk)})) == ["shop"]


def test_without_a_checker_a_status_is_unknown(admin_client: Client) -> None:
    living_checker(seen_ago_s=600)
    make_target("shop", "up")
    make_target("bank", "down")
    make_target("fresh")
    make_target("asleep", "paused", paused=True)
    response = admin_client.get(LIST)
    assert status_words(response) == {
        "bank": "unknown", "shop": "unknown", "fresh": "new", "asleep": "paused",
    }  # fmt: skip
    assert "No checker has looked since" in response.content.decode()
    assert names(admin_client.get(LIST, {"status": "down"})) == []
    assert set(names(admin_client.get(LIST, {"status": "unknown"}))) == {"bank", "shop"}
    found = statuses.counts(statuses.watch())
    assert {status: count for status, count in found.items() if count} == {
        "unknown": 2, "new": 1, "paused": 1,
    }  # fmt: skip


def test_a_status_is_unknown_only_in_the_slots_that_nobody_has(admin_client: Client) -> None:
    from healthmon.leases.models import ProbeSlot

    living_checker()
    targets = [make_target(f"t{number}", "down") for number in range(6)]
    lost = targets[0]
    ProbeSlot.objects.filter(slot=slot_of(lost.pk)).update(expires_at=None)
    gone = {target.name for target in targets if slot_of(target.pk) == slot_of(lost.pk)}
    assert len(gone) < len(targets) <= SLOTS
    assert set(names(admin_client.get(LIST, {"status": "unknown"}))) == gone
    assert set(names(admin_client.get(LIST, {"status": "down"}))).isdisjoint(gone)
    found = statuses.counts(statuses.watch())
    assert found["unknown"] == len(gone)
    assert found["down"] == len(targets) - len(gone)


def test_a_late_lease_is_not_yet_a_lost_one() -> None:
    living_checker(seen_ago_s=15)
    assert statuses.watch().abandoned == {}


def test_names_from_outside_are_inert(admin_client: Client) -> None:
    make_target(EVIL, "down", reason=EVIL, address=EVIL, tags=[EVIL[:60]])
    body = admin_client.get(LIST).content.decode()
    assert "<img src=x" not in body
    assert "<script>alert" not in body


def test_whoever_may_only_view_sees_it_and_can_do_nothing(
    client_who_may: Callable[..., Client],
) -> None:
    target = make_target("shop", "up")
    client = client_who_may("view_target")
    response = client.get(LIST)
    assert names(response) == ["shop"]
    choices = dict(response.context["action_form"].fields["action"].choices)
    assert set(choices) <= {"", "export"}
    chosen = {"action": "pause", "_selected_action": [target.pk], "index": "0"}
    client.post(LIST, chosen)
    target.refresh_from_db()
    assert not target.paused


def test_whoever_may_nothing_sees_nothing(client_who_may: Callable[..., Client]) -> None:
    target = make_target("shop")
    client = client_who_may()
    assert client.get(LIST).status_code == 403
    assert client.get(f"{LIST}{target.pk}/").status_code == 403
