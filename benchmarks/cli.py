"""Owns: which figures are taken, and how they are shown. Runs on the main thread."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import plot
from benchmarks.catalogue import SCENARIOS, told
from benchmarks.comparison import Comparison
from benchmarks.figure import Figure
from benchmarks.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="which figures, see below (all)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer and smaller repetitions: a first impression"
    )
    parser.add_argument("--repeat", type=int, default=0, metavar="N", help="repetitions (5; 2)")
    parser.add_argument(
        "--records", type=int, default=0, metavar="N", help="of a bulk repetition (500000; 100000)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print no table, but JSON with every repetition, notes and profiles",
    )
    parser.add_argument("--out", metavar="FILE", help="write that JSON to a file, beside the table")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 when a figure misses its goal"
    )
    parser.add_argument(
        "--plot", action="store_true", help="draw what compares several ways (*), as SVG files"
    )
    parser.add_argument(
        "--plot-dir",
        default="build/benchmarks",
        metavar="DIR",
        help="where to (build/benchmarks; those of the documentation are in docs/images)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=DESCRIPTION,
        epilog=told(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run(vars(parser.parse_args(arguments)))


DESCRIPTION = """\
Measure Collector against baselines taken in the same run: each figure is a ratio. Starts and ends
its own servers, databases and load generators, on loopback and in temporary directories; this
installation's data is not touched.
"""


def run(options: dict[str, Any]) -> int:
    names = options["names"] or list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    console = Console(stderr=True)
    comparisons: list[Comparison] = []
    plan = dataclasses.replace(_plan(options, console), show=comparisons.append)
    figures: list[Figure] = []
    failures: dict[str, str] = {}
    started = time.monotonic()
    for name in names:
        try:
            figures += importlib.import_module(SCENARIOS[name]).measure(plan)
        except Exception as error:
            # The other figures are still worth having; the exit status tells of this one.
            failures[name] = f"{type(error).__name__}: {error}"
            console.print(f"{name} failed: {failures[name]}", style="red", markup=False)
    report = {
        "machine": {
            "processors": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),  # before: others' work, and the reader's warning
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "quick": plan.quick,
        "repetitions": plan.repetitions,
        "seconds": round(time.monotonic() - started, 1),
        "figures": [figure.as_json() for figure in figures],
        "comparisons": [comparison.as_json() for comparison in comparisons],
        "failures": failures,
    }
    if options["out"]:
        Path(options["out"]).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"written: {options['out']}", file=sys.stderr)
    if options["json"]:
        print(json.dumps(report))
    else:
        out = Console()
        # A pipe has no width of its own, and a narrow table cannot be read.
        (out if out.is_terminal else Console(width=132)).print(_table(figures))
    if options["plot"]:
        for comparison in comparisons:
            path = plot.write(comparison, Path(options["plot_dir"]))
            print(f"drawn: {path}", file=sys.stderr)
        if not comparisons:
            print("nothing to draw: these figures compare no ways", file=sys.stderr)
    missed = [figure for figure in figures if not figure.passed]
    return 1 if failures or (options["check"] and missed) else 0


def _plan(options: dict[str, Any], console: Console) -> Plan:
    quick = options["quick"]

    def say(text: str) -> None:
        if not options["json"] or console.is_terminal:
            console.print(text, style="dim", markup=False, highlight=False)

    records = options["records"] or (100_000 if quick else 500_000)
    return Plan(
        quick=quick,
        repetitions=max(options["repeat"] or (2 if quick else 5), 1),
        # A whole number of requests, of a fifth of them for the warm-up, and of half for SQLite.
        records=min(max(records // 10_000, 1), 1_000) * 10_000,
        single_requests=4_000 if quick else 20_000,
        say=say,
    )


def _table(figures: list[Figure]) -> Table:
    table = Table("figure", "measured", "baseline", "ratio", "spread", "goal", "", box=None)
    for figure in figures:
        shown = figure.as_json()
        low, high = shown["ratio_spread"]
        table.add_row(
            f"{figure.name}\n  against {figure.baseline_name}",
            f"{shown['value']:,.0f} {figure.unit}",
            f"{shown['baseline']:,.0f}",
            f"{shown['ratio']:.2f}",
            f"{low:.2f}-{high:.2f}",
            figure.goal_text if figure.goal else "",
            ("ok" if figure.passed else "missed") if figure.goal else "",
        )
    return table
