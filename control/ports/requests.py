"""What a process can be asked to do by another one: handlers of `control.ProcessRequest` by kind.

A handler runs on a thread of its own in the process that was asked, takes the request's
arguments and returns a JSON-able result. An exception becomes the request's result `{"error":
…}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from control.ports.registry import Registry

RequestHandler = Callable[[dict[str, Any]], Any]

_handlers: Registry[RequestHandler] = Registry(what="request handler")


def register_request_handler(kind: str, handler: RequestHandler) -> None:
    _handlers.register(kind, handler)


def unregister_request_handler(kind: str) -> None:
    _handlers.unregister(kind)


def request_handler(kind: str) -> RequestHandler | None:
    return _handlers.get(kind)


def request_kinds() -> list[str]:
    return sorted(name for name, _ in _handlers.items())
