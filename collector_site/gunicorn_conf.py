"""gunicorn's configuration, from this installation's settings. Runs in the arbiter before it forks.

gunicorn -c collector_site/gunicorn_conf.py
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from collector_site import announce, memory, metricsdir
from collector_site.environment import BASE_DIR, installation
from collector_site.serverlog import ServerLog
from control.processes import stopsignals

# Read anew by a reload (SIGHUP), and by the workers that it forks.
installation.cache_clear()
_server = installation().server
memory.bound_arenas()

wsgi_app = "collector_site.wsgi:application"
chdir = str(BASE_DIR)
bind = (
    f"[{_server.host}]:{_server.port}" if ":" in _server.host else f"{_server.host}:{_server.port}"
)
proc_name = "collector"

worker_class = "collector_site.worker.CollectorWorker"
workers = _server.workers
threads = _server.threads
worker_connections = max(2048, _server.threads * 4)
backlog = 2048
# The services' threads belong to the worker that uses them; nothing may start in the parent.
preload_app = False

# The worker's loop reports every second; what takes this long is a stopped machine.
timeout = 60
graceful_timeout = max(2, int(_server.stop_deadline_s))
keepalive = 15
# On disk the heartbeat file could wait for the very flush it should outlive.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108

control_socket_disable = True
forwarded_allow_ips = ",".join(_server.trusted_proxies)
logger_class = ServerLog
accesslog = None

if workers > 1:
    # Read by the metrics library when it is first imported, which happens in the workers.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metricsdir.make(_server.data_dir))
else:
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


def when_ready(server: Any) -> None:
    announce.arm(server)


def child_exit(server: Any, worker: Any) -> None:
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    stopsignals.ignore()
    metricsdir.remove()
    if announce.loss_was_told():
        sys.exit(1)
