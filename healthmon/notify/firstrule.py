"""The first channel comes with a rule, so that it is told of something.  In request threads."""

from __future__ import annotations

from healthmon.notify.models import CERTIFICATE, DOWN, FLAPPING, RECOVERED, Channel
from healthmon.notify.models import NotificationRule as Rule

NAME = "Everything down and recovered"


def make_first_rule(channel: Channel) -> Rule | None:
    """A rule for a channel when there is none at all; None when there is one."""
    if Rule.objects.exists():
        return None
    rule = Rule.objects.create(name=NAME, events=[DOWN, RECOVERED, FLAPPING, CERTIFICATE])
    rule.channels.add(channel)
    return rule
