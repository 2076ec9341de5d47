"""What this room registers when Django is ready."""

from __future__ import annotations


def arm() -> None:
    """Register everything; harmless when called again."""
    from control.outbox.senders import register_sender
    from control.outbox.sources import register_source
    from jobs.webhooks.composing import SENDER
    from jobs.webhooks.sender import WebhookSender
    from jobs.webhooks.unheard import Unheard

    register_sender(SENDER, WebhookSender())
    register_source("job-webhooks", Unheard())
