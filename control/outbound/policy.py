"""Which addresses may be connected to: judged on the address itself, never on a name.

Of the operator's networks (`allow`, `deny`) the most specific one that holds an address decides;
as specific as one another, `deny` does.  Where none of them holds it, public addresses are allowed,
and loopback, private and other special ones only while the server itself is bound to loopback:
whoever can reach that server is on this machine anyway.  Link-local, metadata, multicast and
unspecified addresses are denied whatever the settings say.

IPv6 forms that carry an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) are judged
by the address inside as well.  What was judged is kept, bounded; any thread may call.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_JUDGED = 65_536


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


# In the order in which they are named to the operator: metadata lies within other ranges.
ALWAYS_DENIED: tuple[tuple[str, tuple[Network, ...]], ...] = (
    (
        "a metadata address",
        _networks(
            "169.254.169.254/32",
            "169.254.170.2/32",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "192.0.0.192/32",
            "fd00:ec2::254/128",
            "fd20:ce::254/128",
        ),
    ),
    ("a link-local address", _networks("169.254.0.0/16", "fe80::/10", "fec0::/10")),
    ("a multicast address", _networks("224.0.0.0/4", "ff00::/8")),
    ("an unspecified address", _networks("0.0.0.0/8", "::/128")),
    ("a broadcast address", _networks("255.255.255.255/32")),
)

_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_ISATAP = (0x00005EFE, 0x02005EFE)


class PolicyError(ValueError):
    """A network in the settings cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How a policy speaks: what is done with an address, and the settings that list networks."""

    done: str = "connected to"
    allow: str = "the networks that are allowed"
    deny: str = "the networks that are denied"


PLAIN = Words()


class AddressPolicy:
    """`problem(ip)` says why an address may not be connected to, "" when it may."""

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        loopback_bound: bool = True,
        words: Words = PLAIN,
        by_list_only: bool = False,
    ) -> None:
        self._by_list_only = by_list_only
        self._loopback_bound = loopback_bound and not by_list_only
        self._words = words
        self._allow, self._deny = tuple(allow), tuple(deny)
        rules = [(network, True) for network in _read(self._allow, words.allow)]
        rules += [(network, False) for network in _read(self._deny, words.deny)]
        # The most specific first; of two alike the one that denies.
        self._rules = sorted(rules, key=lambda rule: (-rule[0].prefixlen, rule[1]))
        self._judged: dict[str, str] = {}

    def trusting(self) -> AddressPolicy:
        """The same for a host that the operator named: private addresses are no problem."""
        return AddressPolicy(
            allow=self._allow, deny=self._deny, loopback_bound=True, words=self._words
        )

    def wary(self) -> AddressPolicy:
        """The same for a place that a third party named: whoever reaches the server did not.

        Private addresses are a problem then wherever `allow` does not name their network.
        """
        return AddressPolicy(
            allow=self._allow, deny=self._deny, words=self._words, by_list_only=True
        )

    def problem(self, ip: str) -> str:
        """Why `ip`, an address in text, may not be connected to; "" when it may."""
        found = self._judged.get(ip)
        if found is None:
            found = self._judge(ip)
            if len(self._judged) >= MAX_JUDGED:
                self._judged.clear()
            self._judged[ip] = found
        return found

    def _judge(self, text: str) -> str:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return f"{text!r} is not an IP address"
        if getattr(address, "scope_id", None):
            never = f"such addresses are never {self._words.done}"
            return f"{text} names a zone of this machine, and {never}"
        for judged in (address, *_inside(address)):
            reason = self._reason(judged)
            if reason:
                inside = "" if judged == address else f" carries {judged}, which"
                return f"{text}{inside} is {reason}"
        return ""

    def _reason(self, address: Address) -> str:
        for what, networks in ALWAYS_DENIED:
            if any(address in network for network in networks):
                return f"{what}, and those are never {self._words.done}"
        for network, allowed in self._rules:
            if address in network:
                return "" if allowed else f"in {network}, which {self._words.deny} names"
        if self._loopback_bound or address.is_global:
            return ""
        if isinstance(address, ipaddress.IPv6Address) and any(True for _ in _inside(address)):
            return ""  # judged by what it carries
        what = "a loopback" if address.is_loopback else "a private or special"
        when = "" if self._by_list_only else "while the server is bound to loopback or "
        return (
            f"{what} address, which is {self._words.done} only {when or 'where '}"
            f"{self._words.allow} names its network"
        )


def _inside(address: Address) -> Iterable[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address may lead to."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    low = number & 0xFFFF_FFFF
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address in _NAT64 or (address in _COMPATIBLE and number > 1):
        yield ipaddress.IPv4Address(low)
    elif address in _LOCAL_NAT64:
        # The prefix may be a /96 or this /48, whose four bytes stand around an empty one.
        yield ipaddress.IPv4Address(low)
        yield ipaddress.IPv4Address((number >> 64 & 0xFFFF) << 16 | (number >> 40 & 0xFFFF))
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo
    if (number >> 32 & 0xFFFF_FFFF) in _ISATAP:
        yield ipaddress.IPv4Address(low)


def _read(texts: Iterable[str], setting: str) -> list[Network]:
    networks = []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError:
            raise PolicyError(
                f"{setting}: {text!r} is not a network; write it like 10.0.0.0/8 or fd00::/8"
            ) from None
    return networks
