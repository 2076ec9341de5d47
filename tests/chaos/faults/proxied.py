"""The base of faults between the server and PostgreSQL: they strike in a proxy."""

from __future__ import annotations

from tests.chaos.faults.base import POSTGRESQL, Fault
from tests.chaos.server import Wishes, World
from tests.servers.proxy import Proxy


class Proxied(Fault):
    combines = True
    databases = POSTGRESQL

    def prepare(self) -> Wishes:
        return Wishes(proxied=True, proxied_control=self.rng.random() < 0.4)

    def proxy(self, world: World) -> Proxy:
        assert world.proxy is not None
        return world.proxy

    def heal(self, world: World) -> None:
        self.proxy(world).heal()
