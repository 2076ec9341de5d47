"""The states of a job and of a step, and the words that say why.

    submit --> scheduled --its time came--> queued --claimed--> running --> succeeded
                   ^                          ^                    |
                   +--- to be tried again ----|--------------------+--> dead --> discarded
                                              +--- given back -----+--> cancelled

A runner gives a job back when it stops: that costs no attempt.  `dead` and `cancelled` jobs go back
to `queued` when somebody asks for another try; `discarded` is an operator's word on a dead job.
"""

from __future__ import annotations

SCHEDULED = "scheduled"
QUEUED = "queued"
RUNNING = "running"
SUCCEEDED = "succeeded"
DEAD = "dead"
CANCELLED = "cancelled"
DISCARDED = "discarded"

OPEN = (SCHEDULED, QUEUED, RUNNING)
FINISHED = (SUCCEEDED, DEAD, CANCELLED, DISCARDED)
STATES = (*OPEN, *FINISHED)

# A step's; a step that was not begun has no row.
STEP_RUNNING = "running"
STEP_SUCCEEDED = "succeeded"
STEP_FAILED = "failed"  # for good
STEP_RETRYING = "retrying"  # it failed, and is called again by the next attempt
STEP_SKIPPED = "skipped"  # the job was decided without it
STEP_STATES = (STEP_RUNNING, STEP_SUCCEEDED, STEP_FAILED, STEP_RETRYING, STEP_SKIPPED)

# Why a job is dead or cancelled, in one word; the sentence is in its `error`.
PERMANENT = "permanent"  # a failure that another attempt would not mend
ATTEMPTS = "attempts"  # as many as the type allows failed
DEADLINE = "deadline"  # it had not ended by then
LOST = "lost"  # its runners died under it, as often as the type allows attempts
TYPE = "type"  # its type is gone, disabled, or cannot be used
ASKED = "asked"  # cancelled by somebody

# Priorities: 9 is claimed first.
LOWEST_PRIORITY, DEFAULT_PRIORITY, HIGHEST_PRIORITY = 0, 5, 9
