"""gRPC, by grpcio: where a runtime is, how it is called, and what its refusals mean.

Nothing is generated: messages.py writes and reads the few messages there are. Needs the extra: `muxframe[cri]`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

try:
    import grpc
except ModuleNotFoundError as _error:
    if _error.name != "grpc":
        raise
    text = 'a container runtime is called with grpcio: pip install "muxframe[cri]"'
    raise ModuleNotFoundError(text, name=_error.name) from None

from ..engine.endpoint import Endpoint, parse_endpoint
from ..errors import BadRequestError, ConflictError, ConnectionLostError, EngineError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Caller", "RpcError", "find_endpoints", "refuse"]

RpcError = grpc.RpcError

VARIABLE = "CONTAINER_RUNTIME_ENDPOINT"  # as crictl has it

DEFAULT_URLS = {
    "unix:///run/containerd/containerd.sock": "containerd's default",
    "unix:///run/crio/crio.sock": "CRI-O's default",
    "unix:///var/run/isulad.sock": "iSulad's default",
}

MAX_ANSWER_SIZE = 16 * 1024 * 1024  #: as kubelets have it; gRPC's own 4 MiB are too few for many containers

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_ANSWER_SIZE),
    ("grpc.default_authority", "localhost"),  # not the socket's path, which some servers refuse
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)

_ERRORS = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.INVALID_ARGUMENT: BadRequestError,
    grpc.StatusCode.FAILED_PRECONDITION: ConflictError,
}


def find_endpoints(endpoint: str | None, environ: Mapping[str, str] = os.environ) -> list[Endpoint]:
    """Say where the runtime is: the endpoint given, CONTAINER_RUNTIME_ENDPOINT, or the usual sockets, to be tried.

    Raises:
        ValueError: an address is not usable.
    """
    if endpoint is not None:
        return [_parse(endpoint, "endpoint argument")]
    if environ.get(VARIABLE):
        return [_parse(environ[VARIABLE], VARIABLE)]
    return [_parse(url, origin) for url, origin in DEFAULT_URLS.items()]


def _parse(url: str, origin: str) -> Endpoint:
    endpoint = parse_endpoint(url, origin, False if url.startswith("tcp:") else None)
    if endpoint.scheme not in ("unix", "tcp") or endpoint.prefix:
        raise ValueError(f"{origin}: a runtime's address is unix:///path, tcp://host:port or a path, not {endpoint}")
    return endpoint


class Caller:
    """Makes the calls of one flow, on one connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        target = f"unix:{quote(endpoint.path)}" if endpoint.kind == "unix" else str(endpoint).removeprefix("tcp://")
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)

    def begin(self, path: str, message: bytes, timeout: float | None) -> Any:
        """Begin a call, of bytes that are answered with bytes; return grpcio's future for it."""
        call: Any = self._channel.unary_unary(path)
        return call.future(message, timeout=timeout)

    def close(self) -> None:
        """Let the connection go."""
        self._channel.close()


def refuse(error: Any, endpoint: Endpoint) -> NoReturn:
    """Raise what grpcio's exception stands for: what the runtime refused, or that it is not there."""
    code, text = error.code(), error.details() or "the runtime said no more"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise TimeoutError("the runtime did not answer in time") from None
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        if not text.startswith("failed to connect"):  # ... to all addresses; last error: ... error: the reason
            raise ConnectionLostError(text) from None
        reason = ConnectionError(text.rpartition("error: ")[2])
        raise ConnectionLostError(f"cannot connect to {endpoint} ({endpoint.origin}): {reason}") from reason
    kind = _ERRORS.get(code, EngineError)
    if code is grpc.StatusCode.UNKNOWN and "container is in" in text:  # "... CONTAINER_EXITED state"
        kind = ConflictError
    raise kind(text, None, code.name) from None
