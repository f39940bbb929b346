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

from typing import TYPE_CHECKING

try:
    import docker
    import docker.api.client
    import docker.api.container
    import docker.api.exec_api
    import docker.utils.socket
    import urllib3.connection
except ImportError as _error:
    raise ImportError(
        f"muxframe.compat.docker_py needs docker-py 7 (pip install docker): {_error}", name=_error.name
    ) from _error

from .._patching import Patch, UncheckedVersionWarning
from . import streams
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
from .streams import Cancellable, Response

if TYPE_CHECKING:
    from .._patching import Installed

__all__ = [
    "CHECKED_VERSIONS",
    "DockerConnectionLostError",
    "DockerDaemonError",
    "DockerFrameTooLargeError",
    "DockerReservedBytesError",
    "DockerStreamError",
    "DockerTruncatedStreamError",
    "DockerUnknownStreamError",
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


def install() -> Installed:
    """Let docker-py read through muxframe, in this process, clients that are there already included.

    Returns:
        A context manager that undoes what this call has done, to be used or not: `with install(): ...`. Installing what
        is installed does nothing.

    Warns:
        UncheckedVersionWarning: the version of docker-py is not one of CHECKED_VERSIONS.

    Raises:
        AttributeError: it is one that this does not fit; nothing has been replaced.
    """
    return _PATCH.install()


def uninstall() -> None:
    """Put everything back as it was found."""
    _PATCH.uninstall()


_CLIENT = docker.api.client.APIClient
_FUNCTIONS = (
    read,
    read_exactly,
    next_frame_header,
    frames_iter,
    frames_iter_tty,
    frames_iter_no_tty,
    demux_adaptor,
    consume_socket_output,
)
_PATCH = Patch(
    "docker",
    CHECKED_VERSIONS,
    [
        *((docker.utils.socket, function.__name__, function) for function in _FUNCTIONS),
        *((docker.api.client, each.__name__, each) for each in (consume_socket_output, demux_adaptor, frames_iter)),
        *((module, "CancellableStream", Cancellable) for module in (docker.api.container, docker.api.exec_api)),
        (urllib3.connection.HTTPConnection, "response_class", Response),
        (_CLIENT, "get", streams.get(_CLIENT.get)),
        (_CLIENT, "post", streams.post(_CLIENT.post)),
        (_CLIENT, "logs", streams.logs(_CLIENT.logs)),
        (_CLIENT, "_read_from_socket", streams.read_from_socket),
        (_CLIENT, "_get_result_tty", streams.get_result_tty),
        (_CLIENT, "_stream_raw_result", streams.stream_raw_result(_CLIENT._stream_raw_result)),
    ],
)
