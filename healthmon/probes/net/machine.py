"""What this machine says of names: its hosts file and its resolver's configuration.

Both files are looked at again, at most every RECHECK_S by the caller's clock, and read when they
have changed.  Used on the event loop of its resolver alone; no locks.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import dns.asyncresolver
import dns.exception
import dns.resolver

from healthmon.probes.net.names import literal

RECHECK_S = 5.0
MAX_HOSTS_BYTES = 8 * 1024 * 1024


class Machine:
    def __init__(
        self,
        *,
        clock: Callable[[], float],
        resolv_conf: str,
        hosts: str,
        port: int,
        try_s: float,
        lifetime_s: float,
    ) -> None:
        self._clock = clock
        self._resolv_conf = resolv_conf
        self._hosts_path = hosts
        self._port = port
        self._try_s = try_s
        self._lifetime_s = lifetime_s
        self._checked: float | None = None
        self._versions: tuple[object, object] = (None, None)
        self._hosts: dict[str, list[str]] = {}
        self.resolver: dns.asyncresolver.Resolver | None = None

    def refresh(self) -> bool:
        """Read what has changed; True when names may now have other answers."""
        now = self._clock()
        if self._checked is not None and now - self._checked < RECHECK_S:
            return False
        self._checked = now
        versions = (_version(self._resolv_conf), _version(self._hosts_path))
        if versions == self._versions and self.resolver is not None:
            return False
        self._versions = versions
        self._hosts = _read_hosts(self._hosts_path)
        self.resolver = self._configured()
        return True

    def addresses(self, name: str) -> list[str] | None:
        """What the hosts file says of a name; the loopback of this machine is always known."""
        found = self._hosts.get(name.removesuffix("."))
        if found is None and name.removesuffix(".") == "localhost":
            return ["127.0.0.1", "::1"]
        return found

    def answered(self, nameserver: str | None) -> None:
        """Ask the one first that has answered: a dead one before it would cost each name a try."""
        resolver = self.resolver
        if resolver is None or nameserver is None or len(resolver.nameservers) < 2:
            return
        servers = [str(server) for server in resolver.nameservers]
        if nameserver in servers and servers[0] != nameserver:
            servers.remove(nameserver)
            resolver.nameservers = [nameserver, *servers]

    def _configured(self) -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(configure=False)
        try:
            resolver.read_resolv_conf(self._resolv_conf)
        except (dns.exception.DNSException, OSError, ValueError, UnicodeError):
            resolver.nameservers = []
        resolver.port = self._port
        resolver.timeout = self._try_s
        resolver.lifetime = self._lifetime_s
        resolver.cache = None
        return resolver


def _version(path: str) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read_hosts(path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_HOSTS_BYTES)
    except OSError:
        return found
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        address = literal(words[0]) if len(words) > 1 else None
        if address is None:
            continue
        for name in words[1:]:
            addresses = found.setdefault(name.lower().removesuffix("."), [])
            if address not in addresses:
                addresses.append(address)
    return found
