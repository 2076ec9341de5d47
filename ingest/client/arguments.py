"""Owns: the arguments that every sending command has, so that they are declared once.

Runs on the command's main thread while its parser is made.
"""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction

from ingest.client.options import amount, api_key_from_environment

_DAY_S = 86_400


def add_sending(
    parser: ArgumentParser,
    *,
    idempotency_keys: bool,
    timeout_s: float,
    retry_for_s: float,
) -> None:
    """Where to send to, as whom, what to wait for, and how long to try; with a command's defaults.

    `retry_for_s` 0 means without end.
    """
    add = parser.add_argument
    add("--url", default="", help="the server (where this installation's own listens)")
    add(
        "--api-key",
        default=api_key_from_environment(),
        metavar="KEY",
        help="the API key; better given as COLLECTOR_API_KEY, which `ps` does not show",
    )
    add(
        "--ack",
        choices=("memory", "wal", "stored"),
        default="",
        help="the acknowledgement to ask for (the server's default)",
    )
    add(
        "--idempotency-keys",
        action=BooleanOptionalAction,
        default=idempotency_keys,
        help="send an Idempotency-Key with each request, so that one that is repeated after its "
        f"answer was lost is not stored twice ({'yes' if idempotency_keys else 'no'})",
    )
    add(
        "--timeout",
        type=amount(_DAY_S, low=0.01),
        default=timeout_s,
        metavar="S",
        help=f"how long to wait for an answer ({timeout_s:g})",
    )
    add(
        "--retry-for",
        type=amount(365 * _DAY_S),
        default=retry_for_s,
        metavar="S",
        help="how long to go on with a request that is refused or loses its connection "
        f"({f'{retry_for_s:g}' if retry_for_s else '0: without end'})",
    )
    add("--json", action="store_true", help="print the result as one JSON object")


def with_ack(path: str, ack: str) -> str:
    """The address that asks for an acknowledgement."""
    return f"{path}?ack={ack}" if ack else path
