"""The services that this process calls: for each its guard, and its connections.

`_lock` guards which there are and who uses which connections; connections are closed without it, by
whoever was the last to use them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

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


class _Connections:
    """The transport of one configuration; `users` are in calls, the services themselves is one."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.users = 1


class _Service:
    def __init__(self, spec: DownstreamSpec, guard: Guard, connections: _Connections) -> None:
        self.spec = spec
        self.former: DownstreamSpec | None = None
        self.runners = 0
        self.guard = guard
        self.connections = connections


class Services:
    def __init__(
        self,
        *,
        clock: Clock,
        policy: AddressPolicy,
        living_runners: Callable[[], int],
        known: Callable[[], Collection[int]] | None,
        lines: Lines,
        names: Names,
    ) -> None:
        self._clock = clock
        self._policy = policy
        self._trusting = policy.trusting()
        self._living_runners = living_runners
        self._known = known
        self._lines = lines
        self._names = names
        self._lock = threading.Lock()
        self._services: dict[int, _Service] = {}

    @contextmanager
    def using(self, spec: DownstreamSpec) -> Iterator[tuple[Guard, httpx.BaseTransport]]:
        """The service's guard, and connections that stay open while the block lasts."""
        runners = max(1, self._living_runners())
        client_context(spec.verify_tls)  # reads files when it is the first
        with self._lock:
            retired = None
            service = self._services.get(spec.id)
            if service is None:
                service = self._services[spec.id] = _Service(
                    spec, Guard(spec, clock=self._clock), _Connections(self._transport(spec))
                )
            is_new = spec is not service.spec and spec != service.spec
            # A job that began before a change ends with what it began with, and does not change
            # everything back.
            if is_new and spec != service.former:
                retired = self._change(service, spec, runners)
            elif runners != service.runners:
                service.guard.configure(service.spec, runners=runners)
            service.runners = runners
            used = service.connections
            used.users += 1
        if retired is not None:
            self._release(retired)
        try:
            yield service.guard, used.transport
        finally:
            self._release(used)

    def states(self) -> list[dict[str, Any]]:
        """Each service that was called, by name; forgets those that are configured no more."""
        known = None if self._known is None else self._known()
        with self._lock:
            gone = [
                key
                for key, service in self._services.items()
                if known is not None and key not in known and service.guard.is_idle
            ]
            forgotten = [self._services.pop(key).connections for key in gone]
            guards = [service.guard for service in self._services.values()]
        for connections in forgotten:
            self._release(connections)
        return sorted((guard.state() for guard in guards), key=lambda state: str(state["name"]))

    def close(self) -> None:
        """Close the connections; those in use when their calls end.  Harmless again."""
        with self._lock:
            services, self._services = list(self._services.values()), {}
        for service in services:
            self._release(service.connections)

    def _change(self, service: _Service, spec: DownstreamSpec, runners: int) -> _Connections | None:
        retired = None
        is_elsewhere = spec.base_url != service.spec.base_url
        if is_elsewhere or spec.verify_tls != service.spec.verify_tls:
            retired = service.connections
            service.connections = _Connections(self._transport(spec))
        service.former, service.spec = service.spec, spec
        service.guard.configure(spec, runners=runners, is_elsewhere=is_elsewhere)
        return retired

    def _release(self, connections: _Connections) -> None:
        with self._lock:
            connections.users -= 1
            is_last = connections.users == 0
        if is_last:
            connections.transport.close()

    def _transport(self, spec: DownstreamSpec) -> Transport:
        _, host, port = origin(httpx.URL(spec.base_url))
        # Its operator wrote this host, be it private; also where it moves on to TLS.
        trusted = {(host, port), (host, 443)} if port == 80 else {(host, port)}

        def policy_for(host: str, port: int) -> AddressPolicy:
            return self._trusting if (host.strip("[]"), port) in trusted else self._policy

        return Transport(
            lines=self._lines,
            backend=Backend(lines=self._lines, names=self._names, policy_for=policy_for),
            tls=client_context(spec.verify_tls),
            max_connections=MAX_CONNECTIONS,
        )
