"""What this room registers when Django is ready."""

from __future__ import annotations


def arm() -> None:
    """Register everything; harmless when called again."""
    from control.outbox.senders import register_sender
    from control.outbox.sources import register_source
    from healthmon.checker.housekeeping import register_task
    from healthmon.notify import checks, noticing, problems, reminders  # noqa: F401 - registers
    from healthmon.notify.composing import SENDER, compose_due
    from healthmon.notify.sender import ChannelSender
    from healthmon.truth.slo import register_burn_hook
    from healthmon.truth.stored import register_flip_hook

    register_sender(SENDER, ChannelSender())
    register_source(SENDER, compose_due)
    register_flip_hook(noticing.on_flips, name=SENDER)
    register_burn_hook(noticing.on_burns, name=SENDER)
    register_task("reminders", reminders.INTERVAL_S, reminders.remind)
    register_task("calendar", reminders.CALENDAR_INTERVAL_S, reminders.look_at_calendar)
    problems.register()
