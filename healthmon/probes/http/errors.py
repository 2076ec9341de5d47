"""What goes wrong with an answer, in one sentence that an operator can act upon."""

from __future__ import annotations


class AnswerError(Exception):
    """The target answered badly, or not to the end; the text is one sentence without secrets."""
