"""TLS settings of outgoing connections: one for all that check certificates, one for all that do
not, as making one costs 15 ms.  Shared by all threads and never changed.
"""

from __future__ import annotations

import ssl
from functools import lru_cache


@lru_cache(maxsize=2)
def client_context(verify: bool) -> ssl.SSLContext:
    """The settings; not `verify`: any certificate will do."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
