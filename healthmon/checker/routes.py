"""What this machine's routing tables say of its way out; read from /proc, small and local."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path

ROUTES = (Path("/proc/net/route"), Path("/proc/net/ipv6_route"))


def has_default_route(files: Iterable[Path] = ROUTES) -> bool:
    """Whether this machine knows a way to the world; True where it cannot be told."""
    readable = False
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        readable = True
        if any(_is_default(line.split()) for line in lines):
            return True
    return not readable


def gateways(file: Path = ROUTES[0]) -> Iterator[str]:
    """The IPv4 addresses of the default routes' gateways; none where it cannot be told."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split()
        if _is_default(words) and len(words[2]) == 8 and words[2] != "00000000":
            # As the machine holds it in memory: the first byte last.
            yield str(ipaddress.IPv4Address(bytes.fromhex(words[2])[::-1]))


def _is_default(words: list[str]) -> bool:
    if len(words) >= 10 and len(words[0]) == 32:  # IPv6: destination and its length first
        return set(words[0]) == {"0"} and words[1] == "00" and words[9] != "lo"
    return len(words) >= 8 and words[1] == "00000000" and words[7] == "00000000"
