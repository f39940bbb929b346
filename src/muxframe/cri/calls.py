"""What is asked of a container runtime, in which order, and what its answers mean: flows, as in engine/calls.py.

One step comes to those there:

    Ask(path, message) -> bytes        a call of gRPC; raises what its refusal stands for

A stream is an address in a runtime's answer, good for one connection. Who is refused there for the protocols that were
offered needs another address. Source: kubernetes/cri-api; containerd 1.6, 1.7 and 2.1 as observed; iSulad's sources.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ..engine.calls import Open, Opened, Sleep, Write, console
from ..engine.endpoint import parse_endpoint
from ..engine.handshake import Request
from ..engine.parameters import words_of
from ..engine.websocket import check_upgrade, upgrade_headers
from ..errors import BadRequestError, ConflictError, EngineError, HandshakeError
from . import messages
from .channel import PROTOCOLS, V1, V4, ChannelBody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..engine.endpoint import AnyTls, Endpoint
    from .messages import Container, Version

T = TypeVar("T")

Flow = Generator[Any, Any, T]  # of Ask and engine.calls.Step

APIS = ("v1", "v1alpha2")

#: What is offered, one after the other while the answer is 403: some servers know no lists.
OFFERS = (PROTOCOLS, (V4,), (V1,))

SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}

#: Seconds between questions for a container's exit: the first, and at most.
FIRST_POLL, LAST_POLL = 0.02, 1.0


@dataclass(frozen=True, slots=True)
class Ask:
    """Call a method of the runtime."""

    path: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Api:
    """What is known of a runtime.

    Attributes:
        version: what it says of itself, and which CRI to speak with it.
        tls: how the servers of its streams are secured, see `connect`.
    """

    version: Version
    tls: AnyTls = None

    @property
    def is_isulad(self) -> bool:
        return self.version.name.lower() == "isulad"

    def ask(self, method: str, message: bytes) -> Ask:
        """Make a call."""
        return _ask(self.version.api, method, message)


def _ask(api: str, method: str, message: bytes) -> Ask:
    return Ask(f"/runtime.{api}.RuntimeService/{method}", message)


def negotiate(tls: AnyTls) -> Flow[Api]:
    """Find out what the runtime is, and which version of the CRI it speaks."""
    for api in APIS:
        try:
            answer = yield _ask(api, "Version", messages.version_request())
        except EngineError as error:
            if error.reason != "UNIMPLEMENTED":
                raise
        else:
            return Api(messages.read_version(answer, api), tls)
    raise EngineError(f"it speaks no CRI, neither {' nor '.join(APIS)}; containerd may have its plugin disabled")


def version(api: Api) -> Flow[Version]:
    """Ask what the runtime is."""
    return messages.read_version((yield api.ask("Version", messages.version_request())), api.version.api)


def containers(api: Api, *, all: bool) -> Flow[list[Container]]:
    """List the containers."""
    return messages.read_containers((yield api.ask("ListContainers", messages.list_request(running=not all))))


# --- sessions --------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Streamed(Opened):
    """A session whose stream is a WebSocket's channels. It is never raw: a TTY's output, too, comes in messages.

    Attributes:
        body: the channels.
    """

    body: ChannelBody

    def resize(self, height: int, width: int) -> Flow[None]:
        yield Write(self.link, self.body.pack_resize(*console(height, width)))

    def check_half_close(self) -> None:
        self.body.check_half_close()


@dataclass(kw_only=True)
class Attached(Streamed):
    """An attach. It always ends well: how the container ended, its status tells.

    Attributes:
        api: the runtime's; None where there is only a stream.
    """

    api: Api | None

    def wait(self) -> Flow[int]:
        if self.api is None:
            raise ValueError("an attach does not tell how the container ended: ask who has given its address")
        delay = FIRST_POLL
        while (status := (yield from _status(self.api, self.path))).state != "exited":
            yield Sleep(delay)
            delay = min(2 * delay, LAST_POLL)
        return status.exit_code


@dataclass(kw_only=True)
class Executed(Streamed):
    """An exec. How it ended comes behind its output."""

    def wait(self) -> Flow[int]:
        if not self.body.is_over:
            raise ValueError("the exit code comes behind the output, which has not been read to its end")
        code = yield from self.end()
        if code is None:
            raise EngineError("the runtime did not say how the command ended")
        return code

    def end(self) -> Flow[int | None]:
        return self.body.exit_code
        yield


def attach(
    api: Api, container: str, *, stdin: bool, stdout: bool, stderr: bool | None, tty: bool | None
) -> Flow[Opened]:
    """Attach to a container that runs."""
    if tty is None:
        tty = yield from _has_tty(api, container)
    streams = _streams(stdin, stdout, stderr, tty)
    ask = api.ask("Attach", messages.attach_request(container, **streams, tty=tty))
    link, body = yield from _open_asked(api, ask)
    return Attached(link=link, path=container, is_raw=False, is_tty=tty, body=body, api=api, **_stdin(stdin, body))


def exec_(
    api: Api,
    container: str,
    command: str | Sequence[str],
    *,
    stdin: bool,
    stdout: bool,
    stderr: bool | None,
    tty: bool,
    size: tuple[int, int] | None,
) -> Flow[Opened]:
    """Run a command in a container that runs."""
    words = words_of(command)
    streams = _streams(stdin, stdout, stderr, tty)
    ask = api.ask("Exec", messages.exec_request(container, words, **streams, tty=tty))
    link, body = yield from _open_asked(api, ask)
    opened = Executed(link=link, path=container, is_raw=False, is_tty=tty, body=body, **_stdin(stdin, body))
    if size is not None and tty:
        try:
            yield from opened.resize(*size)
        except BaseException:
            link.close()
            raise
    return opened


def stream(url: str, *, headers: Mapping[str, str], tls: AnyTls, stdin: bool, tty: bool) -> Flow[Opened]:
    """Open a stream whose address is known, such as a Kubernetes API server's attach or exec."""

    def known() -> Flow[str]:
        return url
        yield

    link, body = yield from _open(known, headers, tls)
    known_of_it: dict[str, Any] = {"link": link, "is_raw": False, "is_tty": tty, "body": body, **_stdin(stdin, body)}
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc}"  # the rest is a secret
    if parts.path.rstrip("/").endswith("/attach"):
        return Attached(path=place, api=None, **known_of_it)
    return Executed(path=place, **known_of_it)


def _streams(stdin: bool, stdout: bool, stderr: bool | None, tty: bool) -> dict[str, bool]:
    """Say which streams to ask for: stderr, if None, where there can be one; and a TTY's stdin, or it is hung up."""
    return {"stdin": stdin or tty, "stdout": stdout, "stderr": not tty if stderr is None else stderr}


def _stdin(stdin: bool, body: ChannelBody) -> dict[str, bool]:
    return {"has_stdin": stdin, "closes_stdin": body.has_half_close}


def _status(api: Api, container: str, *, verbose: bool = False) -> Flow[messages.Status]:
    answer = yield api.ask("ContainerStatus", messages.status_request(container, verbose=verbose))
    return messages.read_status(answer)


def _has_tty(api: Api, container: str) -> Flow[bool]:
    """Look for a TTY in the OCI specification that containerd and CRI-O show."""
    status = yield from _status(api, container, verbose=True)
    if status.state == "exited":
        raise ConflictError(f"container {container} has exited")
    try:
        return bool(json.loads(status.info["info"])["runtimeSpec"]["process"].get("terminal"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise BadRequestError(
            f"{api.version.name or 'the runtime'} does not say whether container {container} has a TTY: "
            "tty=True or tty=False does"
        ) from None


# --- streams ---------------------------------------------------------------------------------------------------------


def _open_asked(api: Api, ask: Ask) -> Flow[tuple[Any, ChannelBody]]:
    def asked() -> Flow[str]:
        return messages.read_url((yield ask))

    return _open(asked, {}, api.tls, is_isulad=api.is_isulad)


def _open(
    find_url: Callable[[], Flow[str]], headers: Mapping[str, str], tls: AnyTls, *, is_isulad: bool = False
) -> Flow[tuple[Any, ChannelBody]]:
    """Open a stream with the best protocol that its server speaks; return its link and its channels."""
    for offer in OFFERS:
        url = yield from find_url()
        endpoint, target = _split(url, tls)
        asked = {**headers, **upgrade_headers(), "Sec-WebSocket-Protocol": ", ".join(offer)}
        try:
            link = yield Open(Request("GET", target, headers=asked, upgrade="websocket"), endpoint=endpoint)
        except EngineError as error:
            if error.status != 403 or offer is OFFERS[-1]:
                raise
            continue
        try:
            check_upgrade(link.head, asked)
            agreed = link.head.headers.get("sec-websocket-protocol", "")
            if agreed and agreed not in offer:
                raise HandshakeError(f"the server chose a protocol that was not offered: {agreed!r}")
            body = ChannelBody(agreed, is_isulad=is_isulad)
            link.unpack(body)
        except BaseException:
            link.close()
            raise
        return link, body
    raise AssertionError("the last offer has an answer")


def _split(url: str, tls: AnyTls) -> tuple[Endpoint, str]:
    """Take an address apart: where to connect, and what to ask for there, which is a secret."""
    try:
        parts = urlsplit(url)
        scheme = SCHEMES[parts.scheme]
    except (ValueError, LookupError):
        raise HandshakeError("the address of the stream is none") from None
    try:
        endpoint = parse_endpoint(f"{scheme}://{parts.netloc}", "stream", tls if scheme == "https" else None)
    except ValueError as error:
        raise HandshakeError(f"the address of the stream is not usable: {error}") from None
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise HandshakeError("the address of the stream has characters that no address has")
    return endpoint, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
