"""The admin as an operator uses it: a channel in two steps, its test, its rule, its messages."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse
from django.utils import timezone

from control.outbox.enqueue import enqueue
from control.outbox.models import OutboxMessage
from healthmon.notify import problems
from healthmon.notify.models import Channel, NotificationRule
from healthmon.notify.options import plain_options
from healthmon.targets.models import Target
from tests.healthmon.notify.cast import make_channel, make_rule
from tests.healthmon.notify.webserver import answer

pytestmark = pytest.mark.django_db

ADD = "/admin/healthmon/channel/add/"


def page(response) -> str:
    assert response.status_code == 200, response
    return response.content.decode()


def change_url(channel: Channel) -> str:
    return reverse("admin:healthmon_channel_change", args=[channel.pk])


def webhook_fields(**more):
    return {
        "name": "ops",
        "enabled": "on",
        "rate_per_minute": "30",
        "option_url": "https://hooks.example.org/s3cret-path",
        "option_secret": "shared-secret",
        "option_body": '{"text": "$target"}',
        "option_verify_tls": "on",
        **more,
    }


def test_a_channel_is_added_in_two_steps_and_gets_the_first_rule(admin_client):
    text = page(admin_client.get(ADD))
    assert all(word in text for word in ("Webhook", "E-mail", "Slack"))
    assert "shared by" not in text
    text = page(admin_client.get(f"{ADD}?kind=webhook"))
    assert "option_url" in text
    response = admin_client.post(f"{ADD}?kind=webhook", webhook_fields(), follow=True)
    assert "as there was none" in page(response)
    channel = Channel.objects.get()
    assert channel.kind == "webhook"
    assert plain_options(channel)["url"] == "https://hooks.example.org/s3cret-path"
    assert "s3cret" not in str(channel.options) + str(channel.secrets)
    rule = NotificationRule.objects.get()
    assert set(rule.events) >= {"down", "recovered"}
    assert list(rule.channels.all()) == [channel]
    admin_client.post(f"{ADD}?kind=webhook", webhook_fields(name="second"))
    assert NotificationRule.objects.count() == 1


def test_secrets_are_never_shown_and_kept_when_left_empty(admin_client):
    channel = make_channel(url="https://hooks.example.org/s3cret", secret="shared-secret")
    text = page(admin_client.get(change_url(channel)))
    assert "s3cret" not in text
    assert "shared-secret" not in text
    fields = webhook_fields(option_url="", option_secret="", option_body="null")
    admin_client.post(change_url(channel), fields)
    channel.refresh_from_db()
    assert plain_options(channel)["url"] == "https://hooks.example.org/s3cret"
    assert plain_options(channel)["secret"] == "shared-secret"


def test_an_address_is_seen_while_it_is_typed_and_never_again(admin_client):
    def kind_of_field(text: str, name: str) -> str:
        tag = next(one for one in re.findall(r"<input[^>]*>", text) if f'name="{name}"' in one)
        return "text" if 'type="text"' in tag else "password"

    for kind in ("webhook", "slack"):
        assert kind_of_field(page(admin_client.get(f"{ADD}?kind={kind}")), "option_url") == "text"
    text = page(admin_client.post(f"{ADD}?kind=webhook", webhook_fields(rate_per_minute="0")))
    assert kind_of_field(text, "option_secret") == "password"
    assert "s3cret" not in text
    text = page(admin_client.get(change_url(make_channel(url="https://h.example/s3cret"))))
    assert kind_of_field(text, "option_url") == "text"
    assert "s3cret" not in text


def test_a_channel_that_no_rule_names_says_so(admin_client):
    make_rule(make_channel("first"))
    text = page(admin_client.post(f"{ADD}?kind=webhook", webhook_fields(), follow=True))
    channel = Channel.objects.get(name="ops")
    rule_url = f"/admin/healthmon/notificationrule/add/?channels={channel.pk}"
    assert "No rule names ops: it is told nothing." in text
    assert rule_url in text
    text = page(admin_client.get(change_url(channel)))
    assert "it is told nothing" in text
    assert rule_url in text
    chosen = rf'<option value="{channel.pk}" selected>ops</option>'
    assert chosen in page(admin_client.get(rule_url))
    rule = make_rule(channel, "off", enabled=False)
    assert "it is told nothing" in page(admin_client.get(change_url(channel)))
    rule.enabled = True
    rule.save()
    text = page(admin_client.get(change_url(channel)))
    assert "told nothing" not in text
    assert "ready" in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"option_url": "ftp://x/"}, "Must begin with http"),
        ({"option_body": '{"a": "$nope"}'}, "unknown field $nope"),
        ({"option_body": "{not json"}, "valid JSON"),
        ({"option_headers": "Host = x"}, "cannot be set"),
        ({"rate_per_minute": "0"}, "greater than or equal to 1"),
    ],
)
def test_mistakes_are_shown_at_their_field(admin_client, changed, said):
    text = page(admin_client.post(f"{ADD}?kind=webhook", webhook_fields(**changed)))
    assert said in text.replace("&#x27;", "'")
    assert not Channel.objects.exists()


def test_email_is_added_too(admin_client):
    fields = {
        "name": "mail", "enabled": "on", "rate_per_minute": "30", "option_host": "mail.example",
        "option_port": "587", "option_security": "starttls", "option_username": "me",
        "option_password": "hunter2-long", "option_sender": "c@example.org",
        "option_recipients": "a@example.org\nb@example.org", "option_verify_tls": "on",
        "option_subject_prefix": "[Collector]",
    }  # fmt: skip
    admin_client.post(f"{ADD}?kind=email", fields)
    channel = Channel.objects.get()
    assert channel.options["recipients"] == ["a@example.org", "b@example.org"]
    assert "hunter2-long" not in page(admin_client.get(change_url(channel)))


def test_the_test_button_shows_the_answer(admin_client, web):
    channel = make_channel(url=web.url)
    url = reverse("admin:healthmon_channel_test", args=[channel.pk])
    assert "200 thanks" in page(admin_client.post(url, follow=True))
    web.will(answer(404, "no hook for key=s3cret at " + web.url))
    text = page(admin_client.post(url, follow=True))
    assert "answered 404 no hook" in text
    assert web.url not in text
    assert "********" in text
    assert len(web.posted) == 2
    assert b'"test":true' in web.posted[0].body
    channel.options = {"link_base": "https://c.example"}
    channel.save()
    admin_client.post(url)
    link = f'"url":"https://c.example{change_url(channel)}"'
    assert link.encode() in web.posted[2].body
    assert admin_client.get(url).status_code == 405
    assert OutboxMessage.objects.count() == 0


def test_viewers_neither_test_nor_change(client, django_user_model, web):
    user = django_user_model.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(
        *Permission.objects.filter(codename__in=["view_channel", "view_outboxmessage"])
    )
    client.force_login(user)
    channel = make_channel(url=web.url)
    url = reverse("admin:healthmon_channel_test", args=[channel.pk])
    assert client.post(url).status_code == 403
    message = put(channel)
    for name in ("retry", "cancel"):
        url = reverse(f"admin:control_outboxmessage_{name}", args=[message.pk])
        assert client.post(url).status_code == 403
    assert client.get(change_url(channel)).status_code == 200
    assert web.posted == []


def put(channel: Channel, *, state: str = "failed", key: str = "k1") -> OutboxMessage:
    enqueue(
        dedupe_key=key, sender="notify", channel=str(channel.pk), channel_name=channel.name,
        subject=f"DOWN: <b>{key}</b>", payload={"told": {"title": "x"}}, now=timezone.now(),
    )  # fmt: skip
    OutboxMessage.objects.filter(dedupe_key=key).update(
        state=state, last_error="answered 404", attempts=1, finished_at=timezone.now()
    )
    return OutboxMessage.objects.get(dedupe_key=key)


def test_messages_in_trouble_come_first(admin_client):
    channel = make_channel()
    failed = put(channel, key="failed")
    put(channel, key="retried", state="waiting")
    put(channel, key="sent", state="sent")
    text = page(admin_client.get("/admin/control/outboxmessage/"))
    order = [text.index(f"&lt;b&gt;{key}&lt;/b&gt;") for key in ("failed", "retried", "sent")]
    assert order == sorted(order)
    assert "<b>failed" not in text
    detail = page(admin_client.get(f"/admin/control/outboxmessage/{failed.pk}/change/"))
    assert "answered 404" in detail
    assert "Try again now" in detail


def test_retry_and_cancel_by_button_and_in_bulk(admin_client):
    channel = make_channel()
    message = put(channel)
    page(admin_client.post(f"/admin/control/outboxmessage/{message.pk}/retry/", follow=True))
    message.refresh_from_db()
    assert message.state == "waiting"
    chosen = {"action": "cancel", "_selected_action": [message.pk]}
    text = page(admin_client.post("/admin/control/outboxmessage/", chosen, follow=True))
    assert "1 message cancelled." in text
    chosen["action"] = "try_again"
    page(admin_client.post("/admin/control/outboxmessage/", chosen, follow=True))
    message.refresh_from_db()
    assert message.state == "waiting"


def rule_fields(channel: Channel, **more):
    return {
        "name": "nightly", "enabled": "on", "channels": [channel.pk], "events": ["down"],
        "min_severity": "info", "group_wait_s": "5", "reminder_every_s": "0",
        "quiet_from": "22:00", "quiet_until": "07:00", "time_zone": "Europe/Berlin", **more,
    }  # fmt: skip


def test_a_rule_is_added(admin_client):
    channel = make_channel()
    url = "/admin/healthmon/notificationrule/add/"
    assert "recovered, to those who were told" in page(admin_client.get(url))
    admin_client.post(url, rule_fields(channel))
    rule = NotificationRule.objects.get()
    assert rule.events == ["down"]
    text = page(admin_client.get("/admin/healthmon/notificationrule/"))
    assert "22:00 to 07:00 Europe/Berlin" in text


@pytest.mark.parametrize(
    ("typed", "stored", "shown"), [("90", 5400, "90"), ("1.5", 90, "1.5"), ("0", 0, "0")]
)
def test_reminders_are_asked_in_minutes(admin_client, typed, stored, shown):
    fields = rule_fields(make_channel(), reminder_every_s=typed)
    admin_client.post("/admin/healthmon/notificationrule/add/", fields)
    rule = NotificationRule.objects.get()
    assert rule.reminder_every_s == stored
    text = page(admin_client.get(f"/admin/healthmon/notificationrule/{rule.pk}/change/"))
    tag = next(one for one in re.findall(r"<input[^>]*>", text) if "reminder_every_s" in one)
    assert f'value="{shown}"' in tag


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"reminder_every_s": "-1"}, "Between 0 and 43200 minutes"),
        ({"reminder_every_s": "nan"}, "Between 0 and 43200 minutes"),
        ({"reminder_every_s": "1e9"}, "Between 0 and 43200 minutes"),
        ({"time_zone": "berlin"}, "Did you mean Europe/Berlin"),
        ({"quiet_until": ""}, "need both times"),
        ({"quiet_until": "22:00"}, "no quiet hours at all"),
        ({"events": []}, "required"),
        ({"group_wait_s": "601"}, "less than or equal to 600"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(admin_client, changed, said):
    fields = rule_fields(make_channel(), **changed)
    text = page(admin_client.post("/admin/healthmon/notificationrule/add/", fields))
    assert said in text
    assert not NotificationRule.objects.exists()


def test_the_lists_show_what_is_wrong(admin_client):
    channel = make_channel("fine")
    broken = make_channel("broken")
    Channel.objects.filter(pk=broken.pk).update(kind="no.such.KIND")
    put(channel, state="waiting")
    text = page(admin_client.get("/admin/healthmon/channel/"))
    assert "failing, 1 wait" in text
    assert "misconfigured" in text
    assert "COLLECTOR_CHANNEL_KINDS" in page(admin_client.get(change_url(broken)))


def test_problems_are_on_the_dashboard(admin_client):
    assert problems.found() == []
    channel = make_channel()
    Target.objects.create(name="api")
    assert [one.title for one in problems.found()] == ["Nobody is told of incidents"]
    make_rule(channel)
    put(channel)
    put(channel, key="k2", state="waiting")
    titles = [one.title for one in problems.found()]
    assert titles == [
        "1 message could not be delivered by ops",
        "ops does not take messages: 1 wait",
    ]
    text = page(admin_client.get("/admin/"))
    assert re.search(r"1 message could not be delivered by ops", text)
    Channel.objects.update(kind="no.such.KIND")
    assert "Channel ops cannot be used" in [one.title for one in problems.found()]
