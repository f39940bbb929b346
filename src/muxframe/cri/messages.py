"""The messages of the CRI that are used here, in protobuf's wire format.

Requests are made, and answers read, field by field: number, value. As proto3 has it, what is zero or empty is left out,
and fields that are not known are skipped, so that newer runtimes are no trouble.

Source: protobuf.dev, "Encoding"; kubernetes/cri-api, runtime/v1/api.proto (v1alpha2 has the same numbers here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Union

from ..errors import HandshakeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Value = Union[bool, int, str, bytes]

VARINT, I64, LEN, I32 = 0, 1, 2, 5  # wire types; what else there was is of no use since 2008

STATES = ("created", "running", "exited", "unknown")
RUNNING = 1


# --- what users get --------------------------------------------------------------------------------------------------


class Version(NamedTuple):
    """What a runtime says of itself."""

    name: str  #: containerd, cri-o, iSulad
    version: str
    api: str  #: the CRI's version: "v1" or "v1alpha2"


@dataclass(frozen=True, slots=True)
class Container:
    """A container, as a runtime lists it.

    Attributes:
        id: what attach and exec take.
        name: within its pod.
        pod: id of its pod's sandbox.
        image: as it was asked for.
        state: "created", "running", "exited" or "unknown".
        created_at: nanoseconds since 1970.
        labels: a kubelet's have the pod's name: "io.kubernetes.pod.name", "io.kubernetes.pod.namespace".
    """

    id: str
    name: str
    pod: str
    image: str
    state: str
    created_at: int
    labels: Mapping[str, str]


class Status(NamedTuple):
    """How a container is."""

    state: str  #: as Container.state
    exit_code: int  #: where it has exited
    info: Mapping[str, str]  #: what the runtime says beyond the CRI, if it was asked to be verbose


# --- requests --------------------------------------------------------------------------------------------------------


def attach_request(container: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> bytes:
    """Ask for the address of an attach."""
    return _encode((1, container), (2, stdin), (3, tty), (4, stdout), (5, stderr))


def exec_request(
    container: str, command: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
) -> bytes:
    """Ask for the address of an exec."""
    words = [(2, word.encode()) for word in command]  # as bytes: an empty one counts, too
    return _encode((1, container), *words, (3, tty), (4, stdin), (5, stdout), (6, stderr))


def list_request(*, running: bool) -> bytes:
    """Ask for all containers, or those that run."""
    return _encode((1, _encode((2, _encode((1, RUNNING)))))) if running else b""


def status_request(container: str, *, verbose: bool = False) -> bytes:
    """Ask for the status of a container."""
    return _encode((1, container), (2, verbose))


def version_request() -> bytes:
    """Ask what the runtime is."""
    return b""


# --- answers ---------------------------------------------------------------------------------------------------------


def read_url(answer: bytes) -> str:
    """Read the answer to Attach and Exec: where the stream is."""
    return _Fields(answer).text(1)


def read_version(answer: bytes, api: str) -> Version:
    """Read the answer to Version."""
    fields = _Fields(answer)
    return Version(fields.text(2), fields.text(3), api)


def read_containers(answer: bytes) -> list[Container]:
    """Read the answer to ListContainers."""
    return [_container(_Fields(each)) for each in _Fields(answer).all(1)]


def _container(fields: _Fields) -> Container:
    return Container(
        id=fields.text(1),
        name=fields.message(3).text(1),
        pod=fields.text(2),
        image=fields.message(4).text(1),
        state=_state(fields.number(6)),
        created_at=fields.number(7),
        labels=fields.mapping(8),
    )


def read_status(answer: bytes) -> Status:
    """Read the answer to ContainerStatus."""
    fields = _Fields(answer)
    status = fields.message(1)
    return Status(_state(status.number(3)), status.number(7), fields.mapping(2))


def _state(number: int) -> str:
    return STATES[number] if 0 <= number < len(STATES) else "unknown"


# --- the wire --------------------------------------------------------------------------------------------------------


def _encode(*fields: tuple[int, Value]) -> bytes:
    """Write fields: numbers and truth as varints, the rest as its bytes; "", 0 and False are left out."""
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value) if value else b""
    if isinstance(value, str):
        if not value:
            return b""
        value = value.encode()
    return _varint(number << 3 | LEN) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


class _Fields:
    """The fields of a message.

    Raises:
        HandshakeError: it is none.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._values: dict[int, list[int | bytes]] = {}
        while self._position < len(data):
            key = self._read_varint()
            value = self._read(key & 7)
            self._values.setdefault(key >> 3, []).append(value)

    def all(self, number: int) -> Iterable[bytes]:
        """Give the bytes of each of a repeated field."""
        return [value for value in self._values.get(number, ()) if isinstance(value, bytes)]

    def text(self, number: int) -> str:
        values = list(self.all(number))
        return values[-1].decode("utf-8", "replace") if values else ""

    def number(self, number: int) -> int:
        """Return a signed number."""
        values = [value for value in self._values.get(number, ()) if isinstance(value, int)]
        if not values:
            return 0
        return values[-1] - (1 << 64) if values[-1] >> 63 else values[-1]

    def message(self, number: int) -> _Fields:
        """Return the fields of a message within this one; it may come in parts."""
        return _Fields(b"".join(self.all(number)))

    def mapping(self, number: int) -> dict[str, str]:
        pairs = [_Fields(each) for each in self.all(number)]
        return {pair.text(1): pair.text(2) for pair in pairs}

    def _read(self, kind: int) -> int | bytes:
        if kind == VARINT:
            return self._read_varint()
        if kind == LEN:
            return self._take(self._read_varint())
        if kind == I64:
            return self._take(8)
        if kind == I32:
            return self._take(4)
        raise _broken(f"wire type {kind}")

    def _read_varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            digit = self._take(1)[0]
            number |= (digit & 0x7F) << shift
            if digit < 0x80:
                return number & (1 << 64) - 1
        raise _broken("a number of more than ten bytes")

    def _take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise _broken("cut off")
        taken = self._data[self._position : end]
        self._position = end
        return taken


def _broken(why: str) -> HandshakeError:
    return HandshakeError(f"the runtime's answer is no message of the CRI: {why}")
