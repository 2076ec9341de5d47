"""Stop signals of a process that is told once to stop, as its stop goes on and when it is over.

Main threads only.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

from control.processes import lifecycle

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def while_stopping(number: int, frame: FrameType | None) -> None:
    """The handler while services stop: a second Ctrl-C cuts that short, others change nothing."""
    if number == signal.SIGINT:
        # On a thread of its own: a handler must not take locks.
        threading.Thread(target=lifecycle.hurry, name="control-hurry", daemon=True).start()


def ignore() -> None:
    """The work is done: from now on no signal changes the exit status.

    The interpreter takes its time to end and puts the default action in the place of handlers
    then.  A Ctrl-C, or whatever is sent twice, would end the process as if it had been killed.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
