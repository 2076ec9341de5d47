"""A process that claims and ends jobs until there are none: `python hand.py NAME TYPE_IDS CHAOS`.

Says `claimed id claim` for each job that it was given, and `ended id claim` for each end that was
kept.  With CHAOS it gives some back, and writes some late: after it has left and joined anew, so
that another may hold them.  Those are `refused`, or else `LATE`.
"""

from __future__ import annotations

import os
import random
import sys
import time


def main(name: str, types: list[int], chaos: bool) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "collector_site.settings")
    import django

    django.setup()
    from django.db import OperationalError

    from jobs.states import SUCCEEDED
    from jobs.store.database import DatabaseStore
    from jobs.store.protocol import Again, Claimed, Ended

    store = DatabaseStore()
    dice = random.Random(name)
    lines: list[str] = []
    lives = 0
    runner = ""

    def patiently(call, *args, **kwargs):
        """A database that is busy is asked again."""
        while True:
            try:
                return call(*args, **kwargs)
            except OperationalError as error:
                if "lock" not in str(error):
                    raise

    def join() -> str:
        nonlocal lives
        lives += 1
        patiently(store.join, f"{name}-{lives}", host="here", pid=os.getpid())
        return f"{name}-{lives}"

    def end(job: Claimed) -> Ended:
        return Ended(id=job.id, claim=job.claim, state=SUCCEEDED, worker=name)

    runner = join()
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + 150
    while time.monotonic() < until:
        jobs = patiently(store.claim, runner, name, dice.randint(1, 16), types=types)
        if not jobs:
            if not any(patiently(store.counts).get(one, {}).get("running") for one in types) and (
                not patiently(store.has_queued)
            ):
                break
            continue
        lines += [f"claimed {job.id} {job.claim}" for job in jobs]
        if chaos and dice.random() < 0.2:
            # It looks dead, is let go, and comes back with what it had in its hands.
            patiently(store.leave, runner)
            runner = join()
            late = patiently(store.write, [end(job) for job in jobs])
            lines += [
                f"{'LATE' if kept else 'refused'} {job.id}"
                for job, kept in zip(jobs, late, strict=True)
            ]
            continue
        returned = [job for job in jobs if chaos and dice.random() < 0.1]
        ended = [job for job in jobs if job not in returned]
        writes = [
            *(Again(id=job.id, claim=job.claim, worker=name, spent=False) for job in returned),
            *(end(job) for job in ended),
        ]
        kept = patiently(store.write, writes)
        assert all(kept), "its own claims were refused"
        lines += [f"ended {job.id} {job.claim}" for job in ended]
    patiently(store.leave, runner)
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], [int(one) for one in sys.argv[2].split(",")], sys.argv[3] == "chaos")
