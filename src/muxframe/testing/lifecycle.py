"""The engine, and the life of its containers: ping, version, create, start, kill, wait, remove, inspect."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from secrets import token_hex
from typing import TYPE_CHECKING

from .containers import Container
from .personality import JSON, PLAIN, RefusedError, dump
from .processes import SIGKILL, signal_number

if TYPE_CHECKING:
    from .exchange import Exchange, Headers

NEVER = "0001-01-01T00:00:00Z"

STOP_TIMEOUT = 10.0  # seconds from SIGTERM to SIGKILL

PID = 4242  # of whatever runs


def ping(x: Exchange, _: str) -> None:
    """GET, HEAD /_ping."""
    headers: Headers = {**x.personality.ping_headers(), "Content-Type": PLAIN}
    if x.request.method == "GET":
        return x.reply(200, b"OK", headers)
    if not x.personality.is_docker:
        headers |= {"Content-Type": None, "Content-Length": None}
    x.reply(200, b"", headers)


def version(x: Exchange, _: str) -> None:
    """GET /version."""
    p = x.personality
    details = {"ApiVersion": p.api_version} if p.is_docker else {"APIVersion": p.server_version}
    engine = {"Name": "Engine" if p.is_docker else "Podman Engine", "Version": p.server_version, "Details": details}
    x.json(
        {
            "Platform": {"Name": "" if p.is_docker else "linux/amd64"},
            "Components": [engine],
            "Version": p.server_version,
            "ApiVersion": p.api_version,
            "MinAPIVersion": p.min_api_version,
            "Os": "linux",
            "Arch": "amd64",
        }
    )


def create(x: Exchange, _: str) -> None:
    """POST /containers/create. There are no images: what runs is up to `on_create`."""
    config = x.document()
    name = x.request.query.get("name") or f"nameless_{token_hex(4)}"
    taken = x.engine.find("container", name)
    if taken is not None:
        raise x.personality.name_taken(name, taken.id)
    command = [*strings(config.get("Entrypoint")), *strings(config.get("Cmd"))]
    container = Container(
        name,
        x.engine.script_for(x.engine.on_create, command),
        state="created",
        tty=bool(config.get("Tty")),
        open_stdin=bool(config.get("OpenStdin")),
        stdin_once=bool(config.get("StdinOnce")),
        labels=config.get("Labels"),
        auto_remove=bool((config.get("HostConfig") or {}).get("AutoRemove")),
        command=command,
        config=config,
    )
    x.engine.add(container)
    x.json({"Id": container.id, "Warnings": []}, 201)


def strings(value: object) -> list[str]:
    """Return a command's words: JSON has a list, or one string."""
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, list) else []


def inspect(x: Exchange, name: str) -> None:
    """GET /containers/{id}/json. Real documents are large, and so chunked."""
    document = describe(x.container(name))
    x.start_body(JSON)
    x.send(dump(document))
    x.finish()


def describe(container: Container) -> dict[str, object]:
    """Return what inspect says of a container: what clients of streams look at, and little else."""
    command = container.command or ("script",)
    state = {
        "Status": container.state,
        "Running": container.is_running,
        "Paused": container.state == "paused",
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": PID if container.is_running else 0,
        "ExitCode": container.exit_code,
        "Error": "",
        "StartedAt": go_time(container.started),
        "FinishedAt": go_time(container.finished),
    }
    config = {
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": container.tty,
        "OpenStdin": container.open_stdin,
        "StdinOnce": container.stdin_once,
        "Env": container.config.get("Env") or [],
        "Cmd": list(container.command),
        "Image": container.config.get("Image", "image"),
        "Labels": container.labels,
    }
    return {
        "Id": container.id,
        "Created": go_time(container.created),
        "Path": command[0],
        "Args": list(command[1:]),
        "State": state,
        "Name": f"/{container.name}",
        "RestartCount": 0,
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {}}, "AutoRemove": container.auto_remove},
        "Config": config,
    }


def list_containers(x: Exchange, _: str) -> None:
    """GET /containers/json."""
    filters = Filters(x)
    listed = [each for each in x.engine.containers() if x.request.flag("all") or each.is_running]
    x.json([summarize(each) for each in listed if filters.take(each)])


def summarize(container: Container) -> dict[str, object]:
    """Return what a list says of a container."""
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": container.config.get("Image", "image"),
        "Command": " ".join(container.command),
        "Created": container.created // 10**9,
        "Labels": container.labels,
        "State": container.state,
        "Status": container.state.capitalize(),
    }


class Filters:
    """What a request's `filters` let through: those that clients of logs use, and no others."""

    def __init__(self, x: Exchange) -> None:
        try:
            asked = json.loads(x.request.query.get("filters") or "{}")
            self._wanted = {name: list(values) for name, values in asked.items()}
        except (ValueError, AttributeError, TypeError):
            raise RefusedError(400, "invalid filter") from None

    def take(self, container: Container) -> bool:
        """Say whether a container is among them."""
        labels = {*container.labels, *(f"{name}={value}" for name, value in container.labels.items())}
        names, ids = self._wanted.get("name"), self._wanted.get("id")
        return (
            (not names or any(name in container.name for name in names))
            and (not ids or any(container.id.startswith(id) for id in ids))
            and labels.issuperset(self._wanted.get("label", ()))
        )

    def take_event(self, action: str, container: Container) -> bool:
        """Say whether an event is among them."""
        actions = self._wanted.get("event")
        return (not actions or action in actions) and self.take(container)


def events(x: Exchange, _: str) -> None:
    """GET /events: what happened since, and what happens, each as one JSON object in a line."""
    filters = Filters(x)
    since = int(x.request.query.get("since") or 0) * 10**9
    log, position = x.engine.events, 0
    if not since:
        position = len(log)
    x.start_body(JSON)
    while True:
        x.watch(x.engine.happened, lambda known=position: len(log) > known)  # type: ignore[misc]
        fresh = log[position:]
        position += len(fresh)  # others come while these are sent
        for time, action, container in fresh:
            if time >= since and filters.take_event(action, container):
                x.send(dump(describe_event(time, action, container)))


def describe_event(time: int, action: str, container: Container) -> dict[str, object]:
    """Return an event as it is sent."""
    attributes = {**container.labels, "image": "image", "name": container.name}
    return {
        "status": action,
        "id": container.id,
        "Type": "container",
        "Action": action,
        "Actor": {"ID": container.id, "Attributes": attributes},
        "scope": "local",
        "time": time // 10**9,
        "timeNano": time,
    }


def go_time(nanoseconds: int, *, whole_seconds: bool = False) -> str:
    """Write a time, in nanoseconds since 1970, as Go does; 0 is Go's zero time."""
    if not nanoseconds:
        return NEVER
    seconds, rest = divmod(nanoseconds, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}Z" if whole_seconds else f"{text}.{rest:09}Z"


def start(x: Exchange, name: str) -> None:
    """POST /containers/{id}/start."""
    container = x.container(name)
    if container.state == "paused":
        raise x.personality.paused_at_start(container.id)
    if container.is_running:
        return x.reply(304)
    container.start()
    x.reply(204)


def stop(x: Exchange, name: str) -> None:
    """POST /containers/{id}/stop."""
    container = x.container(name)
    if not container.is_running:
        return x.reply(304)
    _stop(x, container)
    x.reply(204)


def restart(x: Exchange, name: str) -> None:
    """POST /containers/{id}/restart."""
    container = x.container(name)
    if container.is_running:
        _stop(x, container)
    container.start()
    x.reply(204)


def _stop(x: Exchange, container: Container) -> None:
    """SIGTERM, and SIGKILL a while later."""
    container.kill(15)
    timeout = float(x.request.query.get("t") or x.request.query.get("timeout") or STOP_TIMEOUT)
    if not x.watch(container.changed, lambda: not container.is_running, timeout):
        container.kill(SIGKILL)


def kill(x: Exchange, name: str) -> None:
    """POST /containers/{id}/kill."""
    container = x.container(name)
    text = x.request.query.get("signal") or "KILL"
    try:
        number = signal_number(text)
    except ValueError:
        raise x.personality.bad_signal(name, text) from None
    if not container.is_running:
        raise x.personality.not_running_at_kill(name, container.id, container.state)
    container.kill(number)
    x.reply(204)


def pause(x: Exchange, name: str) -> None:
    """POST /containers/{id}/pause."""
    _pause(x, name, paused=True)


def unpause(x: Exchange, name: str) -> None:
    """POST /containers/{id}/unpause."""
    _pause(x, name, paused=False)


def _pause(x: Exchange, name: str, *, paused: bool) -> None:
    container = x.container(name)
    if not container.is_running:
        raise x.personality.not_running(container.id, f'"{container.id}" is not running, can\'t pause')
    container.pause(paused)
    x.reply(204)


def remove(x: Exchange, name: str) -> None:
    """DELETE /containers/{id}."""
    container = x.engine.find("container", name)
    if container is None:
        raise x.personality.no_container_to_remove(name)
    if container.is_running and not x.request.flag("force"):
        raise x.personality.running_at_remove(container.name, container.id)
    x.engine.discard(container)
    x.reply(204)


def wait(x: Exchange, name: str) -> None:
    """POST /containers/{id}/wait: the head at once, the body when it is so far."""
    container = x.container(name)
    exits = container.exits
    conditions = {
        "not-running": lambda: not container.is_running,
        "next-exit": lambda: container.exits > exits or container.is_removed,
        "removed": lambda: container.is_removed,
    }
    condition = x.request.query.get("condition") or "not-running"
    if condition not in conditions:
        x.personality.check_condition(condition)
        condition = "not-running"
    x.start_body(JSON)
    container.begin()
    x.watch(container.changed, conditions[condition])
    x.send(dump(x.personality.wait_document(container.exit_code, is_removed=condition == "removed")))
    x.finish()


def resize(x: Exchange, name: str) -> None:
    """POST /containers/{id}/resize."""
    container = x.container(name)
    height, width = size_asked(x)
    if container.process is None or not container.is_running:
        text = "can only resize created or running containers"
        raise x.personality.not_running(container.id, text, podman_status=409)
    container.process.resize(height, width)
    x.reply(200)


def size_asked(x: Exchange) -> tuple[int, int]:
    """Return the height and width in the query."""
    texts = [x.request.query.get(name, "") for name in ("h", "w")]
    for name, text in zip("hw", texts):
        if not text.isdigit():
            raise x.personality.bad_size(x.request.target, name, text)
    return int(texts[0]), int(texts[1])


# --- swarm -----------------------------------------------------------------------------------------------------------


def swarm(x: Exchange, kind: str, name: str) -> Container:
    """Find a service or task. An engine that has neither is no part of a swarm."""
    if not x.personality.is_docker:
        raise RefusedError(503, f"Podman does not support service: {x.request.target}", is_bare=True)
    if not x.engine.is_swarm:
        advice = 'Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
        raise RefusedError(503, f"This node is not a swarm manager. {advice}")
    found = x.engine.find(kind, name)
    if found is None:
        raise RefusedError(404, f"{kind} {name} not found")
    return found


def service(x: Exchange, name: str) -> None:
    """GET /services/{id}."""
    found = swarm(x, "service", name)
    template = {"ContainerSpec": {"Image": "image", "TTY": found.tty}}
    x.json({"ID": found.id, "Spec": {"Name": found.name, "Labels": found.labels, "TaskTemplate": template}})


def task(x: Exchange, name: str) -> None:
    """GET /tasks/{id}."""
    found = swarm(x, "task", name)
    x.json({"ID": found.id, "Spec": {"ContainerSpec": {"Image": "image", "TTY": found.tty}}})
