"""A channel's options: from what an operator typed to a row, and from a row to what a kind gets.

Secret options are encrypted in `Channel.secrets` or are references to the environment, `env:NAME`,
among the options.  Pure functions but for the environment; any thread may call them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from healthmon.notify.kind import ChannelKind, ChannelOptions
from healthmon.notify.models import Channel
from healthmon.notify.registry import KindError, kind_of
from sinks import optionrows
from sinks.options import OptionsError, decode_options, secret_names
from sinks.secrets import SecretError


def set_options(channel: Channel, values: dict[str, Any], *, keep: Iterable[str] = ()) -> None:
    """Put plain option values into the row; secrets are encrypted, references stay readable.

    The stored secrets named in `keep` stay as they are.  Raises KindError.
    """
    optionrows.set_options(channel, values, secret=_secret_names(channel), keep=keep)


def plain_options(channel: Channel) -> dict[str, Any]:
    """The options with secrets decrypted and references resolved.

    Raises KindError, SecretError.
    """
    return optionrows.plain_options(channel, secret=_secret_names(channel))


def decoded(channel: Channel) -> tuple[ChannelKind, ChannelOptions]:
    """The kind and its typed options.  Raises KindError, OptionsError or SecretError."""
    kind = kind_of(channel.kind)
    return kind, decode_options(kind.Options, plain_options(channel))


def secret_values(channel: Channel) -> list[str]:
    """The secrets in plain, so that they can be taken out of a text; what cannot be had is not."""
    try:
        names = _secret_names(channel)
        values = plain_options(channel)
    except (KindError, SecretError):
        return []
    return [values[name] for name in names & values.keys() if isinstance(values[name], str)]


def problems(channel: Channel) -> dict[str, str]:
    """What is wrong with the row, by field; empty when it can be used."""
    try:
        decoded(channel)
    except KindError as error:
        return {"kind": str(error)}
    except (OptionsError, SecretError) as error:
        return {"options": str(error)}
    return {}


def _secret_names(channel: Channel) -> frozenset[str]:
    return secret_names(kind_of(channel.kind).Options)
