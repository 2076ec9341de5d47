"""Finding a kind of probe by its name, or by the dotted path that the settings allow.

A kind's file ends with `KIND = ProbeKind(...)`; a dotted path names that object.  Importing is what
Python caches, and what was found is kept by name; any thread may call.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from django.conf import settings

from healthmon.probes.kind import ProbeKind

# In the order in which an operator chooses among them.
BUILT_IN = {
    "http": "healthmon.probes.http.KIND",
    "tcp": "healthmon.probes.tcp.KIND",
    "tls": "healthmon.probes.tls.KIND",
    "dns": "healthmon.probes.dns.KIND",
    "icmp": "healthmon.probes.icmp.KIND",
    "websocket": "healthmon.probes.websocket.KIND",
    "heartbeat": "healthmon.heartbeats.kind.KIND",
}


class KindError(Exception):
    """A kind of probe cannot be used; the text names it and the setting to change."""


def kind_of(name: str) -> ProbeKind:
    """The kind of that name, or at that dotted path.  Raises KindError."""
    path = BUILT_IN.get(name)
    if path is None:
        allowed = allowed_paths()
        if name not in allowed:
            raise KindError(
                f"there is no kind of probe {name!r}; the built-in ones are {', '.join(BUILT_IN)},"
                f" and COLLECTOR_PROBE_KINDS names {', '.join(allowed) or 'no others'}"
            )
        path = name
    return _load(path, name)


def kinds() -> list[ProbeKind]:
    """Every kind that an operator may choose; one that cannot be imported is left out."""
    return [kind for _, kind in _usable((*BUILT_IN, *allowed_paths()))]


def kind_names() -> list[tuple[str, ProbeKind]]:
    """The kinds with what `Target.kind` holds for each: a name, or a third party's dotted path."""
    return list(_usable((*BUILT_IN, *allowed_paths())))


def problems() -> list[str]:
    """What is wrong with the kinds that the settings name, for the system checks."""
    found = []
    for path in allowed_paths():
        try:
            _load(path, path)
        except KindError as error:
            found.append(str(error))
    return found


def allowed_paths() -> tuple[str, ...]:
    return tuple(settings.COLLECTOR.monitoring.probe_kinds)


def _usable(names: Iterable[str]) -> Iterable[tuple[str, ProbeKind]]:
    for name in dict.fromkeys(names):
        try:
            yield name, kind_of(name)
        except KindError:
            continue


def _load(path: str, name: str) -> ProbeKind:
    found = _loaded.get(path)
    if found is not None:
        return found
    module_name, _, attribute = path.rpartition(".")
    where = f"COLLECTOR_PROBE_KINDS: probe kind {name!r}"
    if not module_name:
        raise KindError(f"{where} is not a dotted path to a ProbeKind")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a third party's module may fail in any way while it is imported
        raise KindError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    kind = getattr(module, attribute, None)
    if not isinstance(kind, ProbeKind):
        raise KindError(f"{where}: {module_name} has no ProbeKind named {attribute}")
    _loaded[path] = kind
    return kind


_loaded: dict[str, ProbeKind] = {}
