"""The channel protocols of Kubernetes and the CRI: streams side by side in one WebSocket, without I/O.

    message := CHANNEL data        CHANNEL is a byte; in the base64 protocols a digit, and the data is base64

| channel | carries | |
|---|---|---|
| 0 | stdin | |
| 1, 2 | stdout, stderr | |
| 3 | how it ended | once: JSON (v4, v5); text, of a failure only (v1) |
| 4 | the terminal's size | JSON |
| 255 | the end of a channel, whose number follows | v5 |

`ChannelBody` makes of this the multiplexed stream of attach, one frame for each message (or each fragment of one), so
that everything above is as it is there. A failure that is no exit code becomes a systemerr frame at the end. A channel
that should not be there becomes a frame of a stream that should not be there.

iSulad speaks v1 in a way of its own, see `is_isulad`.

Source: kubernetes/apimachinery, util/httpstream and util/remotecommand; containerd 1.6, 1.7 and 2.1 as observed;
iSulad's websocket server.
"""

from __future__ import annotations

import binascii
import json
import re
from typing import TYPE_CHECKING, Any

from websockets.frames import CloseCode, Opcode

from ..engine.websocket import MAX_MESSAGE_SIZE, PIECE_SIZE, WebSocketBody
from ..errors import BadRequestError
from ..protocol import MAX_SYSTEMERR_SIZE, Stream

if TYPE_CHECKING:
    from websockets.frames import Frame

__all__ = ["PROTOCOLS", "ChannelBody"]

V5, V4, V1 = "v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"
V4_BASE64, V1_BASE64 = "v4.base64.channel.k8s.io", "base64.channel.k8s.io"

#: By preference. All of them in one header are less than the 128 bytes that some servers have for it.
PROTOCOLS = (V5, V4, V1, V4_BASE64, V1_BASE64)

STDIN, ERROR, RESIZE, CLOSE = 0, 3, 4, 255

#: Of channel 3, in bytes. A runtime repeats the whole command there: up to 2 MiB, some of which take six bytes each.
MAX_STATUS_SIZE = MAX_MESSAGE_SIZE

_EXIT_CODE = re.compile(r"[0-9]{1,10}")  # v4, v5; of Windows it may have 32 bits
_EXIT_TEXT = re.compile(r"exit code ([0-9]{1,3})\s*\Z")  # v1
_ISULAD_EXIT = re.compile(rb"Exit code :([0-9]{1,3})\n")


class ChannelBody(WebSocketBody):
    """The streams of a WebSocket as one multiplexed stream.

    Args:
        protocol: the one that was agreed on; empty is v1, as the first servers had it.
        is_isulad: iSulad's manners. It writes a command's exit code, if it is not 0, as a last message on stdout, which
            is not handed on as output; and it ends without a Close.

    Attributes:
        exit_code: after the end: what the other side says of the command, 0 where it says that all went well; None
            where it says nothing, or that something else went wrong.
    """

    def __init__(self, protocol: str, *, is_isulad: bool = False) -> None:
        super().__init__()
        self.exit_code: int | None = None
        self.protocol: str = protocol or V1
        self._is_isulad = is_isulad
        self._is_base64 = self._is_text = self.protocol in (V4_BASE64, V1_BASE64)
        self._has_json_status = self.protocol in (V5, V4, V4_BASE64)
        self._channel: int | None = None  # of the message that is being received
        self._quantum = b""  # base64 that is not yet four characters
        self._status = bytearray()
        self._held = b""  # of iSulad: what may be an exit code

    @property
    def has_half_close(self) -> bool:
        """Say whether the end of stdin can be told."""
        return self.protocol == V5

    def check_half_close(self) -> None:
        """Make sure of that.

        Raises:
            BadRequestError: the protocol has no words for it.
        """
        if not self.has_half_close:
            raise BadRequestError(
                f"stdin cannot be closed alone: {self.protocol} has no words for it; close() ends the output, too"
            )

    # Receiving.

    def _unpack(self, frame: Frame) -> bytes:
        data = bytes(frame.data)
        if frame.opcode is not Opcode.CONT:
            self._channel = None
        if self._channel is None:
            if not data:
                return b""
            self._channel = data[0] - ord("0") & 0xFF if self._is_base64 else data[0]
            data = data[1:]
        if self._is_base64:
            data = self._decode(data, frame.fin)
        return self._take(self._channel, data) if data else b""

    def _decode(self, text: bytes, is_end: bool) -> bytes:
        text = self._quantum + text
        size = len(text) if is_end else len(text) // 4 * 4
        self._quantum = text[size:]
        try:
            return binascii.a2b_base64(text[:size], strict_mode=True) if size else b""
        except binascii.Error as error:
            self._fail(f"not base64: {error}")
            return b""

    def _take(self, channel: int, data: bytes) -> bytes:
        if channel == ERROR:
            self._status += data[: MAX_STATUS_SIZE - len(self._status)]
            return b""
        if channel == CLOSE and self.protocol == V5:
            return b""
        if not self._is_isulad:
            return _frame(channel, data)
        held, self._held = self._held, b""
        if channel == Stream.STDOUT and _ISULAD_EXIT.fullmatch(data):
            self._held, data = data, b""
        return _frame(Stream.STDOUT, held) + _frame(channel, data)

    # The end.

    def _is_end(self) -> bool:
        close = self._messages.close_rcvd
        is_normal = close is not None and close.code in (CloseCode.NORMAL_CLOSURE, CloseCode.NO_STATUS_RCVD)
        return is_normal or bool(self._status) or self._is_isulad

    def _last_words(self) -> bytes:
        if self._is_isulad:
            said = _ISULAD_EXIT.fullmatch(self._held)
            self.exit_code = int(said[1]) if said else 0
        if not self._status:
            if not self._has_json_status:
                self.exit_code = self.exit_code or 0
            return b""
        text = self._status.decode("utf-8", "replace")
        self.exit_code, failure = _read_status(text) if self._has_json_status else _read_text(text)
        if not failure:
            return b""
        return _frame(Stream.SYSTEMERR, failure.encode("utf-8", "replace")[:MAX_SYSTEMERR_SIZE])

    # Sending.

    def pack(self, data: bytes) -> bytes:
        pieces = [data[start : start + PIECE_SIZE] for start in range(0, len(data), PIECE_SIZE)]
        return self._packed([self._message(STDIN, piece) for piece in pieces])

    def pack_eof(self) -> bytes:
        self.check_half_close()
        return self._packed([bytes((CLOSE, STDIN))])

    def pack_resize(self, height: int, width: int) -> bytes:
        """Return what says how large the terminal is."""
        return self._packed([self._message(RESIZE, json.dumps({"Width": width, "Height": height}).encode())])

    def _message(self, channel: int, data: bytes) -> bytes:
        if self._is_base64:
            return b"%d" % channel + binascii.b2a_base64(data, newline=False)
        return bytes((channel,)) + data


def _frame(stream: int, data: bytes) -> bytes:
    """Return a frame, also of a stream that there is not; nothing for nothing."""
    return b"%c\0\0\0%b%b" % (stream, len(data).to_bytes(4, "big"), data) if data else b""


def _read_status(text: str) -> tuple[int | None, str]:
    """Read the Status of v4 and v5: an exit code, or a failure."""
    try:
        status: dict[str, Any] = json.loads(text)
        if status.get("status") == "Success":
            return 0, ""
        if status.get("reason") == "NonZeroExitCode":
            causes = (status.get("details") or {}).get("causes") or ()
            said = next(cause["message"] for cause in causes if cause.get("reason") == "ExitCode")
            return (int(said), "") if _EXIT_CODE.fullmatch(said) else (None, text)
        return None, str(status.get("message") or status.get("reason") or text)
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
        return None, text


def _read_text(text: str) -> tuple[int | None, str]:
    """Read the text that v1 has of failures alone."""
    said = _EXIT_TEXT.search(text)
    return (int(said[1]), "") if said else (None, text.strip())
