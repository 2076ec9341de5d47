"""What the control plane forgets: old samples, workers' lives, dead processes, answered requests.

Run by the heart of every process; deleting twice is harmless.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from control.processes.models import PipelineSample, Process, ProcessRequest, WorkerRun

INTERVAL_S = 600.0
REQUESTS_KEPT = timedelta(days=1)


def forget_old(now: datetime, *, samples_hours: int, worker_runs_days: int) -> dict[str, int]:
    """Delete what is past its time; returns how many rows by model."""
    lives = now - timedelta(days=worker_runs_days)
    samples = now - timedelta(hours=samples_hours)
    old = {
        "samples": PipelineSample.objects.filter(at__lt=samples),
        "requests": ProcessRequest.objects.filter(created_at__lt=now - REQUESTS_KEPT),
        "worker_runs": WorkerRun.objects.filter(ended_at__lt=lives),
        # By the end of a life, so that its workers' history stays with it as long.
        "processes": Process.objects.filter(stopped_at__lt=lives),
    }
    return {name: rows.delete()[0] for name, rows in old.items()}
