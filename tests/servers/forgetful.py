"""The real server with a defect put in: it forgets one batch between its sink and the ledger.

Run as `python -m tests.servers.forgetful`, it patches the engine and goes on as gunicorn.  The
batch that holds a record with the message `LOST` is taken from its worker without a word, as a
bug in the engine would; everything else goes its way.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.servers.collector import SERVER

LOST = "this one is lost on purpose"


def forget_a_batch() -> None:
    from pipeline.pipeline import Pipeline

    finish = Pipeline._finish

    def forget(pipeline: Any, worker: Any, batch: Any, *rest: Any) -> Any:
        if any(record.message == LOST for record in batch.records):
            with pipeline.lock:
                worker.batch = None
            return None
        return finish(pipeline, worker, batch, *rest)

    Pipeline._finish = forget  # type: ignore[method-assign, assignment]


def main() -> None:
    from gunicorn.app.wsgiapp import run

    forget_a_batch()
    sys.argv = ["gunicorn", *SERVER[3:]]
    run()


if __name__ == "__main__":
    main()
