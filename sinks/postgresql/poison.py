"""How a batch with refused rows is stored at near its usual speed: in pieces with savepoints.

PostgreSQL names the row that it refuses, and takes everything since the last savepoint back with
it.  With one COPY for a batch of 5,000, five bad rows cost the batch nearly three times over; in
pieces each costs about half a piece.  Pieces cost too: a clean batch goes in one COPY as long as
few rows were refused lately.

`_lock` guards the rate of refusals; used by all workers of a sink.
"""

from __future__ import annotations

import math
import threading

PIECE_COST_ROWS = 50
"""What a savepoint and a COPY of their own cost, in rows of COPY."""
SMALLEST_PIECE = 16
WINDOW_ROWS = 20_000
"""The rate of refusals is that of about so many rows."""
LEAST_RATE = 1 / 5_000
"""What a first refusal says about the rows around it."""
MAX_ISOLATED = 16
MAX_SHARE = 0.05


def most_refused(rows: int) -> int:
    """Rows taken out of one batch before it is handed back: beyond, the sink may be at fault."""
    return max(MAX_ISOLATED, int(rows * MAX_SHARE))


class PoisonRate:
    """The share of rows refused lately, and the sizes of pieces that follow from it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rate = 0.0

    def count(self, *, rows: int, refused: int) -> None:
        """A batch was stored without its refused rows."""
        weight = min(1.0, rows / WINDOW_ROWS)
        with self._lock:
            self._rate += weight * (refused / rows - self._rate)

    def pieces_expected(self, rows: int) -> int:
        """Rows in each piece; 0 while sending the whole and repeating it costs less."""
        with self._lock:
            rate = self._rate
        # Half the batch lost as often as a row is refused, against the cost of best pieces.
        if rate * rows * rows <= 8 * PIECE_COST_ROWS:
            return 0
        size = _best_piece(rate)
        return size if size < rows else 0

    def pieces_needed(self, rows: int) -> int:
        """Rows in each piece of a batch that was just refused as a whole."""
        with self._lock:
            rate = self._rate
        return min(rows, _best_piece(max(rate, LEAST_RATE, 1 / max(1, rows))))


def _best_piece(rate: float) -> int:
    """The least of `PIECE_COST_ROWS / size + rate * size`."""
    return max(SMALLEST_PIECE, round(math.sqrt(PIECE_COST_ROWS / rate)))
