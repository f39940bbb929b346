"""Which path is answered by what."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from . import lifecycle, streams, websocket
from .personality import JSON, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .exchange import Exchange


class Route(NamedTuple):
    """A path and the function that answers it; the function gets the name that is in the path."""

    name: str
    method: str
    path: re.Pattern[str]
    answer: Callable[[Exchange, str], None]


def _route(name: str, method: str, path: str, answer: Callable[[Exchange, str], None]) -> Route:
    return Route(name, method, re.compile(path.replace("{id}", "([^/]+)")), answer)


#: The names are those that `LoopbackEngine.fault` takes.
ROUTES = [
    _route("ping", "GET", "/_ping", lifecycle.ping),
    _route("version", "GET", "/version", lifecycle.version),
    _route("events", "GET", "/events", lifecycle.events),
    _route("list", "GET", "/containers/json", lifecycle.list_containers),
    _route("create", "POST", "/containers/create", lifecycle.create),
    _route("inspect", "GET", "/containers/{id}/json", lifecycle.inspect),
    _route("start", "POST", "/containers/{id}/start", lifecycle.start),
    _route("restart", "POST", "/containers/{id}/restart", lifecycle.restart),
    _route("stop", "POST", "/containers/{id}/stop", lifecycle.stop),
    _route("kill", "POST", "/containers/{id}/kill", lifecycle.kill),
    _route("pause", "POST", "/containers/{id}/pause", lifecycle.pause),
    _route("unpause", "POST", "/containers/{id}/unpause", lifecycle.unpause),
    _route("wait", "POST", "/containers/{id}/wait", lifecycle.wait),
    _route("resize", "POST", "/containers/{id}/resize", lifecycle.resize),
    _route("remove", "DELETE", "/containers/{id}", lifecycle.remove),
    _route("attach", "POST", "/containers/{id}/attach", streams.attach),
    _route("attach-ws", "GET", "/containers/{id}/attach/ws", websocket.attach),
    _route("logs", "GET", "/containers/{id}/logs", streams.logs),
    _route("exec-create", "POST", "/containers/{id}/exec", streams.exec_create),
    _route("exec-start", "POST", "/exec/{id}/start", streams.exec_start),
    _route("exec-inspect", "GET", "/exec/{id}/json", streams.exec_inspect),
    _route("exec-resize", "POST", "/exec/{id}/resize", streams.exec_resize),
    _route("service", "GET", "/services/{id}", lifecycle.service),
    _route("service-logs", "GET", "/services/{id}/logs", streams.service_logs),
    _route("task", "GET", "/tasks/{id}", lifecycle.task),
    _route("task-logs", "GET", "/tasks/{id}/logs", streams.task_logs),
]


def find_route(method: str, path: str) -> tuple[Route | None, str]:
    """Find what answers a request, and the name in its path."""
    for route in ROUTES:
        found = route.path.fullmatch(path)
        if found and (method == route.method or (method, route.name) == ("HEAD", "ping")):
            return route, unquote(found[1]) if found.re.groups else ""
    return None, ""


def answer(x: Exchange, route: Route | None, name: str) -> None:
    """Answer a request."""
    p = x.personality
    if route is None or (route.name == "attach-ws" and not websocket.is_available(p)):
        return _no_route(x)
    wrong = p.check_version(x.request)
    if wrong is not None:
        no_flag = {"Docker-Experimental": None}
        if p.says_in_text(wrong):
            return x.text(400, f"{wrong.message}\n", {**p.headers(), **no_flag})
        return x.reply(400, p.error_body(wrong), {**no_flag, "Content-Type": JSON})
    try:
        route.answer(x, name)
    except RefusedError as error:
        if route.name == "attach":
            x.refuse_hijacked(error)
        else:
            x.refuse(error)


def _no_route(x: Exchange) -> None:
    if x.personality.is_docker:
        x.refuse(RefusedError(404, "page not found", is_bare=True))
    elif any(route.path.fullmatch(x.request.path) for route in ROUTES if route.name != "attach-ws"):
        x.text(405, "Method Not Allowed\n")
    else:
        x.text(404, "Not Found\n")
