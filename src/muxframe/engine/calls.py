"""What is asked of an engine, in which order, and what its answers mean: once, for the blocking and the asyncio shell.

A call is a generator (a flow) that yields steps and is sent their results:

    Call(request)     -> Response      an ordinary exchange; raises for status >= 300, save 304: it was so already
    Open(request)     -> Link          an answer that becomes a stream; raises likewise
    Read(link)        -> bytes         the rest of such a stream, to its end
    Write(link, data) -> None          something between what is written to such a stream
    Sleep(seconds)    -> None

A shell performs the steps of one flow on one connection, which an Open takes away; a later step gets a new one. Links
are the shell's: a flow only looks at `link.head`, lets `link.unpack`, and closes what it does not hand on.

Where engines differ it is said here, and nowhere else. Source: Docker Engine API; what Docker 20.10, 26.1 and 28.5 and
Podman 4.3, 5.4 and 5.8 were seen to do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Union

from ..errors import BadRequestError, ConflictError, ConnectionLostError, EngineError, HandshakeError, NotFoundError
from .handshake import Body, Request, Response, kind_of
from .parameters import environment, moment, quoted_name, tail_of, words_of
from .podman import RepairedReplay

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Literal

    from .endpoint import Endpoint
    from .parameters import Moment

T = TypeVar("T")

#: Newest API this package was tried with; an engine's own is used where it is older.
NEWEST_API = (1, 51)
#: What an engine speaks that does not say.
OLDEST_API = (1, 24)

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"

#: Seconds between reads of a log. Four times as much fills the engine's socket and slows it down.
LOG_DELAY = 0.0005

#: Seconds to wait, again and again, for the TTY of an exec that was just started.
RESIZE_DELAYS = (0.01, 0.02, 0.04, 0.08, 0.0)

#: An exec's exit code may come a moment after its output has ended: how often it is asked for, and how patiently.
EXIT_POLLS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)


HALF_CLOSE_ENDS = (
    "the engine does not pass the end of stdin on to this container (it has a TTY, or was made without StdinOnce): "
    "it may end the session's output instead"
)

# --- steps -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """Send a request and take its whole answer."""

    request: Request


@dataclass(frozen=True, slots=True)
class Open:
    """Send a request whose answer becomes a stream.

    Attributes:
        is_late: the head may come only with the first bytes of the stream: do not wait for it.
        endpoint: where to; None: the engine.
    """

    request: Request
    is_late: bool = False
    endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Read a link to its end."""

    link: Any


@dataclass(frozen=True, slots=True)
class Write:
    """Send something that a link's body has packed, between what is written to the stream."""

    link: Any
    packed: bytes


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait, in seconds."""

    seconds: float


class Link(Protocol):
    """A stream that a shell has opened."""

    head: Response | None  # None: late

    def unpack(self, body: Body) -> None:
        """Let body stand before the stream."""

    def close(self) -> None:
        """Close the connection."""


Step = Union[Call, Open, Read, Write, Sleep]
Flow = Generator[Step, Any, T]


# --- the engine ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Api:
    """What is known of an engine.

    Attributes:
        version: of the API to speak, as (major, minor).
        podman: Podman's own version, or None where this is another engine.
    """

    version: tuple[int, int] = OLDEST_API
    podman: tuple[int, ...] | None = None

    def request(self, method: str, path: str, **options: Any) -> Request:
        """Make a request of a path below the API's version."""
        major, minor = self.version
        return Request(method, f"/v{major}.{minor}{path}", **options)

    def need(self, what: str, minor: int) -> None:
        """Refuse what this API does not know, and would silently ignore.

        Raises:
            BadRequestError: it is older than 1.minor.
        """
        if self.version < (1, minor):
            major, own = self.version
            raise BadRequestError(f"{what} needs API 1.{minor}; this is {major}.{own}")


def parse_version(text: str) -> tuple[int, int]:
    """Read an API version such as "1.41".

    Raises:
        ValueError: it is none.
    """
    major, dot, minor = text.strip().removeprefix("v").partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        raise ValueError(f"not an API version: {text!r}")
    return int(major), int(minor)


def fixed_version(asked: str | None) -> tuple[int, int] | None:
    """Return the API version that the caller, or else DOCKER_API_VERSION, asks for."""
    text = os.environ.get("DOCKER_API_VERSION") if asked is None else asked
    return parse_version(text) if text else None


def signed(request: Request, endpoint: Endpoint, auth: Any) -> Request:
    """Return the request as it is sent: below an address's own path, with what `auth` adds to its headers."""
    request = replace(request, host=endpoint.host_header, path=endpoint.prefix + request.path)
    return request if auth is None else replace(request, headers={**request.headers, **auth(request)})


def negotiate(fixed: tuple[int, int] | None) -> Flow[Api]:
    """Find out what the engine is and which API to speak with it; `fixed` stands, whatever the engine says."""
    try:
        headers = (yield Call(Request("GET", "/_ping"))).headers
    except EngineError as error:
        if fixed is None or error.status is None:
            raise
        headers = {}  # some proxies let nothing through but what they were told to
    try:
        newest = parse_version(headers.get("api-version", ""))
    except ValueError:
        newest = OLDEST_API
    server = headers.get("server", "")
    podman = None
    if "libpod-api-version" in headers or server.startswith("Libpod/"):
        number = headers.get("libpod-api-version") or server.removeprefix("Libpod/").partition(" ")[0]
        podman = tuple(int(part) for part in number.split("-")[0].split(".") if part.isdecimal() and len(part) < 10)
    return Api(fixed or min(newest, NEWEST_API), podman)


# --- sessions --------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Opened:
    """A session that has been opened: what is known of it, and what can be asked about it.

    Attributes:
        link: the stream.
        path: of what it is attached to.
        is_raw: the stream is a TTY's, or merged: not framed.
        is_tty: the container or exec has a TTY.
        has_stdin: stdin was asked for.
        closes_stdin: whether a half-close reaches the container's stdin and the output goes on; None where nobody
            knows, or the container has no stdin anyway.
        has_timestamps, has_details: what each message of a log begins with.
        has_repeats: a line may come twice in a row, where the engine rotates the log.
        delay: seconds between reads, for what comes in small pieces: engines write each frame of a log by itself.
        is_closed: `close` was called.
    """

    link: Any
    path: str
    is_raw: bool
    is_tty: bool
    has_stdin: bool = False
    closes_stdin: bool | None = None
    has_timestamps: bool = False
    has_details: bool = False
    has_repeats: bool = False
    delay: float = 0.0
    is_closed: bool = False

    def resize(self, height: int, width: int) -> Flow[None]:
        """Tell the TTY how large its terminal is."""
        raise NotImplementedError

    def wait(self) -> Flow[int]:
        """Wait for the exit; return the exit code."""
        raise NotImplementedError

    def check_half_close(self) -> None:
        """Refuse a half-close where there is no such thing."""

    def end(self) -> Flow[int | None]:
        """The output has ended: return the exit code if it is to be had at once."""
        return None
        yield

    def links(self) -> list[Any]:
        """List its connections."""
        return [self.link]

    def close(self) -> None:
        """Close its connections."""
        self.is_closed = True
        for link in self.links():
            link.close()


@dataclass(kw_only=True)
class Logged(Opened):
    """A log; and what all sessions of an engine have.

    Attributes:
        api: the engine's.
        path: below the API's version: /containers/NAME or /exec/ID.
    """

    api: Api

    def resize(self, height: int, width: int) -> Flow[None]:
        return resize(self.api, self.path, height, width)

    def wait(self) -> Flow[int]:
        raise ValueError("a log has no exit to wait for")


@dataclass(kw_only=True)
class Attached(Logged):
    """An attach.

    Attributes:
        waiting: the link on which the container's exit will be told, if that was asked for already.
    """

    waiting: Any = None

    def wait(self) -> Flow[int]:
        if self.waiting is None:
            self.waiting = yield from open_wait(self.api, self.path, "not-running")
        try:
            return (yield from read_wait(self.waiting))
        except ConnectionLostError:
            self.waiting.close()
            self.waiting = None  # the next call asks anew
            raise

    def links(self) -> list[Any]:
        return [self.link] if self.waiting is None else [self.link, self.waiting]


@dataclass(kw_only=True)
class Executed(Logged):
    """An exec."""

    def wait(self) -> Flow[int]:
        was_closed = self.is_closed
        delays = chain(EXIT_POLLS, repeat(EXIT_POLLS[-1]))
        while (code := (yield from exec_exit(self.api, self.path, next(delays)))) is None:
            if self.is_closed and not was_closed:
                raise ConnectionLostError("the session was closed before the exit was told")
        return code

    def end(self) -> Flow[int | None]:
        for delay in EXIT_POLLS:
            code = yield from exec_exit(self.api, self.path, delay)
            if code is not None:
                return code
        return None


def attach(
    api: Api,
    container: str,
    *,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    stream: bool,
    logs: bool,
    detach_keys: str | None,
    start: bool,
    via: str,
    tty: bool | None,
) -> Flow[Opened]:
    """Attach to a container.

    One inspect tells whether it has a TTY, what a half-close will do, and whether it runs at all; with `tty` given
    nothing is asked.
    """
    path = container_path(container)
    if via not in ("hijack", "websocket"):
        raise ValueError(f'via must be "hijack" or "websocket", not {via!r}')
    if not (stream or logs):
        raise ValueError("neither stream nor logs: there would be nothing to read")
    if not (stdin or stdout or stderr):
        raise ValueError("none of stdin, stdout and stderr")
    info: Mapping[str, Any] = {}
    if tty is None:
        info = yield from inspect(api, container)
        _check_running(container, info, start=start, is_replay=logs and not stream)
        if api.podman is not None and logs and not stream:  # it would go on streaming
            return (yield from _logs(api, "container", path, info, _replay(stdout, stderr)))
    is_tty = has_tty(info) if tty is None else tty
    query = {"stream": stream, "logs": logs, "stdin": stdin, "stdout": stdout, "stderr": stderr}
    request = api.request("POST", f"{path}/attach", query=_flags(query), upgrade="tcp")
    if detach_keys is not None:
        api.need("detach_keys", 22)
        request.query["detachKeys"] = detach_keys  # type: ignore[index]
    link = (yield from _attach_websocket(request)) if via == "websocket" else (yield Open(request))
    waiting = None
    try:
        if via == "hijack" and api.podman is not None and api.podman < (5,) and logs and not is_tty:
            link.unpack(RepairedReplay())
        if start:
            waiting = yield from _start_waited(api, path)
        elif _member(info, "HostConfig").get("AutoRemove") and api.version >= (1, 30):  # or nobody is left to ask
            # Podman looks for what it has removed; with Docker there may be no next exit
            condition = {} if api.podman is None else {"condition": "next-exit"}
            waiting = yield Open(api.request("POST", f"{path}/wait", query=condition))
    except BaseException:
        link.close()
        raise
    return Attached(
        link=link,
        api=api,
        path=path,
        is_raw=via == "websocket" or (is_tty and link.head.content_type != MULTIPLEXED),
        is_tty=is_tty,
        has_stdin=stdin,
        closes_stdin=_closes_stdin(api, info),
        waiting=waiting,
    )


def _check_running(container: str, info: Mapping[str, Any], *, start: bool, is_replay: bool) -> None:
    """Refuse what would hang: every engine lets one attach to what has exited, and wait for its next start."""
    status = str(_member(info, "State").get("Status", ""))
    if status in ("exited", "stopped", "dead", "removing") and not start and not is_replay:
        raise ConflictError(
            f"container {container} is {status}: an attach would wait for its next start; "
            "start it by attaching (start=True, --start), or read its log"
        )


def _start_waited(api: Api, path: str) -> Flow[Any]:
    """Start a container; return the link on which its exit will be told, asked for before it can happen."""
    waiting = None
    if api.version >= (1, 30):
        waiting = yield Open(api.request("POST", f"{path}/wait", query={"condition": "next-exit"}))
    try:
        yield Call(api.request("POST", f"{path}/start"))
    except BaseException:
        if waiting is not None:
            waiting.close()
        raise
    return waiting


def _closes_stdin(api: Api, info: Mapping[str, Any]) -> bool | None:
    """Say whether the half-close of an attach reaches the container and its output goes on."""
    config = _member(info, "Config")
    if not config.get("OpenStdin"):
        return None
    return not config.get("Tty") and (api.podman is not None or bool(config.get("StdinOnce")))


def _attach_websocket(request: Request) -> Flow[Any]:
    """Attach over a WebSocket, whose messages are the payload of all streams, merged."""
    from .websocket import WebSocketBody, check_upgrade, upgrade_headers

    headers = upgrade_headers()
    request = replace(request, method="GET", path=f"{request.path}/ws", upgrade="websocket", headers=headers)
    try:
        link = yield Open(request)
    except NotFoundError as error:
        if error.message != "Not Found":
            raise
        raise BadRequestError("this engine has no attach over a WebSocket", error.status, error.reason) from None
    try:
        check_upgrade(link.head, headers)
        link.unpack(WebSocketBody())
    except BaseException:
        link.close()
        raise
    return link


def exec_(
    api: Api,
    container: str,
    command: str | Sequence[str],
    *,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    size: tuple[int, int] | None,
    env: Mapping[str, str] | Iterable[str] | None,
    user: str,
    workdir: str | None,
    privileged: bool,
    detach_keys: str | None,
) -> Flow[Opened]:
    """Run a command in a running container."""
    if not (stdin or stdout or stderr):
        raise ValueError("none of stdin, stdout and stderr")
    config: dict[str, Any] = {
        "Cmd": words_of(command),
        "AttachStdin": stdin,
        "AttachStdout": stdout,
        "AttachStderr": stderr,
        "Tty": tty,
        "User": user,
        "Privileged": privileged,
    }
    variables = environment(env)
    if variables:
        api.need("env", 25)
        config["Env"] = variables
    if workdir is not None:
        api.need("workdir", 35)
        config["WorkingDir"] = workdir
    if detach_keys is not None:
        api.need("detach_keys", 22)
        config["DetachKeys"] = detach_keys
    start: dict[str, Any] = {"Detach": False, "Tty": tty}  # Docker frames by this one's Tty, Podman by the other's
    takes_size = api.podman is None and api.version >= (1, 42)
    if size is not None and tty and takes_size:
        config["ConsoleSize"] = start["ConsoleSize"] = list(console(*size))
    made = yield Call(api.request("POST", container_path(container, "/exec"), body=config))
    try:
        path = f"/exec/{quoted_name(_document(made, 'Id')['Id'])}"
    except (TypeError, ValueError):
        raise HandshakeError("the engine gave the exec an id that is none") from None
    link = yield Open(api.request("POST", f"{path}/start", body=start, upgrade="tcp"))
    if size is not None and tty and not takes_size:  # before the start Docker would wait ten seconds
        try:
            yield from _resize_started(api, path, *size)
        except BaseException:
            link.close()
            raise
    return Executed(
        link=link,
        api=api,
        path=path,
        is_raw=tty and link.head.content_type != MULTIPLEXED,
        is_tty=tty,
        has_stdin=stdin,
        closes_stdin=stdin and not tty,
    )


def _resize_started(api: Api, path: str, height: int, width: int) -> Flow[None]:
    """Size the TTY of an exec whose command may begin only a moment from now, or have ended already."""
    for delay in RESIZE_DELAYS:
        try:
            yield from resize(api, path, height, width)
        except EngineError:
            yield Sleep(delay)
        else:
            return


def logs(
    api: Api,
    name: str,
    *,
    of: str,
    stdout: bool,
    stderr: bool,
    follow: bool,
    since: Moment | None,
    until: Moment | None,
    tail: int | str,
    timestamps: bool,
    details: bool,
    tty: bool | None,
    is_http10: bool = True,
) -> Flow[Opened]:
    """Read the log of a container, a service or a task.

    Over HTTP/1.0 it comes without a chunk of HTTP around each frame; over HTTP/1.1 the end of what an engine had to say
    is told from that of a connection.
    """
    minor = {"container": 0, "service": 25, "task": 29}.get(of)
    if minor is None:
        raise ValueError(f'of must be "container", "service" or "task", not {of!r}')
    api.need(f"the log of a {of}", minor)
    if not (stdout or stderr):
        raise ValueError("neither stdout nor stderr")
    query = _flags(
        {"stdout": stdout, "stderr": stderr, "follow": follow, "timestamps": timestamps, "details": details}
    )
    query["tail"] = tail_of(tail)
    if details:
        api.need("details", 23)
    if since is not None:
        query["since"] = moment(since)
    if until is not None:
        if of != "container":
            raise ValueError(f"the log of a {of} knows no until")
        api.need("until", 35)
        query["until"] = moment(until)
    path = f"/{of}s/{quoted_name(name)}"
    info: Mapping[str, Any] = {} if tty is None else {"Config": {"Tty": tty}}
    if tty is None and not _tells_framing(api):
        info = _document((yield Call(api.request("GET", path + ("/json" if of == "container" else "")))))
    return (yield from _logs(api, of, path, info, query, is_http10))


def _logs(
    api: Api, of: str, path: str, info: Mapping[str, Any], query: dict[str, str], is_http10: bool = True
) -> Flow[Opened]:
    request = api.request("GET", f"{path}/logs", query=query, is_http10=is_http10)
    # Podman 4 sends the head only with the first byte of output
    is_late = api.podman is not None and api.podman < (5,) and query["follow"] == "1"
    try:
        link = yield Open(request, is_late)
    except EngineError as error:
        if error.status not in (426, 505):
            raise
        link = yield Open(replace(request, is_http10=False), is_late)
    try:
        content_type = "" if link.head is None else link.head.content_type
        if not info and not (_tells_framing(api) and content_type in (MULTIPLEXED, RAW)):
            info = _document((yield Call(api.request("GET", path + ("/json" if of == "container" else "")))))
        is_tty = has_tty(info) if info else content_type == RAW
    except BaseException:
        link.close()
        raise
    return Logged(
        link=link,
        api=api,
        path=path,
        is_raw=is_tty and content_type != MULTIPLEXED,
        is_tty=is_tty,
        has_timestamps=query["timestamps"] == "1",
        has_details=query["details"] == "1" and api.podman is None,
        has_repeats=query["follow"] == "1" and api.podman is None and api.version < (1, 42),  # seen on 20.10
        delay=LOG_DELAY,
    )


def _tells_framing(api: Api) -> bool:
    """Say whether the Content-Type of a log can be believed."""
    return api.podman is None and api.version >= (1, 42)


def _replay(stdout: bool, stderr: bool) -> dict[str, str]:
    flags = {"stdout": stdout, "stderr": stderr, "follow": False, "timestamps": False, "details": False}
    return _flags(flags) | {"tail": "all"}



# --- everything else -------------------------------------------------------------------------------------------------


def _document(answer: Response, *names: str) -> dict[str, Any]:
    """Return the JSON object that an answer is, with at least these members.

    Raises:
        HandshakeError: it is none.
    """
    document = answer.json()
    if not isinstance(document, dict) or any(name not in document for name in names):
        what = f"no JSON object with {' and '.join(names)}" if names else "no JSON object"
        raise HandshakeError(f"the answer is {what}", answer.status, answer.reason)
    return document


def container_path(container: str, below: str = "") -> str:
    """Return the path of a container, or of something below it."""
    return f"/containers/{quoted_name(container)}{below}"


def inspect(api: Api, container: str) -> Flow[dict[str, Any]]:
    """Return what the engine knows of a container."""
    return _document((yield Call(api.request("GET", container_path(container, "/json")))))


def phase(info: Mapping[str, Any]) -> Literal["created", "running", "stopped"]:
    """Say where a container is in its life, by its inspect: "running" may be paused, or about to be restarted."""
    state = _member(info, "State")
    if state.get("Running") or state.get("Restarting"):
        return "running"
    return "created" if state.get("Status") in ("created", "configured", "initialized") else "stopped"


def run_of(info: Mapping[str, Any]) -> tuple[str, str]:
    """Return what tells one run of a container from another: when it began, and when it ended."""
    state = _member(info, "State")
    return str(state.get("StartedAt")), str(state.get("FinishedAt"))


def containers(
    api: Api, labels: Sequence[str] = (), container: str | None = None
) -> Flow[tuple[list[dict[str, Any]], int | None]]:
    """List containers, stopped ones too.

    Args:
        api: the engine's.
        labels: which all of them have: "name" or "name=value".
        container: only this one, by its id.

    Returns:
        What the engine says of each (Id, Names, Labels, State), and the engine's time in seconds since 1970, from which
        `events` misses nothing that is not in this list.
    """
    filters = {"label": list(labels)} if labels else {}
    if container is not None:
        filters["id"] = [container]
    query = {"all": "1"} | ({"filters": json.dumps(filters)} if filters else {})
    answer = yield Call(api.request("GET", "/containers/json", query=query))
    listed = answer.json()
    if not isinstance(listed, list) or not all(map(_is_listing, listed)):
        raise HandshakeError("the answer is no list of containers", answer.status)
    try:
        now = int(parsedate_to_datetime(answer.headers.get("date", "")).timestamp())
    except (ValueError, OverflowError):
        now = None
    return listed, now


def id_of(info: Mapping[str, Any]) -> str:
    """Return a container's id, by its inspect.

    Raises:
        HandshakeError: it has none that can be asked for.
    """
    if not _is_id(info.get("Id")):
        raise HandshakeError("the engine gave the container an id that is none")
    return str(info["Id"])


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value.isalnum()


def _is_listing(info: Any) -> bool:
    """Say whether this is what an engine says of a container: Id, Names, Labels."""
    if not isinstance(info, dict) or not _is_id(info.get("Id")):
        return False
    names, labels = info.get("Names") or [], info.get("Labels") or {}
    return isinstance(names, list) and all(isinstance(name, str) for name in names) and isinstance(labels, dict)


def events(api: Api, labels: Sequence[str], since: int | None) -> Flow[Any]:
    """Return the link on which is told what happens to containers from a time on: JSON objects, one a line.

    Their starts and removals: {"Action": "start" | "destroy" | "remove", "Actor": {"ID": ...}, "time": seconds, ...}.
    """
    filters = {"type": ["container"], "event": ["start", "destroy", "remove"]}
    if labels:
        filters["label"] = list(labels)
    if api.podman is None:
        filters["event"].remove("remove")
    else:
        filters["event"].remove("destroy")
    query = {"filters": json.dumps(filters)} | ({} if since is None else {"since": str(since)})
    request = api.request("GET", "/events", query=query, is_http10=True)
    return (yield Open(request, is_late=True))  # some send the head with the first event


def plain(request: Request) -> Flow[Response]:
    """Make one exchange."""
    response: Response = yield Call(request)
    return response


def resize(api: Api, path: str, height: int, width: int) -> Flow[None]:
    """Tell the TTY of a container or exec how large its terminal is, in characters."""
    rows, columns = console(height, width)
    yield Call(api.request("POST", f"{path}/resize", query={"h": str(rows), "w": str(columns)}))


def open_wait(api: Api, path: str, condition: str) -> Flow[Any]:
    """Ask for a container's exit; the answer comes on the link when it happens."""
    if condition not in ("not-running", "next-exit", "removed"):
        raise ValueError(f"not a condition to wait for: {condition!r}")
    query = {"condition": condition} if api.version >= (1, 30) else {}
    return (yield Open(api.request("POST", f"{path}/wait", query=query), is_late=True))


def read_wait(waiting: Any) -> Flow[int]:
    """Wait for a container's exit; return its code.

    Raises:
        EngineError: the engine could not wait to the end; NotFoundError where the container was removed meanwhile.
    """
    body = yield Read(waiting)
    if not body.strip():
        raise ConnectionLostError("the connection ended before the exit was told")
    answer = _document(Response(200, "OK", {}, body), "StatusCode")
    message = _member(answer, "Error").get("Message")
    if message:
        raise kind_of(str(message))(str(message))
    return _exit_code(answer["StatusCode"])


def exec_exit(api: Api, path: str, delay: float) -> Flow[int | None]:
    """Return the exit code of an exec, by its path (/exec/ID), if there is one after a delay."""
    if delay:
        yield Sleep(delay)
    info = _document((yield Call(api.request("GET", f"{path}/json"))), "Running", "ExitCode")
    if info["Running"] or info["ExitCode"] is None:
        return None
    return _exit_code(info["ExitCode"])


def _exit_code(value: object) -> int:
    """Make sure that this is a number of 32 bits.

    Raises:
        HandshakeError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not -1 << 31 <= value < 1 << 32:
        raise HandshakeError("the answer has an exit code that is no number")
    return value


def _flags(flags: Mapping[str, bool]) -> dict[str, str]:
    return {name: "1" if flag else "0" for name, flag in flags.items()}


def console(height: int, width: int) -> tuple[int, int]:
    """Make sure that these can be the size of a terminal."""
    for number in (height, width):
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError("height and width of a terminal are whole numbers of characters")
        if not 0 <= number <= 0xFFFF:
            raise ValueError(f"height and width of a terminal are 0..65535, not {number}")
    return height, width


def _member(info: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object inside another; an empty one where there is none."""
    value = info.get(name)
    return value if isinstance(value, dict) else {}


def has_tty(info: Mapping[str, Any]) -> bool:
    """Say whether a container, a service or a task has a TTY, by its inspect."""
    spec = _member(info, "Spec")
    container = _member(_member(spec, "TaskTemplate") or spec, "ContainerSpec")
    return bool(_member(info, "Config").get("Tty") or container.get("TTY"))
