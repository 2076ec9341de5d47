"""Another server's word on when to come back."""

from __future__ import annotations

import pytest

from control.outbound.retryafter import retry_after_s

NOW_S = 1_763_800_000  # 2025-11-22 08:26:40 UTC


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Sat, 22 Nov 2025 08:27:40 GMT", 60.0),
        ("Sat, 22 Nov 2025 08:00:00 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 400, None),
        ("tomorrow", None),
        ("Sat, 99 Nov 2025 99:99:99 GMT", None),
    ],
)
def test_seconds_or_a_date(text, seconds):
    assert retry_after_s(text, now_s=NOW_S) == seconds


def test_a_date_is_reckoned_from_the_answers_own():
    later = "Sat, 22 Nov 2025 08:27:40 GMT"
    assert retry_after_s(later, now_s=0, date="Sat, 22 Nov 2025 08:27:30 GMT") == 10
    assert retry_after_s(later, now_s=NOW_S, date="never") == 60
