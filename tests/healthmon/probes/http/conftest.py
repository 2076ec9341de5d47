"""Tools for probes against real listeners."""

from __future__ import annotations

import pytest

from control.outbound.policy import AddressPolicy
from healthmon.probes.net.policy import PROBING
from healthmon.probes.net.resolver import Resolver
from healthmon.probes.net.tls import Contexts
from healthmon.probes.tools import Tools


@pytest.fixture
def tools() -> Tools:
    return Tools(
        resolver=Resolver(),
        policy=AddressPolicy(words=PROBING),
        contexts=Contexts(),
        max_body_bytes=4096,
    )
