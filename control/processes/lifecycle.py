"""Process-wide services: started in order, stopped in the reverse order under one deadline.

`AppConfig.ready()` registers them; entry points start them (a server's worker after its fork, the
development server's child, a command, a fixture). Nothing starts in a parent that only preloads.

Threads: `start` and `stop` may be called from any, in any order, any number of times. `_turn`
lets one caller at a time start or stop; `_state` guards the flags and is never held during a
service's work. Each service's stop runs on a thread of its own, so that one that hangs costs
the deadline and no more.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

logger = logging.getLogger(__name__)

LEAST_SHARE_S = 1.0
# Of the whole deadline, for all that stop after the one that has something to deliver.
KEPT_AT_MOST = 0.15


@runtime_checkable
class Service(Protocol):
    """Something that runs in a process.

    Lower `order` starts first and stops last; those of equal order stop at the same time.
    `start` and `stop` are idempotent. A service may also have `after_fork()`, called in a
    forked child to let go of what it inherited (lock files, threads that do not exist there), and
    `hurry()`, called during a stop that shall not take its whole deadline.
    """

    name: str
    order: int

    def start(self, role: str) -> None: ...

    def stop(self, deadline_s: float) -> None: ...


class Services:
    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._registered: dict[str, Service] = {}
        self._reset()

    def _reset(self) -> None:
        self._turn = threading.Lock()
        self._state = threading.Lock()
        self._started: list[Service] = []
        self._role = ""
        self._pid = 0

    @property
    def role(self) -> str:
        """The role this process was started in; "" when it is not running."""
        return self._role if self._pid == os.getpid() else ""

    def register(self, service: Service) -> None:
        """Add a service; the same name again replaces it. One registered late starts at once."""
        with self._state:
            self._registered[service.name] = service
            running = self._pid == os.getpid()
        if running:
            with self._turn:
                self._start_one(service, self._role)

    def unregister(self, name: str) -> None:
        with self._state:
            self._registered.pop(name, None)

    def get(self, name: str) -> Service | None:
        with self._state:
            return self._registered.get(name)

    def start(self, role: str) -> None:
        """Start every service. When one fails, those already started are stopped and it raises."""
        self._forget_if_forked()
        with self._turn:
            with self._state:
                if self._pid == os.getpid():
                    return
                services = sorted(self._registered.values(), key=lambda item: item.order)
                self._pid, self._role = os.getpid(), role
            try:
                for service in services:
                    self._start_one(service, role)
            except BaseException:
                self._stop_started(deadline_s=5.0)
                raise

    def stop(self, deadline_s: float) -> bool:
        """Stop every service; True when all of them ended before the deadline."""
        self._forget_if_forked()
        with self._turn:
            return self._stop_started(deadline_s)

    def hurry(self) -> None:
        """Have a stop that is under way end soon: what can be kept for later is not waited for."""
        with self._state:
            services = list(self._registered.values())
        for service in services:
            hasten = getattr(service, "hurry", None)
            if hasten is not None:
                try:
                    hasten()
                except Exception:
                    logger.exception("service failed to hurry", extra={"service": service.name})

    def after_fork(self) -> None:
        """In a forked child: nothing runs here, whatever the parent had started."""
        services = list(self._registered.values())
        self._reset()
        for service in services:
            let_go = getattr(service, "after_fork", None)
            if let_go is not None:
                let_go()

    def _forget_if_forked(self) -> None:
        if self._pid not in (0, os.getpid()):
            self.after_fork()

    def _start_one(self, service: Service, role: str) -> None:
        with self._state:
            if service in self._started:
                return
        service.start(role)
        with self._state:
            self._started.append(service)

    def _stop_started(self, deadline_s: float) -> bool:
        due = self._monotonic() + deadline_s
        with self._state:
            started, self._started = self._started, []
        ended = True
        started.sort(key=lambda item: -item.order)
        groups = [
            list(group) for _, group in itertools.groupby(started, key=lambda item: item.order)
        ]
        for position, group in enumerate(groups):
            # Kept back for those that stop later, such as the last heartbeat.
            kept = (len(groups) - 1 - position) * min(LEAST_SHARE_S, deadline_s / 10)
            kept = min(kept, deadline_s * KEPT_AT_MOST)
            ended = self._stop_group(group, due - kept) and ended
        with self._state:
            self._pid, self._role = 0, ""
        return ended

    def _stop_group(self, services: list[Service], due: float) -> bool:
        stoppings = []
        for service in services:
            # A daemon: a service that never returns must not keep the process from ending.
            thread = threading.Thread(
                target=self._stop_one,
                args=(service, max(0.0, due - self._monotonic())),
                name=f"control-stop-{service.name}",
                daemon=True,
            )
            thread.start()
            stoppings.append((service, thread))
        ended = True
        for service, thread in stoppings:
            # Past the deadline a service still gets a moment to notice that its time is over.
            thread.join(max(0.25, due - self._monotonic()))
            if thread.is_alive():
                ended = False
                logger.error(
                    "service did not stop before the deadline; it is left behind",
                    extra={"service": service.name},
                )
        return ended

    @staticmethod
    def _stop_one(service: Service, deadline_s: float) -> None:
        try:
            service.stop(deadline_s)
        except Exception:
            logger.exception("service failed while stopping", extra={"service": service.name})


_services = Services()
os.register_at_fork(after_in_child=_services.after_fork)


def services() -> Services:
    return _services


def register(service: Service) -> None:
    _services.register(service)


def start(role: str) -> None:
    """Start this process's services in a role: server, consumer, checker, jobs, command or test."""
    _services.start(role)


def stop(deadline_s: float) -> bool:
    """Stop this process's services; True when all of them ended before the deadline."""
    return _services.stop(deadline_s)


def hurry() -> None:
    """Have a stop that is under way end soon."""
    _services.hurry()
