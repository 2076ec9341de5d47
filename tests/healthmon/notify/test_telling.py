"""Who is told of what, and when: groups, recoveries, parents, flapping, quiet hours, reminders."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from django.db import transaction

from control.outbox.models import OutboxMessage
from healthmon.notify import reminders
from healthmon.notify.composing import compose_due
from healthmon.notify.models import Notice
from healthmon.notify.noticing import on_burns, on_flips
from healthmon.notify.waits import growing
from healthmon.targets.models import Tag, TargetGroup
from healthmon.truth.incidents import acknowledge
from healthmon.truth.models import Incident, IncidentEntry, TargetState
from tests.healthmon.notify.cast import make_channel, make_rule, play, waiting
from tests.healthmon.notify.deliveries import HOSTILE

pytestmark = pytest.mark.django_db

EVERYTHING = ["down", "recovered", "degraded", "unknown", "flapping", "slo", "certificate"]


def test_one_outage_is_two_messages():
    channel = make_channel()
    make_rule(channel, group_wait_s=5)
    with play() as stage:
        api = stage.target()
        stage.flip(api, "down")
        assert stage.titles(after=4) == []
        told = stage.composed(after=1)
        assert [one["title"] for one in told] == ["DOWN: api"]
        assert told[0]["events"][0]["reason"] == "connection refused"
        assert stage.titles(after=600) == []
        stage.flip(api, "up")
        told = stage.composed(after=5)
        assert [one["title"] for one in told] == ["RECOVERED: api"]
        assert told[0]["events"][0]["duration_s"] == 605.0
        assert stage.titles(after=600) == []


def test_one_message_names_many_targets():
    make_rule(make_channel(), group_wait_s=5)
    with play() as stage:
        targets = [stage.target(f"t{number:03}") for number in range(120)]
        stage.flips(*[(one, "down") for one in targets[:60]])
        stage.wait(3)
        stage.flips(*[(one, "down") for one in targets[60:]])
        told = stage.composed(after=2)
        assert len(told) == 1
        assert told[0]["title"] == "120 down: t000, t001, t002 and 117 more"
        assert told[0]["path"] == "/admin/healthmon/incident/?state=open"
        assert len(told[0]["events"]) == 50
        assert told[0]["count"] == 120


def test_keys_say_what_a_message_is_about():
    channel = make_channel()
    make_rule(channel, group_wait_s=0)
    with play() as stage:
        api = stage.target()
        stored = stage.flip(api, "down")
        stage.titles()
        assert stored.incident is not None
        key = OutboxMessage.objects.get().dedupe_key
        assert key == f"{channel.pk}:{api.pk}:i{stored.incident.pk}:down"


def test_the_same_flip_again_is_no_second_message():
    make_rule(make_channel(), group_wait_s=0)
    with play() as stage:
        stored = stage.flip(stage.target(), "down")
        assert stage.titles() == ["DOWN: api"]
        on_flips([stored])
        assert stage.titles() == []


def test_nothing_is_told_of_flips_that_were_not_kept():
    make_rule(make_channel(), group_wait_s=0)
    with play() as stage:
        api = stage.target()
        with transaction.atomic():
            stage.flip(api, "down")
            transaction.set_rollback(True)
        assert stage.titles() == []
        assert Notice.objects.count() == 0


def test_two_rules_for_one_channel_tell_once_and_soonest():
    channel = make_channel()
    make_rule(channel, "slow", group_wait_s=60)
    make_rule(channel, "quick", group_wait_s=1)
    with play() as stage:
        stage.flip(stage.target(), "down")
        told = stage.composed(after=1)
        assert [one["rule"] for one in told] == ["quick"]
        assert stage.titles(after=600) == []


def test_rules_choose_by_tag_group_severity_and_event():
    tag, group = Tag.objects.create(name="web"), TargetGroup.objects.create(name="shop")
    by_tag = make_rule(make_channel("tagged"), "tag", group_wait_s=0)
    by_tag.tags.add(tag)
    by_group = make_rule(make_channel("grouped"), "group", group_wait_s=0)
    by_group.groups.add(group)
    make_rule(make_channel("grave"), "grave", group_wait_s=0, min_severity="critical")
    make_rule(make_channel("other"), "other", group_wait_s=0, events=["unknown"])
    make_rule(make_channel("off"), "off", group_wait_s=0, enabled=False)
    with play() as stage:
        tagged = stage.target("tagged", severity="info")
        tagged.tags.add(tag)
        grouped = stage.target("grouped", severity="warning", group=group)
        grave = stage.target("grave", severity="critical")
        stage.flips((tagged, "down"), (grouped, "down"), (grave, "down"))
        compose_due(stage.now)
        told = OutboxMessage.objects.values_list("channel_name", "subject")
        assert set(told) == {
            ("tagged", "DOWN: tagged"),
            ("grouped", "DOWN: grouped"),
            ("grave", "DOWN: grave"),
        }


def test_a_recovery_goes_only_to_those_who_were_told():
    first = make_channel("first")
    make_rule(first, "first", group_wait_s=0, events=EVERYTHING)
    with play() as stage:
        api = stage.target()
        stage.flip(api, "down")
        assert stage.titles() == ["DOWN: api"]
        make_rule(make_channel("late"), "late", group_wait_s=0, events=EVERYTHING)
        stage.flip(api, "up")
        assert stage.titles() == ["RECOVERED: api"]
        assert OutboxMessage.objects.latest("pk").channel_name == "first"


@pytest.mark.parametrize("state", ["waiting", "failed", "cancelled"])
def test_a_recovery_is_told_to_those_who_may_have_heard(state):
    make_rule(make_channel(), group_wait_s=0)
    with play() as stage:
        api = stage.target()
        stage.flip(api, "down")
        assert stage.titles() == ["DOWN: api"]
        OutboxMessage.objects.update(state=state, attempts=2)
        stage.flip(api, "up")
        compose_due(stage.now)
        assert OutboxMessage.objects.latest("pk").subject == "RECOVERED: api"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_recovery_from_what_was_never_sent_is_not_told_and_the_timeline_says_so(state):
    make_rule(make_channel(), group_wait_s=0)
    with play() as stage:
        api = stage.target()
        stage.flip(api, "down")
        assert stage.titles() == ["DOWN: api"]
        OutboxMessage.objects.update(state=state, attempts=0)
        stage.flip(api, "up")
        assert stage.titles() == []
        assert Notice.objects.get(event="recovered").why.startswith("The channel had not been told")
        entry = IncidentEntry.objects.get(kind="notified")
        assert entry.text.startswith("ops was not told of the end")


def test_down_and_up_within_the_wait_are_told_in_one_message():
    make_rule(make_channel(), group_wait_s=30)
    with play() as stage:
        api = stage.target()
        stage.flip(api, "down")
        stage.wait(10)
        stage.flip(api, "up")
        told = stage.composed(after=20)
        assert [one["title"] for one in told] == ["DOWN, then RECOVERED: api"]
        assert [one["event"] for one in told[0]["events"]] == ["down", "recovered"]
        assert told[0]["counts"] == {"down": 1, "recovered": 1}
        assert not Notice.objects.filter(is_open=True).exists()
        assert stage.titles(after=600) == []


def test_no_recovery_overtakes_its_trouble_by_another_rule():
    channel = make_channel()
    make_rule(channel, "slow", group_wait_s=60, events=["down"])
    make_rule(channel, "quick", group_wait_s=0, events=["recovered"])
    with play() as stage:
        api = stage.target()
        stage.flip(api, "down")
        stage.flip(api, "up")
        assert stage.titles(after=30) == []
        assert stage.titles(after=30) == ["DOWN, then RECOVERED: api"]
        stage.flip(api, "down")
        assert stage.titles(after=120) == ["DOWN: api"]
        stage.flip(api, "up")
        assert stage.titles() == ["RECOVERED: api"]


def test_a_target_that_changed_often_is_counted():
    make_rule(make_channel(), group_wait_s=30)
    with play() as stage:
        api = stage.target()
        for to in ("down", "up", "down", "up"):
            stage.flip(api, to)
        assert stage.titles(after=30) == ["2 down: api; 2 recovered: api"]


def test_a_mass_recovery_is_a_few_messages():
    make_rule(make_channel(), group_wait_s=5)
    with play() as stage:
        targets = [stage.target(f"t{number:02}") for number in range(60)]
        stage.flips(*[(one, "down") for one in targets])
        assert len(stage.titles(after=5)) == 1
        told = []
        for target in targets:  # one a second
            stage.flip(target, "up")
            told += stage.composed(after=1)
        for _ in range(120):
            told += stage.composed(after=1)
        assert 3 <= len(told) <= 5
        assert sum(one["count"] for one in told) == 60
        stage.wait(600)
        stage.flip(targets[0], "down")
        assert stage.titles(after=5) == ["DOWN: t00"]


def test_what_is_new_does_not_wait_for_more_of_the_old():
    make_rule(make_channel(), group_wait_s=5)
    with play() as stage:
        targets = [stage.target(f"t{number}") for number in range(9)]
        stage.flips(*[(one, "down") for one in targets[:8]])
        assert len(stage.titles(after=5)) == 1
        for target in targets[:5]:
            stage.flip(target, "up")
            stage.composed(after=200)
        stage.flip(targets[5], "up")
        assert stage.titles(after=5) == []
        stage.flip(targets[8], "down")  # the last word of down is long ago
        assert stage.titles(after=5) == ["1 down: t8; 1 recovered: t5"]


def test_each_at_once_stays_each_at_once():
    make_rule(make_channel(), group_wait_s=0)
    with play() as stage:
        for number in range(5):
            stage.flip(stage.target(f"t{number}"), "down")
            assert stage.titles() == [f"DOWN: t{number}"]


def test_the_wait_grows_to_two_minutes_and_never_shrinks():
    assert [growing(5, told) for told in range(7)] == [5, 10, 20, 40, 80, 120, 120]
    assert growing(600, 3) == 600
    assert growing(0.001, 10**9) == 120


def test_a_message_says_where_and_what_to_do():
    make_rule(make_channel(), group_wait_s=0)
    with play() as stage:
        api = stage.target(notes="restart it\ncall Ann", severity="warning")
        stage.flip(api, "down")
        (event,) = stage.composed()[0]["events"]
        assert (event["address"], event["severity"]) == ("http://x/", "warning")
        assert event["notes"] == "restart it\ncall Ann"
        stage.flip(api, "up")
        assert stage.composed()[0]["events"][0]["notes"] == ""


def test_degraded_and_unknown_are_told_and_so_is_their_end():
    make_rule(make_channel(), group_wait_s=0, events=EVERYTHING)
    with play() as stage:
        api = stage.target()
        for trouble in ("degraded", "unknown"):
            stage.flip(api, trouble)
            assert stage.titles() == [f"{trouble.upper()}: api"]
            stage.flip(api, "up")
            assert stage.titles() == ["RECOVERED: api"]


def test_the_honest_word_for_another_end():
    make_rule(make_channel(), group_wait_s=0)
    with play() as stage:
        for name, to, word in (
            ("a", "paused", "PAUSED"),
            ("b", "maintenance", "IN MAINTENANCE"),
            ("c", "degraded", "RECOVERED, DEGRADED"),
        ):
            target = stage.target(name)
            stage.flip(target, "down")
            stage.titles()
            stage.flip(target, to)
            assert stage.titles() == [f"{word}: {name}"]


def test_a_child_is_not_alerted_while_its_parent_is_down():
    make_rule(make_channel(), group_wait_s=5)
    with play() as stage:
        router, child = stage.target("router"), stage.target("child")
        child.parents.add(router)
        stage.flip(child, "down")  # found before its parent was
        stage.wait(3)
        stage.flip(router, "down")
        assert stage.titles(after=3) == ["DOWN: router"]
        assert waiting() == [("down", "parent")]
        for _ in range(10):
            assert stage.titles(after=31) == []
        stage.flip(child, "up")
        stage.flip(router, "up")
        assert stage.titles(after=6) == ["RECOVERED: router"]
        assert stage.titles(after=600) == []


def test_a_child_that_stays_down_after_its_parent_is_told_then():
    make_rule(make_channel(), group_wait_s=0)
    with play() as stage:
        router, child = stage.target("router"), stage.target("child")
        child.parents.add(router)
        stage.flip(router, "down")
        stage.flip(child, "down", suppressed_by=router)
        assert stage.titles() == ["DOWN: router"]
        assert stage.titles(after=40) == []
        stage.flip(router, "up")
        assert stage.titles() == ["RECOVERED: router"]
        assert stage.titles(after=31) == []  # a moment of grace
        assert stage.titles(after=61) == ["DOWN: child"]
        stage.flip(child, "up")
        assert stage.titles() == ["RECOVERED: child"]


def test_one_that_flaps_is_told_once_and_how_it_stands_in_the_end():
    make_rule(make_channel(), group_wait_s=0, events=EVERYTHING)
    with play() as stage:
        api = stage.target()
        stage.flip(api, "down")
        assert stage.titles() == ["DOWN: api"]
        stage.flip(api, "up", flapping=True)
        assert stage.titles() == ["FLAPPING: api"]
        for to in ("down", "up", "down", "up"):
            stage.flip(api, to, flapping=True)
            assert stage.titles(after=5) == []
        stage.flip(api, "up")
        assert stage.titles() == ["RECOVERED: api"]


def test_one_that_is_down_when_it_stops_flapping_is_told_so():
    make_rule(make_channel(), group_wait_s=0)  # its rule does not name flapping
    with play() as stage:
        api = stage.target()
        stage.flip(api, "down", flapping=True)
        stage.flip(api, "up", flapping=True)
        stage.flip(api, "down", flapping=True)
        assert stage.titles() == []
        stage.flip(api, "down")
        assert stage.titles() == ["DOWN: api"]


def quiet_rule(channel, **fields):
    return make_rule(
        channel,
        **{
            "group_wait_s": 0,
            "quiet_from": time(22),
            "quiet_until": time(7),
            "time_zone": "Europe/Berlin",
            **fields,
        },
    )


def test_quiet_hours_hold_and_tell_a_summary():
    quiet_rule(make_channel())
    with play(datetime(2026, 11, 22, 23, 30, tzinfo=UTC)) as stage:  # 00:30 in Berlin
        one, two, three = (stage.target(name) for name in ("one", "two", "three"))
        stage.flips((one, "down"), (two, "down"))
        stage.wait(3600)
        stage.flip(one, "up")
        stage.flip(three, "down")
        assert stage.titles(after=4 * 3600) == []
        told = stage.composed(after=3600 + 1800)
        assert [one["title"] for one in told] == [
            "Summary of quiet hours: 3 down: one, two and 1 more; 1 recovered: one"
        ]
        assert told[0]["summary_of_quiet_hours"]
        assert {one["target"] for one in told[0]["events"]} == {"one", "two", "three"}
        assert stage.titles(after=3600) == []


def test_a_wait_that_ends_in_quiet_hours_is_held_too():
    quiet_rule(make_channel(), group_wait_s=60)
    with play(datetime(2026, 11, 22, 20, 59, 30, tzinfo=UTC)) as stage:
        stage.flip(stage.target(), "down")
        assert stage.titles(after=3600) == []
        assert stage.titles(after=8 * 3600) == []
        assert stage.titles(after=1800) == ["Summary of quiet hours: DOWN: api"]


def test_reminders_until_it_is_acknowledged():
    make_rule(make_channel(), group_wait_s=0, reminder_every_s=600)
    with play() as stage:
        stage.flip(stage.target(), "down")
        assert stage.titles() == ["DOWN: api"]
        stage.wait(599)
        assert reminders.remind(stage.now) == 0
        stage.wait(1)
        assert reminders.remind(stage.now) == 1
        assert reminders.remind(stage.now) == 0
        assert stage.titles() == ["STILL DOWN: api"]
        stage.wait(2000)  # nobody kept house: only the last is made
        assert reminders.remind(stage.now) == 1
        assert stage.titles() == ["STILL DOWN: api"]
        stage.wait(600)
        assert reminders.remind(stage.now) == 1
        acknowledge(Incident.objects.get(), None)
        assert stage.titles() == []  # made, and then acknowledged
        stage.wait(6000)
        assert reminders.remind(stage.now) == 0


def test_more_than_a_run_makes_are_reminded_of_in_the_next(monkeypatch):
    make_rule(make_channel(), group_wait_s=0, reminder_every_s=600)
    monkeypatch.setattr(reminders, "MOST_REMINDED", 3)
    with play() as stage:
        stage.flips(*[(stage.target(f"t{number}"), "down") for number in range(5)])
        stage.titles()
        stage.wait(600)
        assert [reminders.remind(stage.now) for _ in range(3)] == [3, 2, 0]


def test_no_reminder_in_quiet_hours_nor_after_the_end():
    quiet_rule(make_channel(), reminder_every_s=600)
    with play(datetime(2026, 11, 22, 20, 30, tzinfo=UTC)) as stage:
        api = stage.target()
        stage.flip(api, "down")
        assert stage.titles() == ["DOWN: api"]
        stage.wait(3600)
        assert reminders.remind(stage.now) == 0
        stage.wait(9 * 3600)
        assert reminders.remind(stage.now) == 1
        stage.flip(api, "up")
        assert stage.titles() == ["RECOVERED: api"]
        stage.wait(6000)
        assert reminders.remind(stage.now) == 0


def test_certificates_are_told_at_each_mark_once():
    make_rule(make_channel(), group_wait_s=0, events=EVERYTHING)
    with play() as stage:
        api = stage.target()
        expires = stage.now + timedelta(days=15)
        TargetState.objects.filter(target=api).update(cert_expires_at=expires)
        told = []
        for _ in range(40):
            reminders.look_at_calendar(stage.now)
            told += [one["events"][0]["reason"][:12] for one in stage.composed(after=12 * 3600)]
        assert told == [
            "in 14 days, ",
            "in 7 days, o",
            "in 3 days, o",
            "in 1 day, on",
            "it has expir",
        ]


def test_an_objective_at_risk_is_told_once():
    from healthmon.truth.models import BurnAlert
    from healthmon.truth.slo import BurnEvent

    make_rule(make_channel(), group_wait_s=0, events=EVERYTHING)
    with play() as stage:
        api = stage.target(slo_percent=99.9)
        alert = BurnAlert.objects.create(target=api, pace="fast", fired_at=stage.now, burn=20.0)
        for fired in (True, True, False):
            on_burns([BurnEvent(alert=alert, target=api, fired=fired)])
        assert stage.titles() == ["OBJECTIVE AT RISK: api"]


def test_a_channel_that_was_switched_off_meanwhile_is_told_nothing():
    channel = make_channel()
    make_rule(channel, group_wait_s=5)
    with play() as stage:
        stage.flip(stage.target(), "down")
        channel.enabled = False
        channel.save()
        assert stage.titles(after=5) == []
        assert Notice.objects.get().why == "The channel is switched off."


def test_a_rule_that_is_gone_does_not_lose_what_waits():
    channel = make_channel()
    rule = make_rule(channel, group_wait_s=5)
    with play() as stage:
        stage.flip(stage.target(), "down")
        rule.delete()
        assert stage.titles(after=5) == ["DOWN: api"]


def test_a_hostile_target_makes_a_message():
    make_rule(make_channel(), group_wait_s=0)
    with play() as stage:
        stage.flip(stage.target(HOSTILE[:200]), "down", reason="nul \0 and \ud800 half")
        told = stage.composed()
        assert "\n" not in told[0]["title"]
        assert "\\u0000" in told[0]["events"][0]["reason"]


@pytest.mark.long
def test_thousands_at_once_are_bounded_work(django_assert_max_num_queries):
    rule = make_rule(make_channel(), group_wait_s=0)
    rule.tags.add(Tag.objects.create(name="web"))
    with play() as stage:
        targets = [stage.target(f"t{number:04}") for number in range(300)]
        for target in targets:
            target.tags.add(*rule.tags.all())
        stored = [stage._store(one, "down", False, None, "x") for one in targets]
        with django_assert_max_num_queries(20), transaction.atomic():
            on_flips(stored)
        with django_assert_max_num_queries(30):
            compose_due(stage.now)
        assert OutboxMessage.objects.get().subject == ("300 down: t0000, t0001, t0002 and 297 more")


def test_what_has_ended_is_forgotten_and_what_lasts_is_not():
    make_rule(make_channel(), group_wait_s=0)
    with play() as stage:
        over, lasts = stage.target("over"), stage.target("lasts")
        stage.flips((over, "down"), (lasts, "down"))
        stage.titles()
        stage.flip(over, "up")
        stage.titles()
        stage.wait(31 * 86_400)
        assert reminders.forget_old(stage.now) == 2
        assert [one.target_id for one in Notice.objects.all()] == [lasts.pk]
        stage.flip(lasts, "up")
        assert stage.titles() == ["RECOVERED: lasts"]
