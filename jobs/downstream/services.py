"""The services that this process calls: for each its guard, and its connections.

`_lock` guards which there are and who uses which connections; connections are closed without it, by
whoever was the last to use them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import httpx

from control.outbound.policy import AddressPolicy
from control.outbound.tls import client_context
from jobs.downstream.guard import MAX_CONNECTIONS, Guard
from jobs.downstream.line import Lines
from jobs.downstream.names import Names
from jobs.downstream.redirects import origin
from jobs.downstream.transport import Transport
from jobs.downstream.wire import Backend
from jobs.types.spec import DownstreamSpec
from pipeline.runtime.clock import Clock

_Place: TypeAlias = tuple[str, bool]


def _place(spec: DownstreamSpec) -> _Place:
    """What connections are made by."""
    return spec.base_url, spec.verify_tls


class _Connections:
    """The transport of one address; `users` are calls under way."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.users = 0


class _Service:
    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.spec: DownstreamSpec | None = None  # what the guard was configured by
        self.share = (0, 0)
        self.connections: dict[_Place, _Connections] = {}

    @property
    def place(self) -> _Place | None:
        return None if self.spec is None else _place(self.spec)


class Services:
    def __init__(
        self,
        *,
        clock: Clock,
        policy: AddressPolicy,
        living_runners: Callable[[], tuple[int, int]],
        known: Callable[[], Mapping[int, DownstreamSpec]] | None,
        lines: Lines,
        names: Names,
    ) -> None:
        self._clock = clock
        self._wary = policy.wary()  # of where a service redirects to
        self._trusting = policy.trusting()
        self._living_runners = living_runners
        self._known = known
        self._lines = lines
        self._names = names
        self._lock = threading.Lock()
        self._services: dict[int, _Service] = {}

    @contextmanager
    def using(self, spec: DownstreamSpec) -> Iterator[tuple[Guard, httpx.BaseTransport]]:
        """The service's guard, and connections that stay open while the block lasts.

        A job that began before a change calls the address that it began with.  The guard follows
        what is configured now, whoever calls.
        """
        share = self._living_runners()
        configured = spec if self._known is None else self._known().get(spec.id, spec)
        client_context(spec.verify_tls)  # reads files when it is the first
        with self._lock:
            service = self._services.get(spec.id)
            if service is None:
                service = self._services[spec.id] = _Service(Guard(configured, clock=self._clock))
            if share != service.share or configured is not service.spec:
                self._configure(service, configured, share)
            unused = self._unused(service)
            used = service.connections.get(_place(spec))
            if used is None:
                used = service.connections[_place(spec)] = _Connections(self._transport(spec))
            used.users += 1
        _close(unused)
        try:
            yield service.guard, used.transport
        finally:
            with self._lock:
                used.users -= 1
                unused = self._unused(service)
            _close(unused)

    def states(self) -> list[dict[str, Any]]:
        """Each service that was called, by name; forgets those that are configured no more."""
        known = None if self._known is None else self._known()
        with self._lock:
            unused = []
            for key, service in list(self._services.items()):
                if known is not None and key not in known and service.guard.is_idle:
                    del self._services[key]
                    service.spec = None
                    unused += self._unused(service)
            guards = [service.guard for service in self._services.values()]
        _close(unused)
        return sorted((guard.state() for guard in guards), key=lambda state: str(state["name"]))

    def close(self) -> None:
        """Close the connections; those in use when their calls end.  Harmless again."""
        with self._lock:
            unused = []
            for service in self._services.values():
                service.spec = None
                unused += self._unused(service)
            self._services = {}
        _close(unused)

    def _configure(self, service: _Service, spec: DownstreamSpec, share: tuple[int, int]) -> None:
        before, service.spec = service.spec, spec
        if spec != before or share != service.share:
            is_elsewhere = before is not None and before.base_url != spec.base_url
            rank, runners = share
            service.guard.configure(spec, rank=rank, runners=runners, is_elsewhere=is_elsewhere)
        service.share = share

    def _unused(self, service: _Service) -> list[_Connections]:
        """Take away the connections that nobody uses and that lead where nothing is any more."""
        gone = [
            place
            for place, connections in service.connections.items()
            if not connections.users and place != service.place
        ]
        return [service.connections.pop(place) for place in gone]

    def _transport(self, spec: DownstreamSpec) -> Transport:
        _, host, port = origin(httpx.URL(spec.base_url))
        # Its operator wrote this host, be it private; also where it moves on to TLS.
        trusted = {(host, port), (host, 443)} if port == 80 else {(host, port)}

        def policy_for(host: str, port: int) -> AddressPolicy:
            return self._trusting if (host.strip("[]"), port) in trusted else self._wary

        return Transport(
            lines=self._lines,
            backend=Backend(lines=self._lines, names=self._names, policy_for=policy_for),
            tls=client_context(spec.verify_tls),
            max_connections=MAX_CONNECTIONS,
        )


def _close(connections: list[_Connections]) -> None:
    for one in connections:
        one.transport.close()
