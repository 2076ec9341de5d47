"""What events say where no runner had the word."""

from __future__ import annotations

GIVEN_BACK = "given back by its runner, which stops; the attempt does not count"
LOST_QUEUED = "its runner died; the attempt counts"
LOST_DEAD = "its runner died, in {attempts} attempts: no more are allowed"
HELD = "held {times} times: {text}"
TIME_CAME = "its time came"
PULLED_BACK = "the clock was set back: its wait was reckoned anew"
OVERDUE = "its deadline was over before it could run"
