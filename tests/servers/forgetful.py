"""The real server with a defect put in: it forgets one batch between its sink and the ledger.

Run as `python -m tests.servers.forgetful`, it patches the engine and goes on as gunicorn.  The
end of the batch that holds a record with the message `LOST` reaches neither ledger nor log, as
with a bug in the engine; everything else goes its way.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.servers.collector import SERVER

LOST = "this one is lost on purpose"


def forget_a_batch() -> None:
    from pipeline.log.log import Log

    end = Log.end

    def forget(log: Any, sink: str, parts: Any, *rest: Any, **more: Any) -> Any:
        if any(record.message == LOST for part in parts for record in part.records):
            return []  # the worker lets go of it, and no account has heard of its end
        return end(log, sink, parts, *rest, **more)

    Log.end = forget  # type: ignore[method-assign, assignment]


def main() -> None:
    from gunicorn.app.wsgiapp import run

    forget_a_batch()
    sys.argv = ["gunicorn", *SERVER[3:]]
    run()


if __name__ == "__main__":
    main()
