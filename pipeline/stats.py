"""An engine's figures as plain JSON values: for /stats, the heartbeat and the dashboard.

Counts of records are taken under the pipeline's and the log's lock together, so that a ledger
and what is held agree to the record.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pipeline.ledger import Tally

if TYPE_CHECKING:
    from pipeline.adoption import Adopted
    from pipeline.delivery.workers import WorkerRun
    from pipeline.engine import Engine
    from pipeline.pipeline import Pipeline


def engine_stats(engine: Engine) -> dict[str, Any]:
    """The logs, each pipeline, the ledger by sink and tenant, and each living worker.

    The ledger is that of this process's own log; those of adopted logs, which dead processes had
    begun, stand with them under `log.adopted`.
    """
    pipelines, tallies, in_flight = _count(engine)
    names = engine.names
    return {
        "log_id": engine.log_id,
        "log": _log_stats(engine, in_flight),
        "pipelines": [_pipeline_stats(p, tallies, in_flight) for p in pipelines],
        "ledger": ledger_rows(tallies, in_flight, names),
        "workers": [_worker_stats(p, run) for p in pipelines for run in p.runs()],
    }


def ledger_rows(
    tallies: dict[tuple[str, str], Tally],
    in_flight: dict[tuple[str, str], int],
    names: dict[str, str],
) -> list[dict[str, Any]]:
    """Tallies as plain JSON values."""
    return [
        {
            "sink": names.get(sink, sink),
            "tenant": tenant,
            "accepted": tally.accepted,
            "redriven": tally.redriven,
            "stored": tally.stored,
            "already_stored": tally.already_stored,
            "dead_lettered": tally.dead_lettered,
            "dropped": tally.dropped,
            "in_flight": in_flight.get((sink, tenant), 0),
            "imbalance": tally.imbalance(in_flight.get((sink, tenant), 0)),
        }
        for (sink, tenant), tally in sorted(tallies.items())
    ]


def _log_stats(engine: Engine, in_flight: dict[tuple[str, str], int]) -> dict[str, Any]:
    files = engine.journal.files
    figures: dict[str, Any] = {"log_id": engine.log_id, "state": "memory", "error": ""}
    if files is not None:
        figures |= files.stats()
    adoption = engine.adoption
    damage = adoption.damage() if adoption is not None else Counter()
    for name in ("corrupt_frames", "torn_frames", "quarantined_bytes", "corrupt_records"):
        figures[name] = int(figures.get(name, 0)) + damage[name]
    return figures | {
        "cache_bytes": engine.journal.cached_bytes,
        "left_records": sum(in_flight.values()),
        "adopted": adopted_stats(engine),
        "unreadable": dict(adoption.failed) if adoption is not None else {},
    }


def adopted_stats(engine: Engine) -> list[dict[str, Any]]:
    """The figures of each adopted log, with its ledger."""
    adoption = engine.adoption
    if adoption is None:
        return []
    held = {one.log.log_id: one for one in adoption.adopted}
    found = []
    for one in adoption.stats():
        adopted = held.get(one["log_id"])
        if adopted is not None:
            tallies, left = count_adopted(engine, adopted)
            rows = ledger_rows(tallies, left, engine.names)
            found.append({**one, "left_records": sum(left.values()), "ledger": rows})
    return found


Counts = tuple[dict[tuple[str, str], Tally], dict[tuple[str, str], int]]


def count_adopted(engine: Engine, adopted: Adopted) -> Counts:
    """The tallies of an adopted log, and what is held of it under each of them."""
    journal = adopted.log
    tallies: dict[tuple[str, str], Tally] = {}
    in_flight: dict[tuple[str, str], int] = {}
    pipelines = engine.pipelines + engine.retired
    for pipeline in pipelines:
        with pipeline.lock, journal.lock:
            if pipeline.key in adopted.claimed:
                held = pipeline.held_by_tenant(journal)
                in_flight |= journal.ledger.by_tally(pipeline.key, held)
                tallies |= journal.ledger.tallies(pipeline.key)
    for sink in adopted.sinks - adopted.claimed:
        with journal.lock:
            in_flight |= journal.ledger.by_tally(sink, adopted.unclaimed(sink))
            tallies |= journal.ledger.tallies(sink)
    counted = {sink for sink, _ in tallies}
    tallies |= {key: t for key, t in journal.ledger.tallies().items() if key[0] not in counted}
    return tallies, in_flight


def _count(engine: Engine) -> tuple[list[Pipeline], *Counts]:
    """The pipelines, the tallies, and what is held under each of them."""
    journal = engine.journal
    ledger = journal.ledger
    while True:
        pipelines = engine.pipelines + engine.retired
        tallies: dict[tuple[str, str], Tally] = {}
        in_flight: dict[tuple[str, str], int] = {}
        for pipeline in pipelines:
            with pipeline.lock, journal.lock:
                in_flight |= ledger.by_tally(pipeline.key, pipeline.held_by_tenant(journal))
                tallies |= ledger.tallies(pipeline.key)
        # The rows of sinks that are gone, and of what no sink took, never stand half-way.
        counted = {pipeline.key for pipeline in pipelines}
        tallies |= {key: t for key, t in ledger.tallies().items() if key[0] not in counted}
        if set(engine.pipelines + engine.retired) <= set(pipelines):
            return pipelines, tallies, in_flight
        # A sink was added meanwhile, whose records are in a row already and were counted nowhere.


def _pipeline_stats(
    pipeline: Pipeline,
    tallies: dict[tuple[str, str], Tally],
    in_flight: dict[tuple[str, str], int],
) -> dict[str, Any]:
    spec, figures, admission = pipeline.spec, pipeline.figures, pipeline.admission
    own = [tally for (sink, _), tally in tallies.items() if sink == pipeline.key]
    workers = pipeline.workers
    with pipeline.lock:
        flushes, dropped = dict(figures.flushes), dict(figures.dropped)
        latency = figures.write_quantiles()
        breaker = pipeline.breaker_stats()
        batch_limit, write_limit = pipeline.batch_limit, pipeline.write_limit
        scaled = figures.scaled_up, figures.scaled_down
    return {
        "key": pipeline.key,
        "name": spec.name,
        "state": pipeline.state,
        "misconfigured": spec.misconfigured,
        "required": spec.required,
        "paused": spec.paused,
        **admission.figures(),
        "capacity_records": spec.settings.capacity_records,
        "backlog_max_bytes": spec.settings.backlog_max_bytes,
        "in_flight": sum(n for (sink, _), n in in_flight.items() if sink == pipeline.key),
        "workers": len(workers),
        "busy_workers": sum(worker.batch is not None for worker in workers),
        "min_workers": spec.settings.min_workers,
        "max_workers": spec.settings.max_workers,
        "max_records": spec.settings.max_records,
        "hint_watermark": spec.settings.hint_watermark,
        "high_watermark": spec.settings.high_watermark,
        "low_watermark": spec.settings.low_watermark,
        "shed_watermark": spec.settings.shed_watermark,
        "internal": spec.internal,
        "capped": sorted(spec.capped),
        "batch_limit": batch_limit,
        "write_limit": write_limit,
        "scaled_up": scaled[0],
        "scaled_down": scaled[1],
        "accepted": sum(tally.accepted for tally in own),
        "stored": sum(tally.stored for tally in own),
        "already_stored": sum(tally.already_stored for tally in own),
        "dead_lettered": sum(tally.dead_lettered for tally in own),
        "dropped": dropped,
        "shed": dropped.get("shed", 0),
        "flushes": flushes,
        "retries": figures.retries,
        "failures": figures.failures,
        "last_error": figures.last_error,
        "last_error_at": figures.last_error_us / 1e6 if figures.last_error_us else None,
        "writes": figures.writes,
        "write_seconds_sum": figures.write_seconds_sum,
        "write_latency": latency,
        "oldest_s": pipeline.oldest_s(),
        "breaker": breaker,
        "hung_workers": pipeline.hung,
    }


def _worker_stats(pipeline: Pipeline, run: WorkerRun) -> dict[str, Any]:
    return {
        "pipeline": pipeline.spec.name,
        "worker": run.worker,
        "started_at": run.started_us / 1e6,
        "records": run.records,
        "batches": run.batches,
        "failures": run.failures,
        "busy": run.busy,
    }
