"""Severities by whatever name they are sent, as OpenTelemetry numbers.

Words are understood in any case.  A number in `level` is one of Python's logging (10 DEBUG to
50 CRITICAL), in `severity` one of OpenTelemetry's (1 to 24).  What is not understood is INFO:
a level is never a reason to refuse a record.
"""

from __future__ import annotations

from pipeline.record import DEBUG, ERROR, FATAL, INFO, TRACE, WARN

_WORDS = {
    TRACE: ("trace", "verbose", "finest", "finer", "silly", "t", "v"),
    DEBUG: ("debug", "dbg", "fine", "config", "d"),
    INFO: ("info", "information", "informational", "notice", "log", "success", "default", "i", "n"),
    WARN: ("warn", "warning", "wrn", "w"),
    ERROR: ("error", "err", "eror", "severe", "failure", "e"),
    FATAL: ("fatal", "critical", "crit", "panic", "emerg", "emergency", "alert", "dpanic", "f"),
}


class _Severities(dict[str | int | None, int]):
    """Known spellings directly; the rest through `__missing__`, which keeps nothing."""

    def __init__(self, numbers: dict[int, int]) -> None:
        super().__init__({None: INFO})
        for severity, words in _WORDS.items():
            for word in words:
                for spelling in (word, word.upper(), word.capitalize()):
                    self[spelling] = severity
        for number, severity in numbers.items():
            self[number] = severity
            self[str(number)] = severity

    def __missing__(self, key: str | int | None) -> int:
        if isinstance(key, str):
            return self.get(key.strip().lower(), INFO)
        return INFO


def _python_levels() -> dict[int, int]:
    levels = {}
    for number in range(1, 61):
        if number < 10:
            levels[number] = TRACE
        else:
            levels[number] = (DEBUG, INFO, WARN, ERROR, FATAL, FATAL)[number // 10 - 1]
    return levels


LEVELS = _Severities(_python_levels())
SEVERITIES = _Severities({number: number for number in range(1, 25)})
