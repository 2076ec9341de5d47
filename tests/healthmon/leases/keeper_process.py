"""A small process that keeps leases and says how many it holds: `python keeper_process.py NAME`.

Ends when its standard input does.  After each beat it says so: from then on it has nothing to do
with the database for a third of a lease.
"""

from __future__ import annotations

import os
import sys

LEASE_S = 3.0


def main(name: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "collector_site.settings")
    import django

    django.setup()
    from healthmon.leases.keeper import Keeper
    from healthmon.leases.store import LeaseStore

    def say(slots: set[int]) -> None:
        held = keeper.epochs()
        highest = max(held.values(), default=0)
        print(f"held {len(held)} epoch {highest}", flush=True)

    class TellingKeeper(Keeper):
        def beat(self) -> float:
            wait_s = super().beat()
            print("beat", flush=True)
            return wait_s

    keeper = TellingKeeper(
        checker_id=name,
        store=LeaseStore(lease_s=LEASE_S),
        lease_s=LEASE_S,
        on_taken=say,
        on_lost=say,
        pid=os.getpid(),
    )
    keeper.start()
    sys.stdin.read()
    keeper.stop()
    print("stopped", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
