"""Tools for probes against real listeners."""

from __future__ import annotations

import pytest

from healthmon.probes.net.policy import AddressPolicy
from healthmon.probes.net.resolver import Resolver
from healthmon.probes.net.tls import Contexts
from healthmon.probes.tools import Tools


@pytest.fixture
def tools() -> Tools:
    return Tools(
        resolver=Resolver(), policy=AddressPolicy(), contexts=Contexts(), max_body_bytes=4096
    )
