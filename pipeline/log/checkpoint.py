"""The checkpoint: how far each sink has settled, with the ledger of the same moment."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.ledger import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Below `positions[sink]` every frame of the log has settled for that sink."""

    log_id: str
    positions: dict[str, int]
    tallies: dict[tuple[str, str], Tally]
