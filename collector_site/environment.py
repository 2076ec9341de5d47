"""This installation's settings, read once per process; needs no Django.

The server's parent and the supervisor read them here, Django's settings build on them.
"""

from __future__ import annotations

import dataclasses
import os
from functools import cache
from pathlib import Path

import environ

from collector_site.secretkey import secret_key
from control.config.settings import Settings, load

BASE_DIR = Path(__file__).resolve().parent.parent


@cache
def installation() -> Settings:
    """Environment (with `.env`) over the TOML file over defaults, with the secret key in place."""
    environ.Env.read_env(os.environ.get("COLLECTOR_ENV_FILE", BASE_DIR / ".env"))
    loaded = load(os.environ, os.environ.get("COLLECTOR_CONFIG") or None)
    data_dir = BASE_DIR / loaded.server.data_dir
    server = dataclasses.replace(loaded.server, data_dir=data_dir)
    mistakes = list(loaded.mistakes)
    if not server.secret_key:
        key, mistake = secret_key(data_dir)
        server = dataclasses.replace(server, secret_key=key)
        mistakes += [mistake] if mistake else []
    log = loaded.log
    if log.directory is not None:
        log = dataclasses.replace(log, directory=BASE_DIR / log.directory)
    return dataclasses.replace(loaded, server=server, log=log, mistakes=tuple(mistakes))
