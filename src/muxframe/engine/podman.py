"""What Podman 4 sends wrongly, put right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._framing import pack_frame
from ..protocol import HEADER_SIZE
from .handshake import Body

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["RepairedReplay"]


class RepairedReplay(Body):
    """An attach with logs=1, whose replayed frames announce a byte less than they carry: the line's end.

    So a line feed where a header belongs (no stream has that number) is payload of the frame before. It becomes a frame
    of its own; everything else, the live frames behind the replay too, passes as it is.

    Source: Podman 4.3.1, seen: `01 00 00 00 00 00 00 04` before `out0\\n`; right since 5.0.
    """

    def __init__(self) -> None:
        self._header = b""
        self._remaining = 0
        self._stream = 0
        self._is_behind_frame = False

    def feed(self, data: Buffer) -> bytes:
        wire = bytes(data)
        if not wire:
            self.is_over = True
        parts: list[bytes] = []
        position = 0
        while position < len(wire):
            if self._remaining:
                payload = wire[position : position + self._remaining]
                parts.append(payload)
                position += len(payload)
                self._remaining -= len(payload)
            elif self._is_behind_frame and not self._header and wire[position] == ord("\n"):
                parts.append(pack_frame(self._stream, b"\n"))
                position += 1
                self._is_behind_frame = False
            else:
                taken = wire[position : position + HEADER_SIZE - len(self._header)]
                position += len(taken)
                self._take_header(taken, parts)
        return b"".join(parts)

    def _take_header(self, taken: bytes, parts: list[bytes]) -> None:
        parts.append(taken)
        self._header += taken
        if len(self._header) == HEADER_SIZE:
            self._stream = self._header[0] & 3
            self._remaining = int.from_bytes(self._header[4:], "big")
            self._header = b""
            self._is_behind_frame = True
