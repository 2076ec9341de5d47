"""A sink's own pipeline settings as people read them: in groups, with labels and units.

The form shows a setting by its label, and by its name in the help text: that is what documents,
advice and `config export` call it.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Settings that belong together: label by name."""

    title: str
    about: str
    labels: dict[str, str]


GROUPS = (
    Group(
        title="Batches",
        about="A batch is written when it is full, or when its first record has waited so long.",
        labels={
            "max_records": "Batch size (records)",
            "max_bytes": "Batch size (bytes)",
            "max_wait_s": "Longest wait (seconds)",
        },
    ),
    Group(
        title="Room and marks",
        about="How much is held for the sink, and at which shares of that clients are told, "
        "records shed, requests refused and taken again.",
        labels={
            "capacity_records": "Capacity (records)",
            "backlog_max_bytes": "Capacity (bytes)",
            "high_watermark": "Refuse from (share, 0 to 1)",
            "low_watermark": "Take again at (share, 0 to 1)",
            "hint_watermark": "Tell clients from (share, 0 to 1)",
            "shed_watermark": "Shed from (share, 0 to 1)",
            "shed_below": "Shed below level",
        },
    ),
    Group(
        title="Tenants and order",
        about="Whose records share a batch, and whether they keep their order.",
        labels={
            "partition_by": "Batches by",
            "max_partitions": "Tenants at once",
            "ordered": "In order",
        },
    ),
    Group(
        title="Workers",
        about="The scaler adds a worker when the queue fills, and takes one away when it empties.",
        labels={
            "min_workers": "Workers, at least",
            "max_workers": "Workers, at most",
            "autoscale_interval_s": "Look every (seconds)",
            "autoscale_up": "Grow above (share, 0 to 1)",
            "autoscale_up_batches": "Grow above (waiting batches)",
            "autoscale_down": "Shrink below (share, 0 to 1)",
            "autoscale_cooldown_s": "Rest after a step (seconds)",
        },
    ),
    Group(
        title="Adaptive sizes",
        about="Sizes that follow what the sink bears, in the place of fixed ones.",
        labels={
            "adaptive_batch": "Batch size adapts",
            "adaptive_start_records": "Starts at (records)",
            "adaptive_min_records": "Smallest (records)",
            "adaptive_max_records": "Largest (records)",
            "adaptive_flush_deadline_s": "Flush deadline (seconds)",
            "adaptive_concurrency": "Writes at once adapt",
        },
    ),
    Group(
        title="Retries and giving up",
        about="When a write counts as failed, and when records are given up.",
        labels={
            "attempt_timeout_s": "Write timeout (seconds)",
            "max_hung_workers": "Hung workers, at most",
            "retry_max_attempts": "Attempts, at most",
            "retry_max_age_s": "Age, at most (seconds)",
            "poison_limit": "Refused records (share, 0 to 1)",
            "dead_letters": "Dead letters go to",
        },
    ),
    Group(
        title="Breaker",
        about="A sink that keeps failing is left alone for a while.",
        labels={
            "breaker": "Breaker",
            "breaker_consecutive": "Failures in a row",
            "breaker_failure_ratio": "Failed (share, 0 to 1)",
            "breaker_min_calls": "Attempts, at least",
            "breaker_window_s": "Window (seconds)",
            "breaker_open_s": "Stays open (seconds)",
            "breaker_half_open_probes": "Probes, half-open",
        },
    ),
)


def _unbroken(label: str) -> str:
    """The label with its unit in one piece, where a line breaks."""
    words, bracket, unit = label.partition("(")
    return words + bracket + unit.replace(" ", "\N{NO-BREAK SPACE}")


LABELS = {name: _unbroken(label) for group in GROUPS for name, label in group.labels.items()}
