"""Sets up an installation for a benchmark: `python -m benchmarks.installation '{"sinks": …}'`.

A process of its own, because it needs Django with the installation's environment. Prints one JSON
object: {"key": "…"} when a key was asked for.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(wanted: dict[str, Any]) -> None:
    import django

    django.setup()
    from control.auth.keys import create_key
    from control.models import Tenant
    from sinks.models import SinkConfig

    if "sinks" in wanted:
        SinkConfig.objects.all().delete()
        for sink in wanted["sinks"]:
            SinkConfig.objects.create(**sink)
    if "paused" in wanted:
        SinkConfig.objects.update(paused=wanted["paused"])
    answer = {}
    if wanted.get("key"):
        tenant = Tenant.objects.get(slug="default")
        _, answer["key"] = create_key(
            tenant=tenant, name="benchmark", scopes=["logs", "health", "events"]
        )
    print(json.dumps(answer))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
