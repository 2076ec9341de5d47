"""Owns: the options of `manage.py produce`, and what they come to.

Runs on the command's main thread while its parser is made and its options are read.
"""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction
from typing import Any

from ingest.client.options import amount, api_key_from_environment, whole_number
from ingest.producer.durations import duration
from ingest.producer.run import RunOptions

_DAY_S = 86_400.0
_DEFAULTS = RunOptions()


def run_options(options: dict[str, Any], *, watch: bool) -> RunOptions:
    """Raises ValueError where options contradict each other."""
    if options["channel_size"] < options["batch_size"]:
        raise ValueError(
            f"--channel-size ({options['channel_size']}) must hold at least one batch of "
            f"--batch-size ({options['batch_size']})"
        )
    if options["min_workers"] > options["max_workers"]:
        raise ValueError(
            f"--min-workers ({options['min_workers']}) must not be more than --max-workers "
            f"({options['max_workers']})"
        )
    if options["scale_down"] >= options["scale_up"]:
        raise ValueError(
            f"--scale-down ({options['scale_down']:g}) must be less than --scale-up "
            f"({options['scale_up']:g})"
        )
    adaptive = options["adaptive"]
    return RunOptions(
        rate_s=options["rate"],
        channel_size=options["channel_size"],
        batch_size=options["batch_size"],
        batch_timeout_s=options["batch_timeout"],
        min_workers=options["min_workers"],
        max_workers=options["max_workers"],
        autoscale_interval_s=options["autoscale_interval"],
        scale_up=options["scale_up"],
        scale_down=options["scale_down"],
        adaptive=watch if adaptive is None else adaptive,
        # A write is over by itself; the engine's own limit is for what hangs.
        attempt_timeout_s=(options["timeout"] if options["url"] else options["sink_latency"]) + 30,
        count=options["count"],
        duration_s=options["duration"],
    )


def add_load(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--rate", type=duration(1e-6, 3600.0), default=_DEFAULTS.rate_s, metavar="D",
        help="a log each so often (100us)")  # fmt: skip
    add("--channel-size", type=whole_number(1, 1_000_000), default=_DEFAULTS.channel_size,
        metavar="N",
        help="logs that the queue holds, those being written included (1500)")  # fmt: skip
    add("--batch-size", type=whole_number(1, 100_000), default=_DEFAULTS.batch_size, metavar="N",
        help="logs at which a batch is complete (50)")  # fmt: skip
    add("--batch-timeout", type=duration(0.0, 3600.0), default=_DEFAULTS.batch_timeout_s,
        metavar="D", help="how long a log may wait for others (500ms)")  # fmt: skip
    add("--adaptive", action=BooleanOptionalAction, default=None,
        help="batches find their own size, from --batch-size on (with --watch: yes)")  # fmt: skip
    add("--sink-latency", type=duration(0.0, 3600.0), default=0.0, metavar="D",
        help="how long the sink takes for a batch (0)")  # fmt: skip


def add_workers(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--min-workers", type=whole_number(1, 1000), default=_DEFAULTS.min_workers, metavar="N",
        help="workers at the start and at least (1)")  # fmt: skip
    add("--max-workers", type=whole_number(1, 1000), default=_DEFAULTS.max_workers, metavar="N",
        help="workers at most (10)")  # fmt: skip
    add("--autoscale-interval", type=duration(0.001, 3600.0), metavar="D",
        default=_DEFAULTS.autoscale_interval_s,
        help="how often the number of workers is looked at (1s)")  # fmt: skip
    add("--scale-up", type=amount(1.0), default=_DEFAULTS.scale_up, metavar="SHARE",
        help="add a worker when more of the queue is filled (0.8)")  # fmt: skip
    add("--scale-down", type=amount(1.0), default=_DEFAULTS.scale_down, metavar="SHARE",
        help="take one away when less is filled (0.2)")  # fmt: skip


def add_server(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--url", default="", help="send to this server instead of the slow sink")
    add(
        "--api-key",
        default=api_key_from_environment(),
        metavar="KEY",
        help="the API key; better given as COLLECTOR_API_KEY, which `ps` does not show",
    )
    add("--ack", choices=("memory", "wal", "stored"), default="",
        help="the acknowledgement to ask for (the server's default)")  # fmt: skip
    add("--timeout", type=duration(0.01, 3600.0), default=10.0, metavar="D",
        help="how long to wait for an answer (10s)")  # fmt: skip
    add("--allow-remote", action="store_true", help="load another machine than this one")


def add_end(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--count", type=whole_number(1, 10**12), metavar="N", help="end after N logs")
    add("--duration", type=duration(0.001, _DAY_S), metavar="D", help="end after so long")
    add("--drain-timeout", type=duration(0.0, 3600.0), default=60.0, metavar="D",
        help="how long to wait at the end for what is held (1m)")  # fmt: skip
