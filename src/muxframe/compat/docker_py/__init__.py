"""docker-py whose attach, exec and logs are read by muxframe.

    import muxframe.compat.docker_py
    muxframe.compat.docker_py.install()

`install` replaces, and `uninstall` puts back:

    docker.utils.socket     its functions, by those below
    APIClient               how it reads streams and logs; `logs` (and Container.logs) learns demux=True
    CancellableStream       of attach, exec and logs: ends quietly when it was closed, but not when the connection broke
    urllib3's connections   where docker-py asks for an upgrade, the head is read to its end and no further: what came
                            with it is still there for whoever takes the socket. All other responses stay as they are

That is for the whole process: install before other threads use docker-py. A stream goes on in the way in which it was
opened. It is for one thread, except that `close` may come from another.

Importing this needs docker-py (`pip install docker`); nothing else of muxframe does.

Source: docker-py 7, docker/api/client.py, docker/utils/socket.py, docker/types/daemon.py.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

try:
    import docker
    import docker.api.client
    import docker.api.container
    import docker.api.exec_api
    import docker.utils.socket
    import urllib3.connection
except ImportError as error:
    raise ImportError(
        f"muxframe.compat.docker_py needs docker-py 7 (pip install docker): {error}", name=error.name
    ) from error

from . import sockets, streams
from .errors import (
    DockerConnectionLostError,
    DockerDaemonError,
    DockerFrameTooLargeError,
    DockerReservedBytesError,
    DockerStreamError,
    DockerTruncatedStreamError,
    DockerUnknownStreamError,
)
from .sockets import (
    consume_socket_output,
    demux_adaptor,
    frames_iter,
    frames_iter_no_tty,
    frames_iter_tty,
    next_frame_header,
    read,
    read_exactly,
)

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "CHECKED_VERSIONS",
    "DockerConnectionLostError",
    "DockerDaemonError",
    "DockerFrameTooLargeError",
    "DockerReservedBytesError",
    "DockerStreamError",
    "DockerTruncatedStreamError",
    "DockerUnknownStreamError",
    "Installation",
    "UncheckedVersionWarning",
    "consume_socket_output",
    "demux_adaptor",
    "frames_iter",
    "frames_iter_no_tty",
    "frames_iter_tty",
    "install",
    "next_frame_header",
    "read",
    "read_exactly",
    "uninstall",
]

#: The versions of docker-py that the tests were run with.
CHECKED_VERSIONS = ("7.0.0", "7.1.0", "7.2.0")

_SOCKET_FUNCTIONS = (
    "read", "read_exactly", "next_frame_header", "frames_iter", "frames_iter_no_tty", "frames_iter_tty",
    "consume_socket_output", "demux_adaptor",
)

_lock = threading.Lock()
_replaced: list[tuple[Any, str, Any]] = []  # owner, name, what was there; empty while not installed
_INHERITED = object()


class UncheckedVersionWarning(UserWarning):
    """The docker-py at hand is none of CHECKED_VERSIONS."""


class Installation:
    """What `install` returns: leaving the `with` block undoes what that call has done."""

    def __init__(self, *, is_new: bool) -> None:
        self._is_new = is_new

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_new:
            uninstall()


def install() -> Installation:
    """Let docker-py read through muxframe, in this process, clients that are there already included.

    Installing what is installed does nothing, and nor does leaving the `with` block of such a call.

    Warns:
        UncheckedVersionWarning: this docker-py is not one that this was tested with.

    Raises:
        AttributeError: it is one that this does not fit; nothing has been replaced.
    """
    with _lock:
        if _replaced:
            return Installation(is_new=False)
        if docker.__version__ not in CHECKED_VERSIONS:
            warnings.warn(
                f"docker-py {docker.__version__} has not been tested with muxframe.compat.docker_py, "
                f"only {', '.join(CHECKED_VERSIONS)}",
                UncheckedVersionWarning,
                stacklevel=2,
            )
        replacements = _replacements()
        for owner, name, new in replacements:
            _replaced.append((owner, name, vars(owner).get(name, _INHERITED)))
            setattr(owner, name, new)
        return Installation(is_new=True)


def uninstall() -> None:
    """Put back what `install` replaced. Without an `install` it does nothing."""
    with _lock:
        while _replaced:
            owner, name, old = _replaced.pop()
            if old is _INHERITED:
                delattr(owner, name)
            else:
                setattr(owner, name, old)


def _replacements() -> list[tuple[Any, str, Any]]:
    """List what to replace: owner, name, and by what. All of it must be there."""
    client = docker.api.client.APIClient
    functions = {name: getattr(sockets, name) for name in _SOCKET_FUNCTIONS}
    by_name = [
        (docker.utils.socket, functions),
        (docker.api.client, {name: functions[name] for name in functions if hasattr(docker.api.client, name)}),
        (docker.api.container, {"CancellableStream": streams.QuietlyCancelled}),
        (docker.api.exec_api, {"CancellableStream": streams.QuietlyCancelled}),
        (urllib3.connection.HTTPConnection, {"response_class": streams.Response}),
        (
            client,
            {
                "get": streams.get(client.get),
                "post": streams.post(client.post),
                "logs": streams.logs(client.logs),
                "_read_from_socket": streams.read_from_socket,
                "_get_result_tty": streams.get_result_tty,
                "_stream_raw_result": streams.stream_raw_result(client._stream_raw_result),
            },
        ),
    ]
    for owner, values in by_name:
        for name in values:
            getattr(owner, name)
    return [(owner, name, new) for owner, values in by_name for name, new in values.items()]
