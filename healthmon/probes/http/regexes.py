"""Regular expressions that cannot be made to run forever (RE2: time linear in the text).

The expressions are an operator's, the text a target's.  Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Callable

import re2

MAX_MEMORY_BYTES = 8 * 1024 * 1024


def compile_regex(pattern: str, option: str) -> Callable[[bytes], bool]:
    """A function that tells whether the expression matches anywhere; ValueError names `option`."""
    options = re2.Options()
    options.max_mem = MAX_MEMORY_BYTES
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        words = error.args[0] if error.args else error
        if isinstance(words, bytes):
            words = words.decode("utf-8", "replace")
        raise ValueError(f"{option}: not a regular expression of RE2: {words}"[:300]) from None

    def matches(text: bytes) -> bool:
        return compiled.search(text) is not None

    return matches
