"""What is wrong with telling people, for the dashboard.  Runs in request threads of the admin."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Count, Min
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from control.admin.figures import ago
from control.outbox.models import FAILED, WAITING, OutboxMessage
from control.ports.panels import Problem, register_problems
from healthmon.notify.composing import SENDER
from healthmon.notify.models import Channel, NotificationRule
from healthmon.notify.options import problems as option_problems
from healthmon.targets.models import Target

RECENT = timedelta(days=7)
MOST_CHANNELS = 50


def register() -> None:
    """Put the problems on the dashboard."""
    register_problems(found, name="notifications")


def found() -> list[Problem]:
    return [*_failed(), *_failing(), *_misconfigured(), *_nobody()]


def _failed() -> list[Problem]:
    """Messages that nobody got, until somebody retries or cancels them."""
    failed = OutboxMessage.objects.filter(
        sender=SENDER, state=FAILED, finished_at__gte=timezone.now() - RECENT
    )
    rows = failed.order_by().values("channel", "channel_name").annotate(count=Count("pk"))
    return [
        Problem(
            severity="error",
            title=f"{_messages(row['count'])} could not be delivered by {row['channel_name']}",
            cause=_last_error(row["channel"], FAILED),
            remedy="Correct the channel and try again, or cancel them when they are of no use "
            "any more.",
            url=_url("admin:control_outboxmessage_changelist") + "?state__exact=failed",
        )
        for row in rows[:MOST_CHANNELS]
    ]


def _failing() -> list[Problem]:
    waiting = OutboxMessage.objects.filter(sender=SENDER, state=WAITING, attempts__gt=0)
    rows = (
        waiting.order_by()
        .values("channel", "channel_name")
        .annotate(count=Count("pk"), oldest=Min("created_at"))
    )
    return [
        Problem(
            severity="warning",
            title=f"{row['channel_name']} does not take messages: {row['count']} wait",
            cause=f"{_last_error(row['channel'], WAITING)} "
            f"The oldest was made {ago(row['oldest'], timezone.now())}.",
            remedy="Repair what it sends to, or correct its options; what waits is sent then.",
            url=_url("admin:healthmon_channel_change", row["channel"]),
        )
        for row in rows[:MOST_CHANNELS]
    ]


def _misconfigured() -> list[Problem]:
    return [
        Problem(
            severity="error",
            title=f"Channel {channel.name} cannot be used",
            cause=" ".join(wrong.values()),
            remedy="Correct its options.",
            url=_url("admin:healthmon_channel_change", channel.pk),
        )
        for channel in Channel.objects.filter(enabled=True)[:MOST_CHANNELS]
        if (wrong := option_problems(channel))
    ]


def _nobody() -> list[Problem]:
    """Channels that no rule uses, while there is something to tell."""
    if not Target.objects.exists() or not Channel.objects.filter(enabled=True).exists():
        return []
    if NotificationRule.objects.filter(enabled=True, channels__enabled=True).exists():
        return []
    return [
        Problem(
            severity="warning",
            title="Nobody is told of incidents",
            cause="There are channels, but no enabled rule uses one.",
            remedy="Add a notification rule.",
            url=_url("admin:healthmon_notificationrule_changelist"),
        )
    ]


def _last_error(channel: str, state: str) -> str:
    rows = OutboxMessage.objects.filter(sender=SENDER, channel=channel, state=state)
    last = rows.exclude(last_error="").order_by("-pk").values_list("last_error", flat=True).first()
    return last or "It was never tried."


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _url(name: str, *args: object) -> str:
    try:
        return reverse(name, args=[str(arg) for arg in args])
    except NoReverseMatch:
        return ""
