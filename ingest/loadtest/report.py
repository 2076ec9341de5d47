"""Owns: how a load test's result looks to a person. Runs on the command's main thread."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_report(console: Console, result: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for label, value in _rows(result):
        table.add_row(label, value)
    console.print(table)
    for reason in result["rejections"]:
        console.print(f"  not accepted: {reason}", style="yellow", markup=False)
    if result["ended"]:
        console.print(f"  {result['ended']}", style="red", markup=False)
    verdict = result.get("verify")
    if verdict is not None and not verdict["passed"]:
        if verdict["hint"]:
            console.print(f"  {verdict['hint']}", style="red", markup=False)
        for kind, examples in verdict["examples"].items():
            console.print(f"  {kind}, for example: {examples}", style="red", markup=False)


def _rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    latency = result["latency_ms"]
    rows = [
        ("run", f"{result['run']}  {result['url']}"),
        (
            "throughput",
            f"{result['records_per_second']:,.0f} records/s accepted, "
            f"{result['requests_per_second']:,.0f} requests/s, in {result['seconds']:.2f} s",
        ),
        (
            "records",
            f"{result['records_accepted']:,} accepted, {result['records_rejected']:,} rejected, "
            f"{result['records_unaccepted']:,} not accepted"
            + (f", {result['records_shed']:,} shed" if result["records_shed"] else "")
            + (f", {result['records_unsent']:,} not sent" if result["records_unsent"] else ""),
        ),
        (
            "latency",
            "no request was accepted"
            if latency["p50"] is None
            else f"p50 {latency['p50']:.1f} ms   p95 {latency['p95']:.1f} ms   "
            f"p99 {latency['p99']:.1f} ms   max {latency['max']:.1f} ms",
        ),
        ("statuses", _counts(result["statuses"]) or "none"),
        ("retries", _counts(result["retries"]) or "none"),
    ]
    if result["lost_connections"]:
        rows.append(("lost connections", f"{result['lost_connections']:,}"))
    if result["max_late_ms"]:
        rows.append(("latest start", f"{result['max_late_ms']:.1f} ms behind the schedule"))
    verdict = result.get("verify")
    if verdict is not None:
        rows.append(
            (
                "verified",
                f"{'each once' if verdict['passed'] else 'FAILED'}: "
                f"{verdict['acknowledged']:,} acknowledged, {verdict['found']:,} found, "
                f"{verdict['missing']:,} missing, {verdict['duplicates']:,} duplicate, "
                f"{verdict['spurious']:,} spurious"
                + (
                    f", {verdict['repeated_after_lost_answers']:,} sent again after a lost answer"
                    if verdict["repeated_after_lost_answers"]
                    else ""
                ),
            )
        )
        rows.append(("looked in", verdict["database"]))
    return rows


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {n:,}" for name, n in counts.items())
