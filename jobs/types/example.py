"""The job type that a new installation comes with, to be tried and taken apart.  Pure data."""

from __future__ import annotations

from typing import Any

NAME = "ekyc-verification"
DESCRIPTION = (
    "An example: the checks of a new customer's document, face and name run at the same time, then "
    "a decision is made of what they found. Delete it when you have your own."
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"user_id": {"type": "integer"}},
    "required": ["user_id"],
}
# Stage, name, handler.
STEPS = (
    (1, "document", "jobs.examples.ekyc.document"),
    (1, "face", "jobs.examples.ekyc.face"),
    (1, "sanctions", "jobs.examples.ekyc.sanctions"),
    (2, "decision", "jobs.examples.ekyc.decision"),
)
