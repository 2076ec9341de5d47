"""What the days that a certificate has left mean for a target.  Pure; any thread."""

from __future__ import annotations

import datetime as dt
from typing import Protocol

from healthmon.probes.http.conditions import GOOD, Verdict
from healthmon.probes.kind import DEGRADED, FAILED

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY_US = 86_400 * 1_000_000


class Days(Protocol):
    """The options that say how many days are too few; 0 asks for nothing."""

    @property
    def cert_days_degraded(self) -> int: ...
    @property
    def cert_days_failed(self) -> int: ...


def judge_certificate(expires_us: int, options: Days, now_us: int) -> Verdict:
    """What the days that a certificate has left mean; 0 days in an option asks for nothing."""
    left_us = expires_us - now_us
    for days, outcome in (
        (options.cert_days_failed, FAILED),
        (options.cert_days_degraded, DEGRADED),
    ):
        if days and left_us < days * _DAY_US:
            day = (_EPOCH + dt.timedelta(microseconds=expires_us)).date()
            if left_us < 0:
                return outcome, f"the certificate expired on {day}"
            left = left_us // _DAY_US
            days_left = f"{left} day{'' if left == 1 else 's'}"
            return outcome, f"the certificate expires on {day}, in {days_left}"
    return GOOD
