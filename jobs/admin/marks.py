"""How states of jobs, steps and breakers are shown: always as a word, the colour beside it.

Pure functions.
"""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString

from jobs import states

_TAGS = {
    states.SCHEDULED: "other",
    states.QUEUED: "other",
    states.RUNNING: "info",
    states.SUCCEEDED: "up",
    states.DEAD: "down",
    states.CANCELLED: "warn",
    states.DISCARDED: "other",
    states.STEP_FAILED: "down",
    states.STEP_RETRYING: "warn",
    states.STEP_SKIPPED: "other",
}
_DOTS = {"closed": "good", "open": "bad", "half_open": "warn"}

# What a word of a state means to who reads it.
MEANINGS = {
    states.SCHEDULED: "It waits for its time, or for its next attempt.",
    states.QUEUED: "It waits for a worker.",
    states.RUNNING: "A worker has it.",
    states.SUCCEEDED: "It ended well.",
    states.DEAD: "It failed for good.",
    states.CANCELLED: "Somebody had it cancelled.",
    states.DISCARDED: "It was dead, and somebody gave it up.",
}
REASON_WORDS = {
    states.PERMANENT: "failed for good",
    states.ATTEMPTS: "attempts used up",
    states.DEADLINE: "deadline passed",
    states.LOST: "runners lost",
    states.TYPE: "type cannot be used",
    states.ASKED: "cancelled on request",
}
REASONS = {
    states.PERMANENT: "A failure that another attempt would not mend.",
    states.ATTEMPTS: "As many attempts as its type allows failed.",
    states.DEADLINE: "It had not ended by its deadline.",
    states.LOST: "Its runners died under it as often as its type allows attempts.",
    states.TYPE: "Its type is gone, is disabled, or cannot be used.",
    states.ASKED: "Somebody asked for it.",
}
REMEDIES = {
    states.PERMANENT: "Correct the payload, the type or what it calls; then submit it anew, or "
    "retry it: steps that succeeded are kept.",
    states.ATTEMPTS: "See that what it calls works again, then retry: steps that succeeded are "
    "kept.",
    states.DEADLINE: "Retry it, or give its type a longer deadline.",
    states.LOST: "See why the processes that ran it ended (memory, a crash in a handler) before "
    "it is retried.",
    states.TYPE: "Repair or enable the type, then retry.",
}


def reason_word(reason: str) -> str:
    return REASON_WORDS.get(reason, reason)


def state_mark(state: str) -> SafeString:
    return format_html('<span class="tag tag-{}">{}</span>', _TAGS.get(state, "other"), state)


def breaker_mark(state: str) -> SafeString:
    return format_html(
        '<span class="dot dot-{}" aria-hidden="true"></span>{}',
        _DOTS.get(state, "idle"),
        state.replace("_", "-") or "not known",
    )
