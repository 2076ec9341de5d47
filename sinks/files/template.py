"""Path templates: `{date}/{tenant}-{type}.ndjson`, whose values cannot leave their place.

A value from outside becomes one inert part of a file name: everything but letters, digits, "_", "-"
and inner dots is percent-encoded, so that two values never share a name, and a long one is cut
and told apart by a digest.  Pure functions over strings.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

FIELDS = ("date", "hour", "tenant", "service", "type", "worker")
LONG_FIELDS = ("tenant", "service", "type", "worker")
LONGEST_VALUE = 60
LONGEST_NAME = 230  # leaves room for the time in the name of a file put aside
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


class TemplateError(ValueError):
    """The template is wrong; the text says which part."""


class PathTemplate:
    """A parsed template; `fields` are the placeholders it has."""

    def __init__(self, text: str) -> None:
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise TemplateError(f"{error} (a literal brace is written twice)") from None
        self._text = text
        self.fields: frozenset[str] = frozenset(
            name for _, name, _, _ in parsed if name is not None
        )
        for literal, name, spec, conversion in parsed:
            if name is not None and (name not in FIELDS or spec or conversion):
                shown = "{" + name + (f":{spec}" if spec else "") + "}"
                known = " ".join("{" + field + "}" for field in FIELDS)
                raise TemplateError(f"{shown} is not known; known are {known}")
            if _FORBIDDEN.search(literal):
                raise TemplateError("control characters and backslashes are not allowed")
        names_of_path = self.render(dict.fromkeys(FIELDS, "x")).split("/")
        if "" in names_of_path:
            raise TemplateError("must be relative, name a file, and not contain //")
        if "." in names_of_path or ".." in names_of_path:
            raise TemplateError("must not contain . or .. as a name")
        # Together with a value of each kind a name must stay below the system's 255 bytes.
        for part in text.split("/"):
            long_values = sum("{" + field + "}" in part for field in LONG_FIELDS)
            if long_values * LONGEST_VALUE + len(part) > LONGEST_NAME:
                raise TemplateError(f"the name {part!r} could become too long; use more folders")
            if len(part) > LONGEST_VALUE:
                raise TemplateError(f"a name in it is longer than {LONGEST_VALUE} characters")

    def render(self, values: Mapping[str, str]) -> str:
        """The relative path; every value must have gone through `inert`."""
        return self._text.format_map(values)


@lru_cache(maxsize=8192)
def inert(value: str) -> str:
    """The value as part of a file name."""
    name = quote(value.encode("utf-8", "surrogatepass"), safe="").replace("~", "%7E")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > LONGEST_VALUE:
        digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        name = f"{name[: LONGEST_VALUE - 13].rstrip('%')}-{digest}"
    return name or "_"
