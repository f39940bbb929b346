"""What is asked of an engine and in which order, and what callers may say: flows driven by hand, without any I/O."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote

import pytest

from muxframe.engine import calls
from muxframe.engine.base import EngineBase
from muxframe.engine.calls import Api, Call, Opened, Read, Sleep, Write
from muxframe.engine.endpoint import Endpoint, parse_endpoint
from muxframe.engine.handshake import Body, Request, Response
from muxframe.engine.parameters import environment, moment, quoted_name, tail_of
from muxframe.engine.podman import RepairedReplay
from muxframe.errors import (
    BadRequestError,
    ConflictError,
    ConnectionLostError,
    EngineError,
    HandshakeError,
    NotFoundError,
)

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"

DOCKER = Api((1, 45))
DOCKER_20 = Api((1, 41))
PODMAN = Api((1, 41), podman=(5, 4, 2))
PODMAN_4 = Api((1, 41), podman=(4, 3, 1))


# --- an engine of dictionaries ---------------------------------------------------------------------------------------


class FakeLink:
    """A stream that was opened."""

    def __init__(self, content_type: str = RAW, status: int = 101, *, is_late: bool = False) -> None:
        self.head = None if is_late else Response(status, "", {"content-type": content_type})
        self.bodies: list[Body] = []
        self.is_closed = False

    def unpack(self, body: Body) -> None:
        self.bodies.append(body)

    def close(self) -> None:
        self.is_closed = True


class FakeEngine:
    """Answers the steps of flows, and keeps what was asked.

    Args:
        answers: by the end of a path: JSON for a Response, a list of them (one for each time), a Response, an
            exception, or for an Open a content type or a link.
    """

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self.asked: list[str] = []
        self.requests: list[Request] = []
        self.links: list[FakeLink] = []

    def run(self, flow: calls.Flow[Any]) -> Any:
        try:
            step = next(flow)
            while True:
                try:
                    result = self._perform(step)
                except BaseException as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            return end.value

    def _perform(self, step: calls.Step) -> Any:
        if isinstance(step, Sleep):
            return self.asked.append(f"sleep {step.seconds}")
        if isinstance(step, Read):
            self.asked.append("read")
            return self._answers["read"]
        assert not isinstance(step, Write)
        name = step.request.path.rpartition("/")[2]
        self.asked.append(f"{type(step).__name__.lower()} {step.request.method} {step.request.path}")
        self.requests.append(step.request)
        answer = self._answers.get(name)
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(step, Call):
            return answer if isinstance(answer, Response) else Response(200, "OK", {}, json.dumps(answer).encode())
        if isinstance(answer, FakeLink):
            self.links.append(answer)
        else:
            self.links.append(FakeLink(answer or RAW, is_late=step.is_late))
        return self.links[-1]

    def attach(self, api: Api, name: str = "c", **options: Any) -> Opened:
        return Front(self, api).attach(name, **options)

    def exec(self, api: Api, command: Any = "ls", **options: Any) -> Opened:
        return Front(self, api).exec("c", command, **options)

    def logs(self, api: Api, **options: Any) -> Opened:
        return Front(self, api).logs("c", **options)


class Front(EngineBase[Opened, Any, Any]):
    """What users call, with its defaults."""

    def __init__(self, engine: FakeEngine, api: Api) -> None:
        super().__init__(Endpoint("unix", path="/engine"), api, auth=None, timeout=None)
        self._engine = engine

    def _open(self, flow: calls.Flow[Opened], max_frame_size: int | None, truncated: Any) -> Opened:
        opened: Opened = self._engine.run(flow)
        return opened


def container(status: str = "running", *, host: Any = None, **config: Any) -> dict[str, Any]:
    """Return what inspect says."""
    return {"State": {"Status": status}, "Config": config, "HostConfig": host}


def exec_info(*, running: bool, code: int | None) -> dict[str, Any]:
    return {"Running": running, "ExitCode": code}


# --- what an engine is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "version", "podman"),
    [
        ({}, (1, 24), None),
        ({"api-version": "1.41", "server": "Docker/20.10.24 (linux)"}, (1, 41), None),
        ({"api-version": "1.99"}, (1, 51), None),
        ({"api-version": "2.0"}, (1, 51), None),
        ({"api-version": "1.12"}, (1, 12), None),
        ({"api-version": "newest"}, (1, 24), None),
        ({"api-version": "1." + "9" * 5000}, (1, 24), None),
        ({"api-version": "1.41", "libpod-api-version": "4.3.1", "server": "Libpod/4.3.1 (linux)"}, (1, 41), (4, 3, 1)),
        ({"api-version": "1.41", "server": "Libpod/5.8.0-dev (linux)"}, (1, 41), (5, 8, 0)),
        ({"api-version": "1.41", "libpod-api-version": "5.4.2", "server": "nginx"}, (1, 41), (5, 4, 2)),
        ({"server": "Libpod/"}, (1, 24), ()),
    ],
)
def test_negotiation(headers: dict[str, str], version: tuple[int, int], podman: tuple[int, ...] | None) -> None:
    engine = FakeEngine(_ping=Response(200, "OK", headers))
    assert engine.run(calls.negotiate(None)) == Api(version, podman)
    assert engine.asked == ["call GET /_ping"]
    assert engine.requests[0].query == {}


def test_version_that_is_asked_for_stands() -> None:
    for answer in (Response(200, "", {"api-version": "1.41"}), EngineError("no", 403)):
        assert FakeEngine(_ping=answer).run(calls.negotiate((1, 30))) == Api((1, 30))
    for fault in (ConnectionLostError("gone"), EngineError("no http")):
        with pytest.raises(type(fault)):
            FakeEngine(_ping=fault).run(calls.negotiate((1, 30)))
    with pytest.raises(EngineError):
        FakeEngine(_ping=EngineError("no", 403)).run(calls.negotiate(None))


def test_version_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_API_VERSION", raising=False)
    assert calls.fixed_version(None) is None
    assert calls.fixed_version("v1.41") == (1, 41)
    monkeypatch.setenv("DOCKER_API_VERSION", "1.40")
    assert calls.fixed_version(None) == (1, 40)
    assert calls.fixed_version("1.41") == (1, 41)
    monkeypatch.setenv("DOCKER_API_VERSION", "")
    assert calls.fixed_version(None) is None
    for text in ("1", "1.", ".41", "1.x", "one.two", "-1.2", "1.4.1"):
        with pytest.raises(ValueError, match="not an API version"):
            calls.fixed_version(text)


def test_requests_are_signed_below_the_prefix() -> None:
    seen = []

    def auth(request: Request) -> dict[str, str]:
        seen.append(request.path)
        return {"Authorization": "Bearer x"}

    proxy, engine = parse_endpoint("http://proxy:80/docker"), parse_endpoint("tcp://engine:2375")
    request = calls.signed(Request("GET", "/_ping", headers={"A": "b"}), proxy, auth)
    assert (request.path, request.headers) == ("/docker/_ping", {"A": "b", "Authorization": "Bearer x"})
    assert seen == ["/docker/_ping"]
    assert calls.signed(Request("GET", "/_ping"), engine, None) == Request("GET", "/_ping", host="engine:2375")


# --- attach ----------------------------------------------------------------------------------------------------------


def test_attach_asks_once_and_opens() -> None:
    engine = FakeEngine(json=container(Tty=False))
    opened = engine.attach(DOCKER)
    assert engine.asked == ["call GET /v1.45/containers/c/json", "open POST /v1.45/containers/c/attach"]
    assert engine.requests[1].upgrade == "tcp"
    assert engine.requests[1].query == {"stream": "1", "logs": "0", "stdin": "0", "stdout": "1", "stderr": "1"}
    assert (opened.is_raw, opened.is_tty, opened.has_stdin, opened.closes_stdin) == (False, False, False, None)


@pytest.mark.parametrize("tty", [False, True])
def test_attach_that_is_told_asks_nothing(tty: bool) -> None:
    engine = FakeEngine()
    opened = engine.attach(DOCKER, tty=tty)
    assert engine.asked == ["open POST /v1.45/containers/c/attach"]
    assert opened.is_raw is opened.is_tty is tty


@pytest.mark.parametrize(
    ("tty", "content_type", "is_raw"),
    [(False, RAW, False), (False, MULTIPLEXED, False), (True, RAW, True), (True, MULTIPLEXED, False), (True, "", True)],
)
def test_framing_is_a_matter_of_the_tty(tty: bool, content_type: str, is_raw: bool) -> None:
    """The content type lies before API 1.42, and is believed only where it says "multiplexed"."""
    engine = FakeEngine(json=container(Tty=tty), attach=FakeLink(content_type))
    assert engine.attach(DOCKER_20).is_raw is is_raw


def test_options_of_attach() -> None:
    engine = FakeEngine(json=container())
    engine.attach(DOCKER, stdin=True, stdout=False, stderr=False, logs=True, detach_keys="ctrl-p,q")
    assert engine.requests[1].query == {
        "stream": "1",
        "logs": "1",
        "stdin": "1",
        "stdout": "0",
        "stderr": "0",
        "detachKeys": "ctrl-p,q",
    }


@pytest.mark.parametrize("status", ["exited", "stopped", "dead", "removing"])
def test_attach_to_what_does_not_run(status: str) -> None:
    engine = FakeEngine(json=container(status))
    with pytest.raises(ConflictError, match=status):
        engine.attach(DOCKER)
    assert len(engine.asked) == 1
    FakeEngine(json=container(status)).attach(DOCKER, start=True)
    FakeEngine(json=container(status)).attach(DOCKER, stream=False, logs=True)


@pytest.mark.parametrize("status", ["created", "configured", "running", "restarting", "paused", ""])
def test_attach_to_what_runs_or_may_run(status: str) -> None:
    FakeEngine(json=container(status)).attach(DOCKER)


def test_start_comes_behind_the_head_and_the_wait() -> None:
    engine = FakeEngine(json=container("created"))
    opened = engine.attach(DOCKER, start=True)
    base = "/v1.45/containers/c"
    assert engine.asked == [
        f"call GET {base}/json",
        f"open POST {base}/attach",
        f"open POST {base}/wait",
        f"call POST {base}/start",
    ]
    assert engine.requests[2].query == {"condition": "next-exit"}
    assert opened.links() == engine.links
    opened.close()
    assert all(link.is_closed for link in engine.links)


def test_start_of_an_old_engine_knows_no_next_exit() -> None:
    engine = FakeEngine(json=container("created"))
    engine.attach(Api((1, 29)), start=True)
    assert [step.rpartition("/")[2] for step in engine.asked] == ["json", "attach", "start"]


def test_exit_of_what_will_be_removed_is_asked_for_at_once() -> None:
    engine = FakeEngine(json=container(host={"AutoRemove": True}))
    opened = engine.attach(DOCKER)
    assert engine.asked[-1] == "open POST /v1.45/containers/c/wait"
    assert engine.requests[-1].query == {}
    assert opened.links() == engine.links
    assert len(engine.links) == 2


@pytest.mark.parametrize(
    ("api", "open_stdin", "tty", "once", "closes"),
    [
        (DOCKER, False, False, False, None),
        (DOCKER, True, False, True, True),
        (DOCKER, True, False, False, False),
        (DOCKER, True, True, True, False),
        (PODMAN, True, False, False, True),
        (PODMAN, True, True, False, False),
    ],
)
def test_what_a_half_close_will_do(api: Api, open_stdin: bool, tty: bool, once: bool, closes: bool | None) -> None:
    info = container(OpenStdin=open_stdin, Tty=tty, StdinOnce=once)
    assert FakeEngine(json=info).attach(api, stdin=True).closes_stdin is closes


def test_replay_of_podman_4_is_repaired() -> None:
    for api, logs, tty, count in (
        (PODMAN_4, True, False, 1),
        (PODMAN_4, False, False, 0),
        (PODMAN_4, True, True, 0),
        (PODMAN, True, False, 0),
        (DOCKER, True, False, 0),
    ):
        engine = FakeEngine(json=container(Tty=tty))
        engine.attach(api, logs=logs)
        assert [type(body) for body in engine.links[0].bodies] == [RepairedReplay] * count


def test_replay_alone_is_a_log_on_podman() -> None:
    engine = FakeEngine(json=container("exited"))
    engine.attach(PODMAN, logs=True, stream=False, stderr=False)
    assert engine.asked == ["call GET /v1.41/containers/c/json", "open GET /v1.41/containers/c/logs"]
    query = engine.requests[1].query
    assert (query["follow"], query["stdout"], query["stderr"]) == ("0", "1", "0")
    engine = FakeEngine(json=container("exited"))
    engine.attach(DOCKER, logs=True, stream=False)
    assert engine.asked[-1] == "open POST /v1.45/containers/c/attach"


def test_attach_over_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    websocket = pytest.importorskip("muxframe.engine.websocket")
    monkeypatch.setattr(websocket, "generate_key", lambda: "dGhlIHNhbXBsZSBub25jZQ==")
    link = FakeLink()
    link.head = Response(101, "", {"sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="})
    engine = FakeEngine(json=container(), ws=link)
    opened = engine.attach(DOCKER, via="websocket", stdin=True)
    assert engine.asked[-1] == "open GET /v1.45/containers/c/attach/ws"
    request = engine.requests[-1]
    assert (request.upgrade, request.headers["Sec-WebSocket-Version"]) == ("websocket", "13")
    assert opened.is_raw
    assert [type(body) for body in link.bodies] == [websocket.WebSocketBody]
    link.head = Response(101, "", {})
    with pytest.raises(HandshakeError):
        FakeEngine(json=container(), ws=link).attach(DOCKER, via="websocket")
    assert link.is_closed


@pytest.mark.parametrize(
    "options",
    [
        {"via": "carrier pigeon"},
        {"stream": False},
        {"stdout": False, "stderr": False},
        {"name": "a/b"},
        {"name": ""},
    ],
)
def test_attach_that_makes_no_sense_asks_nothing(options: dict[str, Any]) -> None:
    engine = FakeEngine()
    with pytest.raises(ValueError):
        engine.attach(DOCKER, **options)
    assert engine.asked == []


# --- exec ------------------------------------------------------------------------------------------------------------


def test_exec_is_made_and_started() -> None:
    engine = FakeEngine(exec={"Id": "abc"})
    opened = engine.exec(DOCKER, "sh -c 'a b'")
    assert engine.asked == ["call POST /v1.45/containers/c/exec", "open POST /v1.45/exec/abc/start"]
    config, start = (request.body for request in engine.requests)
    assert config == {
        "Cmd": ["sh", "-c", "a b"],
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "User": "",
        "Privileged": False,
    }
    assert start == {"Detach": False, "Tty": False}
    assert engine.requests[1].upgrade == "tcp"
    assert (opened.path, opened.is_raw, opened.closes_stdin) == ("/exec/abc", False, False)


def test_options_of_exec() -> None:
    engine = FakeEngine(exec={"Id": "abc"})
    opened = engine.exec(
        DOCKER,
        ["ls", 1],
        stdin=True,
        tty=True,
        size=(24, 80),
        env={"A": "b"},
        user="me",
        workdir="/",
        privileged=True,
        detach_keys="q",
    )
    config, start = (request.body for request in engine.requests)
    assert config["Cmd"] == ["ls", "1"]
    assert (config["Env"], config["User"], config["WorkingDir"], config["Privileged"]) == (["A=b"], "me", "/", True)
    assert (config["DetachKeys"], config["AttachStdin"], config["Tty"], start["Tty"]) == ("q", True, True, True)
    assert config["ConsoleSize"] == start["ConsoleSize"] == [24, 80]
    assert opened.is_raw
    assert opened.is_tty
    assert opened.closes_stdin is False


@pytest.mark.parametrize("api", [DOCKER_20, PODMAN])
def test_size_of_an_exec_where_it_cannot_be_said_before(api: Api) -> None:
    engine = FakeEngine(exec={"Id": "abc"}, resize=EngineError("it has ended", 500))
    engine.exec(api, tty=True, size=(24, 80))
    assert engine.asked.count("call POST /v1.41/exec/abc/resize") == len(calls.RESIZE_DELAYS), "or has not begun yet"
    assert engine.requests[-1].query == {"h": "24", "w": "80"}
    assert not engine.links[0].is_closed
    assert "ConsoleSize" not in engine.requests[0].body


def test_exec_of_bytes_is_misuse() -> None:
    with pytest.raises(TypeError, match="a command is a str"):
        FakeEngine().exec(DOCKER_20, command=b"ls")


def test_exec_without_a_tty_has_no_size() -> None:
    engine = FakeEngine(exec={"Id": "abc"})
    engine.exec(DOCKER_20, size=(24, 80))
    assert len(engine.asked) == 2


@pytest.mark.parametrize(
    ("version", "options"),
    [((1, 24), {"env": ["A=b"]}), ((1, 34), {"workdir": "/"}), ((1, 21), {"detach_keys": "q"})],
)
def test_exec_refuses_what_an_old_engine_ignores(version: tuple[int, int], options: dict[str, Any]) -> None:
    engine = FakeEngine()
    with pytest.raises(BadRequestError, match="needs API"):
        engine.exec(Api(version), **options)
    assert engine.asked == []
    FakeEngine(exec={"Id": "abc"}).exec(Api((1, version[1] + 1)), **options)


@pytest.mark.parametrize(
    ("command", "options", "kind"),
    [
        ("", {}, ValueError),
        ([], {}, ValueError),
        ("ls '", {}, ValueError),
        ("ls", {"stdout": False, "stderr": False}, ValueError),
        ("ls", {"env": "A=b"}, TypeError),
        ("ls", {"tty": True, "size": (1, 1 << 16)}, ValueError),
        ("ls", {"tty": True, "size": ("24", "80")}, TypeError),
    ],
)
def test_exec_that_makes_no_sense_asks_nothing(command: Any, options: dict[str, Any], kind: type[Exception]) -> None:
    engine = FakeEngine()
    with pytest.raises(kind):
        engine.exec(DOCKER, command, **options)
    assert engine.asked == []


@pytest.mark.parametrize("answer", [[], {}, "abc", {"Id": "../../containers/c/kill"}, {"Id": ""}])
def test_exec_with_an_id_that_is_none(answer: Any) -> None:
    with pytest.raises(HandshakeError):
        FakeEngine(exec=Response(201, "", {}, json.dumps(answer).encode())).exec(DOCKER)


# --- logs ------------------------------------------------------------------------------------------------------------


def test_logs_go_over_http10() -> None:
    engine = FakeEngine(logs=FakeLink(MULTIPLEXED, 200))
    opened = engine.logs(DOCKER)
    assert engine.asked == ["open GET /v1.45/containers/c/logs"]
    assert engine.requests[0].is_http10
    assert engine.requests[0].query == {
        "stdout": "1",
        "stderr": "1",
        "follow": "0",
        "timestamps": "0",
        "details": "0",
        "tail": "all",
    }
    assert (opened.is_raw, opened.is_tty, opened.has_timestamps) == (False, False, False)


@pytest.mark.parametrize("status", [426, 505])
def test_logs_where_http10_is_refused(status: int) -> None:
    engine = FakeEngine(logs=[EngineError("no", status), MULTIPLEXED])
    engine.logs(DOCKER)
    assert [request.is_http10 for request in engine.requests] == [True, False]
    assert engine.requests[1] == dataclasses.replace(engine.requests[0], is_http10=False)


@pytest.mark.parametrize(
    ("api", "content_type", "info", "asks", "is_raw"),
    [
        (DOCKER, MULTIPLEXED, None, 0, False),
        (DOCKER, RAW, None, 0, True),
        (DOCKER, "", {"Tty": True}, 1, True),
        (DOCKER, "text/plain", {"Tty": False}, 1, False),
        (DOCKER_20, "", {"Tty": False}, 1, False),
        (DOCKER_20, RAW, {"Tty": False}, 1, False),
        (PODMAN, "", {"Tty": True}, 1, True),
        (PODMAN_4, "text/plain", {"Tty": True}, 1, True),
        (PODMAN_4, "application/octet-stream", {"Tty": False}, 1, False),
    ],
)
def test_framing_of_logs(api: Api, content_type: str, info: Any, asks: int, is_raw: bool) -> None:
    engine = FakeEngine(logs=FakeLink(content_type, 200), json={"Config": info})
    opened = engine.logs(api)
    assert sum(step.endswith("/json") for step in engine.asked) == asks
    assert opened.is_raw is is_raw
    engine = FakeEngine(logs=FakeLink(content_type, 200))
    assert engine.logs(api, tty=True).is_raw is (content_type != MULTIPLEXED)
    assert len(engine.asked) == 1


def test_logs_of_podman_4_have_a_late_head() -> None:
    for api, follow, is_late in ((PODMAN_4, True, True), (PODMAN_4, False, False), (PODMAN, True, False)):
        engine = FakeEngine(json=container())
        engine.logs(api, follow=follow)
        assert (engine.links[0].head is None) is is_late


def test_options_of_logs() -> None:
    engine = FakeEngine(logs=MULTIPLEXED)
    opened = engine.logs(DOCKER, follow=True, since=1, until=2.5, tail=10, timestamps=True, details=True, stderr=False)
    query = engine.requests[0].query
    assert (query["since"], query["until"], query["tail"]) == ("1.000000000", "2.500000000", "10")
    assert (query["follow"], query["timestamps"], query["details"], query["stderr"]) == ("1", "1", "1", "0")
    assert (opened.has_timestamps, opened.has_details) == (True, True)
    assert not FakeEngine(json=container()).logs(PODMAN, details=True).has_details


@pytest.mark.parametrize("of", ["service", "task"])
@pytest.mark.parametrize("tty", [False, True])
def test_logs_of_swarms(of: str, tty: bool) -> None:
    spec = {"ContainerSpec": {"TTY": tty}}
    engine = FakeEngine(c={"Spec": {"TaskTemplate": spec} if of == "service" else spec})
    opened = engine.logs(DOCKER_20, of=of)
    assert engine.asked == [f"call GET /v1.41/{of}s/c", f"open GET /v1.41/{of}s/c/logs"]
    assert opened.is_raw is tty


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ((1, 24), {"of": "service"}),
        ((1, 28), {"of": "task"}),
        ((1, 22), {"details": True}),
        ((1, 34), {"until": 1}),
    ],
)
def test_logs_refuse_what_an_old_engine_ignores(version: tuple[int, int], options: dict[str, Any]) -> None:
    engine = FakeEngine(json=container(), c={})
    with pytest.raises(BadRequestError, match="needs API"):
        engine.logs(Api(version), **options)
    assert engine.asked == []
    engine.logs(Api((1, version[1] + 1)), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"of": "pod"},
        {"stdout": False, "stderr": False},
        {"tail": "some"},
        {"since": "yesterday"},
        {"of": "service", "until": 1},
    ],
)
def test_logs_that_make_no_sense_ask_nothing(options: dict[str, Any]) -> None:
    engine = FakeEngine()
    with pytest.raises(ValueError):
        engine.logs(DOCKER, **options)
    assert engine.asked == []


# --- the exit --------------------------------------------------------------------------------------------------------


def test_wait_of_an_attach() -> None:
    engine = FakeEngine(json=container(), read=b'{"Error": null, "StatusCode": 3}\n')
    opened = engine.attach(DOCKER)
    assert engine.run(opened.wait()) == 3
    assert engine.asked[2:] == ["open POST /v1.45/containers/c/wait", "read"]
    assert engine.requests[-1].query == {"condition": "not-running"}
    assert engine.run(opened.end()) is None


def test_wait_that_was_asked_for_before() -> None:
    engine = FakeEngine(json=container("created"), read=b'{"StatusCode": 0}')
    opened = engine.attach(DOCKER, start=True)
    del engine.asked[:]
    assert engine.run(opened.wait()) == 0
    assert engine.asked == ["read"]


def test_wait_of_an_old_engine_has_no_condition() -> None:
    engine = FakeEngine(json=container(), read=b'{"StatusCode": 0}')
    assert engine.run(engine.attach(Api((1, 29))).wait()) == 0
    assert engine.requests[-1].query == {}
    with pytest.raises(ValueError, match="not a condition"):
        engine.run(calls.open_wait(DOCKER, "/containers/c", "gone"))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"Error": {"Message": "gone"}, "StatusCode": -1}', EngineError),
        (b'{"Error": {"Message": "does not exist in database: no such container"}, "StatusCode": -1}', NotFoundError),
        (b"[]", HandshakeError),
        (b"{}", HandshakeError),
        (b'{"StatusCode"', HandshakeError),
        (b'{"StatusCode": "x"}', HandshakeError),
    ],
)
def test_wait_that_fails(body: bytes, kind: type[Exception]) -> None:
    engine = FakeEngine(json=container(), read=body)
    with pytest.raises(EngineError) as caught:
        engine.run(engine.attach(DOCKER).wait())
    assert type(caught.value) is kind


def test_exit_of_an_exec_may_be_late() -> None:
    infos = [exec_info(running=True, code=None), exec_info(running=False, code=None), exec_info(running=False, code=7)]
    engine = FakeEngine(exec={"Id": "abc"}, json=infos)
    opened = engine.exec(DOCKER)
    del engine.asked[:]
    assert engine.run(opened.end()) == 7
    asking = "call GET /v1.45/exec/abc/json"
    assert engine.asked == [asking, "sleep 0.005", asking, "sleep 0.01", asking]


def test_exit_of_an_exec_that_goes_on() -> None:
    """Its output may end before it does: then the end does not wait for ever, and `wait` does."""
    engine = FakeEngine(exec={"Id": "abc"}, json=exec_info(running=True, code=None))
    opened = engine.exec(DOCKER)
    assert engine.run(opened.end()) is None
    assert sum(step.startswith("sleep") for step in engine.asked) == len(calls.EXIT_POLLS) - 1
    engine._answers["json"] = [exec_info(running=True, code=None)] * 100 + [exec_info(running=False, code=0)]
    assert engine.run(opened.wait()) == 0


def test_exit_code_of_an_exec_that_is_none() -> None:
    engine = FakeEngine(exec={"Id": "abc"}, json={"Running": False, "ExitCode": "x"})
    with pytest.raises(HandshakeError, match="no number"):
        engine.run(engine.exec(DOCKER).end())


def test_log_has_no_exit() -> None:
    opened = FakeEngine(logs=MULTIPLEXED).logs(DOCKER)
    with pytest.raises(ValueError, match="no exit"):
        opened.wait()


# --- what goes wrong on the way --------------------------------------------------------------------------------------

FLOWS: dict[str, Callable[[FakeEngine], Any]] = {
    "attach": lambda engine: engine.attach(DOCKER),
    "attach, start": lambda engine: engine.attach(DOCKER, start=True),
    "exec, size": lambda engine: engine.exec(PODMAN, tty=True, size=(24, 80)),
    "logs": lambda engine: engine.logs(DOCKER),
    "logs, podman": lambda engine: engine.logs(PODMAN),
}


def failures() -> Iterator[tuple[str, int, BaseException]]:
    for name, flow in FLOWS.items():
        engine = flow_engine()
        flow(engine)
        for number in range(len(engine.asked)):
            for error in (ConnectionLostError("broke"), TimeoutError("late"), KeyboardInterrupt(), GeneratorExit()):
                yield name, number, error


def flow_engine() -> FakeEngine:
    return FakeEngine(json=container(host={"AutoRemove": True}), exec={"Id": "abc"}, logs="")


@pytest.mark.parametrize(("name", "number", "error"), list(failures()))
def test_every_failure_closes_what_was_opened(name: str, number: int, error: BaseException) -> None:
    engine = flow_engine()
    perform = engine._perform

    def fail(step: calls.Step) -> Any:
        if len(engine.asked) == number:
            engine.asked.append("failure")
            raise error
        return perform(step)

    engine._perform = fail  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        FLOWS[name](engine)
    assert engine.asked[-1] == "failure"
    assert all(link.is_closed for link in engine.links)


@pytest.mark.parametrize("answer", [[], "x", None, 1])
def test_inspect_that_is_no_object(answer: Any) -> None:
    for run in (lambda engine: engine.attach(DOCKER), lambda engine: engine.logs(PODMAN)):
        with pytest.raises(HandshakeError, match="200 OK: the answer is no JSON object"):
            run(FakeEngine(json=Response(200, "OK", {}, json.dumps(answer).encode())))


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_inspect_with_other_members(value: Any) -> None:
    info = {"State": value, "Config": value, "HostConfig": value, "Spec": value}
    assert not FakeEngine(json=info).attach(DOCKER).is_tty
    assert not FakeEngine(c=info).logs(DOCKER_20, of="service").is_tty


def test_resize() -> None:
    engine = FakeEngine(json=container())
    opened = engine.attach(DOCKER)
    engine.run(opened.resize(24, 80))
    assert engine.asked[-1] == "call POST /v1.45/containers/c/resize"
    assert engine.requests[-1].query == {"h": "24", "w": "80"}
    for size in ((-1, 80), (24, 1 << 16)):
        with pytest.raises(ValueError):
            engine.run(opened.resize(*size))
    for wrong in (True, 24.0, "24"):
        with pytest.raises(TypeError):
            engine.run(opened.resize(wrong, 80))  # type: ignore[arg-type]


# --- parameters ------------------------------------------------------------------------------------------------------

NOW = 1_795_235_766_532_584_213


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0.000000000"),
        (1795235766, "1795235766.000000000"),
        (1.5, "1.500000000"),
        (0.1, "0.100000000"),
        (datetime(2026, 11, 21, 4, 36, 6, 532584, UTC), "1795235766.532584000"),
        (datetime(2026, 11, 21, 5, 36, 6, tzinfo=timezone(timedelta(hours=1))), "1795235766.000000000"),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "253402300799.000000000"),
        (timedelta(0), "1795235766.532584213"),
        (timedelta(minutes=1, microseconds=1), "1795235706.532583213"),
        (timedelta(seconds=-1), "1795235767.532584213"),
        ("1795235766", "1795235766.000000000"),
        ("1795235766.5", "1795235766.500000000"),
        ("1795235766.0000000019", "1795235766.000000001"),
        ("10m", "1795235166.532584213"),
        ("1h30m", "1795230366.532584213"),
        ("1.5s", "1795235765.032584213"),
        (".5s", "1795235766.032584213"),
        ("1h1m1s1ms1us1µs1ns", "1795232105.531582212"),
        ("2026-11-21T04:36:06Z", "1795235766.000000000"),
        ("2026-11-21t04:36:06z", "1795235766.000000000"),
        ("2026-11-21 04:36:06Z", "1795235766.000000000"),
        (" 2026-11-21T04:36:06Z\n", "1795235766.000000000"),
        ("2026-11-21T04:36Z", "1795235760.000000000"),
        ("2026-11-21T04Z", "1795233600.000000000"),
        ("2026-11-21T05:36:06+01:00", "1795235766.000000000"),
        ("2026-11-20T16:36:06.25-12:00", "1795235766.250000000"),
        ("2026-11-21T04:36:06,5Z", "1795235766.500000000"),
        ("1970-01-01T00:00:00Z", "0.000000000"),
        ("1970-01-01T01:00:00+01:00", "0.000000000"),
        *((f"1970-01-01T00:00:01.{'123456789012'[:n]}Z", f"1.{'123456789'[:n]:0<9}") for n in range(1, 13)),
    ],
)
def test_moment(value: Any, expected: str) -> None:
    assert moment(value, now=NOW) == expected


def test_moment_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(time, "tzset"):
        pytest.skip("the zone cannot be set")
    monkeypatch.setenv("TZ", "Etc/GMT-5")
    time.tzset()
    try:
        for value in (datetime(2026, 11, 21, 9, 36, 6), "2026-11-21T09:36:06"):
            assert moment(value) == "1795235766.000000000"
        assert moment("1970-01-01T05") == moment("1970-01-01T05:00") == "0.000000000"
        assert moment("1970-01-02") == "68400.000000000"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_moment_counts_from_now() -> None:
    before = time.time()
    assert before - 60.001 <= float(moment("1m")) <= time.time() - 59.999


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        "10x",
        "m",
        "-10m",
        "10m ago",
        "1m&tail=0",
        "2026-11-21T",
        "2026-13-21",
        "2026-02-30",
        "2026-11-21T25:00:00Z",
        "2026-11-21T04:36:06+25:00",
        "2026-11-21T04:36:06.Z",
        "2026-11-21T04:36:06Z\n2026",
        "21.11.2026",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+12:00",
        "9999-12-31T23:59:59-12:00",
        "9" * 5000,
        "9" * 400 + "h",
        "-1",
        -1,
        -0.5,
        float("nan"),
        float("inf"),
        1e300,
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime.min,
        timedelta.max,
    ],
)
def test_no_moment(value: Any) -> None:
    with pytest.raises(ValueError):
        moment(value)


@pytest.mark.parametrize("value", [None, True, b"10m", [1], 1j])
def test_no_moment_by_its_type(value: Any) -> None:
    with pytest.raises(TypeError):
        moment(value)


def test_tail() -> None:
    assert [tail_of(value) for value in (0, 10, "10", "all")] == ["0", "10", "10", "all"]
    for value in (-1, "-1", "", "ALL", "1.0", 1.0, "1&follow=1", "\u0661", True, None):
        with pytest.raises(ValueError):
            tail_of(value)  # type: ignore[arg-type]


def test_environment() -> None:
    assert environment(None) == []
    assert environment({"A": "b", "C": ""}) == ["A=b", "C="]
    assert environment(f"{name}=1" for name in "AB") == ["A=1", "B=1"]
    with pytest.raises(TypeError):
        environment("A=b")


@pytest.mark.parametrize("name", ["web", "web-1.x_y", "sha256:abc", "a?b", "a#b", "a%2fb", "a&b=c", "ü", "...", "a;b"])
def test_name_is_one_segment(name: str) -> None:
    quoted = quoted_name(name)
    assert unquote(quoted) == name
    assert quoted.isascii()
    assert not set(quoted) & set("/?#& \r\n;")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/b", "../x", "a b", "a\r\nX: y", "a\0", "\x7f", "\ud800"])
def test_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a name or id"):
        quoted_name(name)


def test_name_is_text() -> None:
    for name in (None, b"web", 1):
        with pytest.raises(TypeError):
            quoted_name(name)  # type: ignore[arg-type]
