"""How targets and channels, as entries of a configuration file, keep their options and secrets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control.config.export import EntryError
from healthmon.notify.models import Channel
from healthmon.targets.configrows import Options
from healthmon.targets.models import Target
from sinks.options import secret_names


def _set_target_options(row: Target, values: dict[str, Any], *, keep: Sequence[str]) -> None:
    from healthmon.probes.registry import KindError
    from healthmon.targets.options import set_options

    try:
        set_options(row, values, keep=keep)
    except KindError as error:
        raise EntryError(f'target "{row.name}": {error}') from None


def _plain_target_options(row: Target) -> dict[str, Any]:
    from healthmon.targets.options import plain_options

    return plain_options(row)


def _target_secrets(row: Target) -> frozenset[str]:
    """The names of secret options; all of them when the kind cannot be asked."""
    from healthmon.probes.registry import KindError, kind_of

    try:
        return secret_names(kind_of(row.kind).Options)
    except KindError:
        return frozenset(row.options) | frozenset(row.secrets)


def _set_channel_options(row: Channel, values: dict[str, Any], *, keep: Sequence[str]) -> None:
    from healthmon.notify.options import set_options
    from healthmon.notify.registry import KindError

    try:
        set_options(row, values, keep=keep)
    except KindError as error:
        raise EntryError(f'channel "{row.name}": {error}') from None


def _plain_channel_options(row: Channel) -> dict[str, Any]:
    from healthmon.notify.options import plain_options

    return plain_options(row)


def _channel_secrets(row: Channel) -> frozenset[str]:
    from healthmon.notify.registry import KindError, kind_of

    try:
        return secret_names(kind_of(row.kind).Options)
    except KindError:
        return frozenset(row.options) | frozenset(row.secrets)


TARGET_OPTIONS = Options(
    set=_set_target_options, plain=_plain_target_options, secret_names=_target_secrets
)
CHANNEL_OPTIONS = Options(
    set=_set_channel_options, plain=_plain_channel_options, secret_names=_channel_secrets
)
