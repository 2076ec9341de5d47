"""A target's options: from what an operator typed to a row, and from a row to what a probe gets.

Secret options are encrypted in `Target.secrets` or are references to the environment, `env:NAME`,
among the options.  Pure functions but for the environment; any thread may call them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from healthmon.probes.kind import ProbeKind, ProbeOptions
from healthmon.probes.registry import KindError, kind_of
from healthmon.targets.models import Target
from sinks import optionrows
from sinks.options import OptionsError, decode_options, secret_names
from sinks.secrets import SecretError


def set_options(target: Target, values: dict[str, Any], *, keep: Iterable[str] = ()) -> None:
    """Put plain option values into the row; secrets are encrypted, references stay readable.

    The stored secrets named in `keep` stay as they are.  Raises KindError.
    """
    optionrows.set_options(target, values, secret=_secret_names(target), keep=keep)


def plain_options(target: Target) -> dict[str, Any]:
    """The options with secrets decrypted and references resolved.

    Raises KindError, SecretError.
    """
    return optionrows.plain_options(target, secret=_secret_names(target))


def decoded(target: Target) -> tuple[ProbeKind, ProbeOptions]:
    """The kind and its typed options.  Raises KindError, OptionsError or SecretError."""
    kind = kind_of(target.kind)
    return kind, decode_options(kind.Options, plain_options(target))


def problems(target: Target) -> dict[str, str]:
    """What is wrong with the row, by field; empty when it can be probed."""
    found: dict[str, str] = {}
    try:
        kind = kind_of(target.kind)
    except KindError as error:
        return {"kind": str(error)}
    wrong = kind.address_problem(target.address)
    if wrong:
        found["address"] = wrong
    try:
        decoded(target)
    except (OptionsError, SecretError) as error:
        found["options"] = str(error)
    if kind.probe is not None and target.timeout_s > target.interval_s * 10:
        found["timeout_s"] = "more than ten intervals: such a target would hardly be probed"
    return found


def _secret_names(target: Target) -> frozenset[str]:
    return secret_names(kind_of(target.kind).Options)
