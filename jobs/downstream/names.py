"""Looking names up, by the operating system, with a deadline.

The system's resolver can neither be given a deadline nor be stopped, so each lookup has a thread of
its own, at most MAX_LOOKUPS of them; whoever waits for the same name waits for the same lookup.
`_lock` guards which are under way.  Nothing is remembered.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable

from jobs.downstream.faults import FailedCall
from jobs.downstream.line import Line

MAX_LOOKUPS = 16


def system_lookup(host: str) -> list[str]:
    """The addresses of a name.  Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Lookup:
    def __init__(self) -> None:
        self.waiting: list[Line] = []
        self.addresses: list[str] = []
        self.error: Exception | None = None
        self.is_over = False


class Names:
    def __init__(self, *, lookup: Callable[[str], list[str]] = system_lookup) -> None:
        self._system = lookup
        self._lock = threading.Lock()
        self._under_way: dict[str, _Lookup] = {}

    def addresses(self, host: str, line: Line) -> list[str]:
        """The addresses of `host`, a name or an address.  Raises FailedCall, and as `line` does."""
        host = host.strip("[]")
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        lookup = self._join(host, line)
        line.wait_for(lambda: lookup.is_over)
        if lookup.error is not None:
            cause = getattr(lookup.error, "strerror", None) or str(lookup.error)
            raise FailedCall(f"{host} cannot be resolved: {cause.lower()}")
        if not lookup.addresses:
            raise FailedCall(f"{host} has no address")
        return lookup.addresses

    def _join(self, host: str, line: Line) -> _Lookup:
        with self._lock:
            lookup = self._under_way.get(host)
            if lookup is not None:
                lookup.waiting.append(line)
                return lookup
            if len(self._under_way) >= MAX_LOOKUPS:
                raise FailedCall(
                    f"{host} cannot be resolved: {MAX_LOOKUPS} other names are being looked up and"
                    " the system's resolver does not answer"
                )
            lookup = self._under_way[host] = _Lookup()
            lookup.waiting.append(line)
        # Not waited for at exit: a resolver may hang for minutes.
        threading.Thread(
            target=self._look_up, args=(host, lookup), name=f"lookup-{host[:40]}", daemon=True
        ).start()
        return lookup

    def _look_up(self, host: str, lookup: _Lookup) -> None:
        try:
            lookup.addresses = self._system(host)
        except (OSError, UnicodeError) as error:
            lookup.error = error
        finally:
            with self._lock:
                del self._under_way[host]
                lookup.is_over = True
                waiting = lookup.waiting
            for line in waiting:
                line.wake()
