#!/usr/bin/env python3
"""Record what real engines answer, so that the loopback engine can be held to it (test_testing_recorded.py).

    . engines.env && python tests/recorded/record.py

talks to the engines that the environment names, and writes one JSON file for each version beside this script. Each
file has conversations; each conversation has steps: the bytes of a request, and the head and body of its answer. What
differs from run to run is replaced: ids, dates, process numbers. The test sends the same requests to a loopback
engine, and passes what it answers through the same functions.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENGINES = ["DOCKER_HOST", "DOCKER_HOST_NEW", "PODMAN_HOST", "PODMAN_HOST_NEW"]
IMAGE = os.environ.get("TEST_IMAGE", "localhost/muxframe-test:latest")

#: Seconds after which a stream that brings nothing more is taken to stay open.
QUIET = 0.7

#: Seconds for a head to come: removing a container may take ten.
HEAD_TIMEOUT = 12

UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
SAY = "echo out; sleep 0.3; echo err >&2; sleep 0.3; exit 3"

#: name -> (command, configuration, state). The test has the same containers, with scripts for commands.
CONTAINERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "rec-running": ("sleep 1000", {"OpenStdin": True}, "running"),
    "rec-tty": ("sleep 1000", {"OpenStdin": True, "Tty": True}, "running"),
    "rec-paused": ("sleep 1000", {}, "paused"),
    "rec-exited": (SAY, {"Labels": {"a": "b"}}, "exited"),
    "rec-exited-tty": ("echo out", {"Tty": True}, "exited"),
    "rec-silent": ("true", {}, "exited"),
    "rec-again": (SAY, {}, "exited"),
    "rec-created": (SAY, {"StdinOnce": True, "OpenStdin": True}, "created"),
    "rec-never": ("true", {}, "created"),
    "rec-created-tty": ("echo out", {"Tty": True}, "created"),
    "rec-cat-once": ("cat", {"StdinOnce": True, "OpenStdin": True}, "created"),
    "rec-cat": ("cat", {"OpenStdin": True}, "running"),
    "rec-cat-tty": ("cat", {"OpenStdin": True, "Tty": True}, "running"),
    "rec-victim": ("sleep 1000", {}, "running"),
}


def request(
    method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, version: str = "1.1"
) -> str:
    """Write a request."""
    fields = {"Host": "engine", **(headers or {})}
    text = ""
    if body is not None:
        text = json.dumps(body)
        fields["Content-Type"] = "application/json"
    if method == "POST":
        fields["Content-Length"] = str(len(text))
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", text])


def attach(name: str, query: str = "stream=1&stdout=1&stderr=1", prefix: str = "/v1.41", **more: Any) -> dict[str, Any]:
    """Write the step of an attach."""
    upgrade = more.pop("upgrade", UPGRADE)
    return {"request": request("POST", f"{prefix}/containers/{name}/attach?{query}", headers=upgrade), **more}


def step(*arguments: Any, **options: Any) -> dict[str, Any]:
    """Write a step: a request by itself."""
    return {"request": request(*arguments, **options)}


def conversations() -> dict[str, list[dict[str, Any]]]:
    """List what is recorded. In a request {exec} stands for the id of the exec created last."""
    found: dict[str, list[dict[str, Any]]] = {
        "ping": [step("GET", "/_ping"), step("HEAD", "/_ping"), step("GET", "/v1.41/_ping")],
        "version": [step("GET", "/version")],
        "no such path": [step("GET", "/v1.41/nosuch"), step("GET", "/v1.41/containers/rec-running/attach")],
        "version too old": [step("GET", "/v1.10/containers/rec-running/json")],
        "version too new": [step("GET", "/v1.99/containers/rec-running/json")],
        "inspect": [
            step("GET", f"/v1.41/containers/{name}/json")
            for name in ("rec-running", "rec-tty", "rec-paused", "rec-exited", "rec-never", "nosuch")
        ],
        "attach, no such container": [attach("nosuch")],
        "attach, paused": [attach("rec-paused")],
        "attach, bad detach keys": [attach("rec-tty", "stream=1&stdout=1&detachKeys=bogus-key")],
        "attach, nothing asked for": [attach("rec-running", "stream=0")],
        "attach, replay": [attach("rec-again", "logs=1&stream=0&stdout=1&stderr=1")],
        "attach and start": [attach("rec-created", then=request("POST", "/v1.41/containers/rec-created/start"))],
        "attach and start, tty": [
            attach("rec-created-tty", then=request("POST", "/v1.41/containers/rec-created-tty/start"))
        ],
        "half-close, stdin once": [
            attach(
                "rec-cat-once",
                "stream=1&stdin=1&stdout=1&stderr=1",
                then=request("POST", "/v1.41/containers/rec-cat-once/start"),
                stdin="hello\n",
                half_close=True,
            ),
        ],
        "half-close, stdin stays": [attach("rec-cat", "stream=1&stdin=1&stdout=1", half_close=True)],
        "half-close, tty": [attach("rec-cat-tty", "stream=1&stdin=1&stdout=1", half_close=True)],
        "exec": [
            step("POST", "/v1.41/containers/rec-running/exec", exec_config(SAY)),
            step("GET", "/v1.41/exec/{exec}/json"),
            step("POST", "/v1.41/exec/{exec}/start", {"Detach": False, "Tty": False}, UPGRADE),
            step("GET", "/v1.41/exec/{exec}/json"),
            step("POST", "/v1.41/exec/{exec}/start", {"Detach": False, "Tty": False}, UPGRADE),
        ],
        "exec, no upgrade": [
            step("POST", "/v1.41/containers/rec-running/exec", exec_config("echo out")),
            step("POST", "/v1.41/exec/{exec}/start", {"Detach": False, "Tty": False}),
        ],
        "exec, tty": [
            step("POST", "/v1.41/containers/rec-running/exec", exec_config("echo out", tty=True)),
            step("POST", "/v1.41/exec/{exec}/start", {"Detach": False, "Tty": True}, UPGRADE),
        ],
        "exec, stdin": [
            step("POST", "/v1.41/containers/rec-running/exec", {**exec_config("cat"), "AttachStdin": True}),
            {
                **step("POST", "/v1.41/exec/{exec}/start", {"Detach": False, "Tty": False}, UPGRADE),
                "stdin": "hello\n",
                "half_close": True,
            },
        ],
        "exec, detached": [
            step("POST", "/v1.41/containers/rec-running/exec", exec_config("echo out")),
            step("POST", "/v1.41/exec/{exec}/start", {"Detach": True, "Tty": False}),
        ],
        "exec, no such command": [
            step("POST", "/v1.41/containers/rec-running/exec", {**exec_config(""), "Cmd": ["nosuch"]}),
            step("POST", "/v1.41/exec/{exec}/start", {"Detach": False, "Tty": False}, UPGRADE),
            step("GET", "/v1.41/exec/{exec}/json"),
        ],
        "exec, errors": [
            step("POST", "/v1.41/containers/nosuch/exec", exec_config("true")),
            step("POST", "/v1.41/containers/rec-paused/exec", exec_config("true")),
            step("POST", "/v1.41/containers/rec-silent/exec", exec_config("true")),
            step("POST", "/v1.41/containers/rec-running/exec", {"Cmd": []}),
            step("POST", "/v1.41/exec/nosuch/start", {"Detach": False, "Tty": False}, UPGRADE),
            step("GET", "/v1.41/exec/nosuch/json"),
            step("POST", "/v1.41/exec/nosuch/start"),
        ],
        "logs": [
            step("GET", f"/v1.41/containers/rec-exited/logs?{query}")
            for query in (
                "stdout=1&stderr=1",
                "stdout=1",
                "stderr=1&tail=1",
                "stdout=1&stderr=1&tail=0",
                "stdout=1&stderr=1&timestamps=1",
                "stdout=1&stderr=1&details=1",
                "stdout=1&stderr=1&follow=1",
                "stdout=1&since=9999999999",
                "stdout=1&until=1.5",
            )
        ],
        "logs, HTTP/1.0": [step("GET", "/v1.41/containers/rec-exited/logs?stdout=1&stderr=1", version="1.0")],
        "logs, tty": [step("GET", "/v1.41/containers/rec-exited-tty/logs?stdout=1&stderr=1")],
        "logs, created": [step("GET", "/v1.41/containers/rec-never/logs?stdout=1&stderr=1&follow=1")],
        "logs, empty": [
            step("GET", "/v1.41/containers/rec-silent/logs?stdout=1&stderr=1"),
            step("GET", "/v1.41/containers/rec-running/logs?stdout=1&stderr=1&follow=1"),
        ],
        "logs, errors": [
            step("GET", f"/v1.41/containers/{path}")
            for path in ("nosuch/logs?stdout=1", "rec-exited/logs", "rec-exited/logs?stdout=1&since=abc")
        ]
        + [step("GET", "/v1.41/containers/rec-exited/logs?stdout=1&tail=x")],
        "resize": [
            step("POST", f"/v1.41/containers/{path}")
            for path in ("rec-tty/resize?h=10&w=20", "rec-tty/resize?h=a&w=20", "rec-silent/resize?h=10&w=20")
        ],
        "states": [
            step("POST", "/v1.41/containers/rec-running/start"),
            step("POST", "/v1.41/containers/rec-paused/start"),
            step("POST", "/v1.41/containers/rec-silent/stop"),
            step("POST", "/v1.41/containers/rec-silent/kill"),
            step("POST", "/v1.41/containers/rec-running/kill?signal=BOGUS"),
            step("POST", "/v1.41/containers/nosuch/start"),
            step("DELETE", "/v1.41/containers/rec-running"),
            step("POST", "/v1.41/containers/rec-exited/wait"),
            step("POST", "/v1.41/containers/rec-exited/wait?condition=bogus"),
        ],
        "the end of a container": [
            step("POST", "/v1.41/containers/rec-victim/pause"),
            step("POST", "/v1.41/containers/rec-victim/unpause"),
            step("POST", "/v1.41/containers/rec-victim/kill?signal=KILL"),
            step("POST", "/v1.41/containers/rec-victim/wait"),
            step("GET", "/v1.41/containers/rec-victim/json"),
            step("DELETE", "/v1.41/containers/rec-victim"),
            step("DELETE", "/v1.41/containers/rec-victim"),
        ],
        "swarm": [step("GET", "/v1.41/services/nosuch"), step("GET", "/v1.41/tasks/nosuch/logs?stdout=1")],
    }
    for prefix in ("", "/v1.41", "/v1.42", "/v1.44"):
        for container in ("rec-running", "rec-tty"):
            found[f"attach, {container}, {prefix or 'no prefix'}"] = [
                attach(container, prefix=prefix),
                attach(container, prefix=prefix, upgrade={}),
                attach(container, prefix=prefix, upgrade={"Connection": "keep-alive, Upgrade", "Upgrade": "tcp"}),
                attach(container, prefix=prefix, upgrade={"Upgrade": "TCP"}),
            ]
        found[f"logs, {prefix or 'no prefix'}"] = [
            step("GET", f"{prefix}/containers/{name}/logs?stdout=1&tail=1") for name in ("rec-exited", "rec-exited-tty")
        ]
    return found


def exec_config(script: str, *, tty: bool = False) -> dict[str, Any]:
    """Return the body that creates an exec."""
    return {"AttachStdout": True, "AttachStderr": True, "Tty": tty, "Cmd": ["sh", "-c", script]}


# --- talking ---------------------------------------------------------------------------------------------------------


@contextmanager
def connection(host: str) -> Iterator[socket.socket]:
    """Connect to an engine."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(host.removeprefix("unix://"))
        yield sock


def hold(host: str, steps: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Hold a conversation; return the answers, normalised."""
    answers = []
    exec_id = ""
    for each in steps:
        raw, end = ask(host, each, exec_id)
        created = re.search(r'^\{"Id":"(\w{64})"\}', raw.partition("\r\n\r\n")[2])
        exec_id = created[1] if created else exec_id
        answers.append(normalise(each["request"], raw, end))
    return answers


def ask(host: str, step: dict[str, Any], exec_id: str = "") -> tuple[str, str]:
    """Send a request and read its answer, with all that follows; tell how it ended.

    A step may have more than its request: "then", a request on a connection of its own once the head is there (the
    answer is then read to its end); "stdin", what is sent after that; "half_close" after that.
    """
    with connection(host) as sock:
        sock.sendall(step["request"].replace("{exec}", exec_id).encode())
        raw = ""
        sock.settimeout(HEAD_TIMEOUT)
        try:
            while "\r\n\r\n" not in raw:
                raw += receive(sock)
        except TimeoutError:
            return raw, "no head"
        sock.settimeout(None if "then" in step else QUIET)
        if "then" in step:
            ask(host, {"request": step["then"]})
        if "stdin" in step:
            sock.sendall(step["stdin"].encode())
            time.sleep(QUIET / 2)
        if step.get("half_close"):
            sock.shutdown(socket.SHUT_WR)
        while not is_whole(step["request"], raw):
            try:
                data = receive(sock)
            except TimeoutError:
                return raw, "open"
            except EOFError:
                return raw, "end"
            raw += data
        return raw, "whole"


def receive(sock: socket.socket) -> str:
    """Receive something."""
    data = sock.recv(65536)
    if not data:
        raise EOFError
    return data.decode("latin-1")


def is_whole(request: str, raw: str) -> bool:
    """Say whether an answer with a known end has come to it."""
    head, _, body = raw.partition("\r\n\r\n")
    if request.startswith("HEAD ") or re.match(r"HTTP/1.1 (204|304)", head):
        return True
    length = re.search(r"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    if length:
        return len(body) >= int(length[1])
    return "transfer-encoding: chunked" in head.lower() and body.endswith("0\r\n\r\n")


# --- what does not differ from run to run ----------------------------------------------------------------------------

#: Fields of inspect and version that the loopback engine has, too.
STATE = ["Status", "Running", "Paused", "Restarting", "OOMKilled", "Dead", "ExitCode", "FinishedAt"]
CONFIG = ["Tty", "OpenStdin", "StdinOnce", "Labels"]


def normalise(request: str, raw: str, end: str) -> dict[str, str]:
    """Return an answer's head (headers sorted) and body, without what is of that run only."""
    head, _, body = raw.partition("\r\n\r\n")
    status, *headers = head.split("\r\n")
    path = request.split(" ")[1]
    if status.endswith("200 OK") and re.search(r"containers/[^/]*/json$|/version$", path):
        headers = [line for line in headers if not line.startswith("Content-Length")]
        if "Transfer-Encoding: chunked" in headers:
            body = re.sub(r"(?:^|\r\n)[0-9a-f]+\r\n(?=.|$)", "", body, flags=re.DOTALL).removesuffix("\r\n")
        body = json.dumps(matters(json.loads(body)), indent=1)
    elif status.endswith("200 OK") and re.search(r"/exec/[^/]*/json$", path):
        headers = [line for line in headers if not line.startswith("Content-Length")]
        body = json.dumps(matters(json.loads(body)), indent=1)
    text = "\n".join([status, *sorted(headers)])
    return {"head": scrub(text), "body": scrub(body), "end": end}


def matters(document: dict[str, Any]) -> dict[str, Any]:
    """Reduce a JSON document to what clients of streams look at."""
    if "ApiVersion" in document:
        return {name: document[name] for name in ("Version", "ApiVersion", "Os", "Arch")}
    if "State" in document:
        state = {name: document["State"][name] for name in STATE}
        state["FinishedAt"] = state["FinishedAt"][:4] if state["FinishedAt"].startswith("0001") else "a time"
        if state["Status"] == "stopped":
            state["Status"] = "exited"  # a moment earlier; seen on Podman only
        config = {name: document["Config"][name] for name in CONFIG}
        config["Labels"] = config["Labels"] or {}
        return {"Id": document["Id"], "Name": document["Name"], "State": state, "Config": config}
    found = dict(sorted(document.items()))
    for name in ("Pid", "CanRemove"):
        found.pop(name)
    found["ProcessConfig"] = {name: found["ProcessConfig"][name] for name in ("tty", "entrypoint", "arguments")}
    return found


def scrub(text: str) -> str:
    """Replace ids, dates and the like."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "<id>", text)
    text = re.sub(r"Date: [^\n]*", "Date: <date>", text)
    text = re.sub(r"X-Reference-Id: \w+", "X-Reference-Id: <reference>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", "<nanoseconds>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<seconds>", text)
    # Podman sometimes loses its own connection to a command that is not there, and says so, too.
    return re.sub(r"\x02\0{6}.Error: read unixpacket [^\n]*\n", "", text)


# --- recording -------------------------------------------------------------------------------------------------------


def prepare(host: str) -> None:
    """Make the containers, and bring them into their states."""
    for name, (command, config, state) in CONTAINERS.items():
        ask(host, step("DELETE", f"/v1.41/containers/{name}?force=1&t=0"))
        body = {"Image": IMAGE, "Cmd": ["sh", "-c", command], "HostConfig": {"NetworkMode": "none"}, **config}
        ask(host, step("POST", f"/v1.41/containers/create?name={name}", body))
        if state != "created":
            ask(host, step("POST", f"/v1.41/containers/{name}/start"))
        if state == "paused":
            ask(host, step("POST", f"/v1.41/containers/{name}/pause"))
    time.sleep(3)


def clean(host: str) -> None:
    """Remove the containers."""
    for name in CONTAINERS:
        ask(host, step("POST", f"/v1.41/containers/{name}/unpause"))
        ask(host, step("POST", f"/v1.41/containers/{name}/kill"))
        ask(host, step("DELETE", f"/v1.41/containers/{name}?force=1"))


def record(host: str) -> None:
    """Record everything from one engine."""
    raw, _ = ask(host, step("GET", "/version"))
    version = json.loads(raw.partition("\r\n\r\n")[2])
    flavor = "podman" if "Libpod" in raw else "docker"
    prepare(host)
    try:
        recorded = {
            name: {"steps": steps, "answers": hold(host, steps)} for name, steps in conversations().items()
        }
    finally:
        clean(host)
    engine = {"flavor": flavor, "api_version": version["ApiVersion"], "server_version": version["Version"]}
    path = HERE / f"{flavor}-{version['Version'].split('+')[0]}.json"
    path.write_text(json.dumps({"engine": engine, "conversations": recorded}, indent=1) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    hosts = [os.environ[name] for name in ENGINES if os.environ.get(name)]
    if not hosts:
        sys.exit(f"no engine: set {', '.join(ENGINES)}")
    for host in hosts:
        record(host)
