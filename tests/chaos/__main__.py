"""`python -m tests.chaos`: see the package."""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.report import Report
from tests.chaos.run import faults_for, run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Post records under faults, and compare what was acknowledged with what is "
        "stored. Starts and ends its own servers and databases, on loopback.",
    )
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="rounds (50)")
    parser.add_argument("--seed", type=int, help="of the first round; the n-th has seed + n")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--only", action="append", choices=FAULTS, default=[], help="repeatable")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="failed rounds' output goes here")
    options = parser.parse_args()
    if not faults_for(options.database, options.only):
        parser.error(f"{', '.join(options.only)}: not a fault of {options.database}")
    # A run that is stopped lets its servers and databases go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"chaos: {options.rounds} rounds on {options.database}, seed {seed}", flush=True)
    report = Report(say=lambda text: print(text, flush=True), keep=options.keep)
    run(
        rounds=options.rounds,
        seed=seed,
        database=options.database,
        only=options.only,
        report=report,
    )
    return 0 if report.close(strict=options.rounds >= len(FAULTS)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
