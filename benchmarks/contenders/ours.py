"""muxframe, by its public names; and the Python twin of its core, which is imported directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import muxframe
from muxframe import _framing_py as twin

from . import Contender, Job, joined, sockets

if TYPE_CHECKING:
    import socket

    from ..workloads import Workload

READ_SIZE = 256 * 1024
PIECE = 64 * 1024  # what a read of a socket gives


def _buffers(workload: Workload) -> tuple[bytearray, bytearray]:
    return bytearray(len(workload.stdout)), bytearray(len(workload.stderr))


def _views(outputs: tuple[bytearray, bytearray]) -> tuple[memoryview, memoryview]:
    return memoryview(outputs[0]), memoryview(outputs[1])


def _into(workload: Workload, function: Any) -> Job:
    outputs = _buffers(workload)
    return Job(lambda: function(workload.wire, *outputs), lambda _: outputs)


# --- in memory -------------------------------------------------------------------------------------------------------


def demux_into(workload: Workload) -> Job:
    return _into(workload, muxframe.demux_into)


def demux(workload: Workload) -> Job:
    return Job(lambda: muxframe.demux(workload.wire), tuple)


def feed_into(workload: Workload) -> Job:
    return _into(workload, lambda wire, out, err: muxframe.Demuxer().feed_into(wire, out, err))


def feed(workload: Workload) -> Job:
    return _feed(workload, muxframe.Demuxer)


def copy(workload: Workload) -> Job:
    outputs = _buffers(workload)  # as memoryviews: a bytearray would grow instead of being filled
    return Job(lambda: muxframe.copy(workload.wire, *_views(outputs)), lambda _: outputs)


def twin_demux(workload: Workload) -> Job:
    return Job(lambda: twin.demux(workload.wire), tuple)


def twin_demux_into(workload: Workload) -> Job:
    return _into(workload, twin.demux_into)


def twin_feed(workload: Workload) -> Job:
    return _feed(workload, twin.Demuxer)


def _feed(workload: Workload, demuxer: Any) -> Job:
    wires = list(workload.pieces(PIECE))

    def run() -> list[Any]:
        feed = demuxer().feed
        chunks: list[Any] = []
        for wire in wires:
            chunks += feed(wire)
        return chunks

    return Job(run, joined)


def dribble_into(workload: Workload) -> Job:
    """Feed pieces into two buffers, each behind what is there."""
    wires = list(workload.pieces(PIECE))
    outputs = _buffers(workload)

    def run() -> None:
        feed_into = muxframe.Demuxer().feed_into
        out, err = _views(outputs)
        for wire in wires:
            _, stdout_size, stderr_size = feed_into(wire, out, err)
            if stdout_size:
                out = out[stdout_size:]
            if stderr_size:
                err = err[stderr_size:]

    return Job(run, lambda _: outputs)


# --- frame by frame --------------------------------------------------------------------------------------------------


def untouched(workload: Workload) -> Job:
    def run() -> int:
        count = 0
        for _frame in muxframe.frames(workload.wire):
            count += 1
        return count

    return Job(run, int)


def as_bytes(workload: Workload) -> Job:
    return Job(lambda: _as_bytes(muxframe.frames(workload.wire)), int)


def _as_bytes(frames: Any) -> int:
    count = 0
    for frame in frames:
        bytes(frame)
        count += 1
    return count


def unpacked(workload: Workload) -> Job:
    def run() -> int:
        count = 0
        for _stream, _payload in muxframe.frames(workload.wire):
            count += 1
        return count

    return Job(run, int)


def kept(workload: Workload) -> Job:
    """All of them at once, and their bytes: the one that shows that the others see the right frames."""
    return Job(lambda: [(frame.stream, bytes(frame)) for frame in muxframe.frames(workload.wire)], joined)


def twin_as_bytes(workload: Workload) -> Job:
    return Job(lambda: _as_bytes(twin.FrameReader(workload.wire)), int)


# --- on a socket -----------------------------------------------------------------------------------------------------


def socket_feed_into(workload: Workload) -> Job:
    """recv_into and feed_into, into buffers that are used again and again, as a reader's are."""
    outputs = bytearray(READ_SIZE), bytearray(READ_SIZE)
    buffer = bytearray(READ_SIZE)
    wire = memoryview(buffer)
    checked = False

    def run(sock: socket.socket) -> tuple[bytearray, bytearray]:
        nonlocal checked
        out, err = bytearray(), bytearray()
        feed_into = muxframe.Demuxer().feed_into
        while size := sock.recv_into(buffer):
            _, stdout_size, stderr_size = feed_into(wire[:size], *outputs)
            if not checked:  # the first run is the check: what came out is kept
                out += outputs[0][:stdout_size]
                err += outputs[1][:stderr_size]
        checked = True
        return out, err

    return sockets.job(workload, run, tuple)


def socket_get_buffer(workload: Workload) -> Job:
    """The pair that asyncio.BufferedProtocol asks for."""

    def run(sock: socket.socket) -> list[Any]:
        demuxer = muxframe.Demuxer()
        chunks: list[Any] = []
        while size := sock.recv_into(demuxer.get_buffer(-1)):
            chunks += demuxer.buffer_updated(size)
        return chunks

    return sockets.job(workload, run, joined)


def socket_copy(workload: Workload) -> Job:
    outputs = _buffers(workload)
    return sockets.job(workload, lambda sock: muxframe.copy(sock, *_views(outputs)), lambda _: outputs)


def socket_frames(workload: Workload) -> Job:
    return sockets.job(workload, lambda sock: _as_bytes(muxframe.frames(sock)), int)


IN_MEMORY = [
    Contender("demux_into", "muxframe", demux_into, large=True),
    Contender("demux", "muxframe", demux, large=True),
    Contender("Demuxer.feed_into", "muxframe", feed_into, large=True),
    Contender("Demuxer.feed, 64 KiB pieces", "muxframe", feed),
    Contender("copy, buffer to buffers", "muxframe", copy, large=True),
    Contender("Python twin, demux", "twin", twin_demux, large=True),
    Contender("Python twin, demux_into", "twin", twin_demux_into),
    Contender("Python twin, Demuxer.feed", "twin", twin_feed),
]
FRAME_BY_FRAME = [
    Contender("frames, untouched", "muxframe", untouched),
    Contender("frames, bytes(frame)", "muxframe", as_bytes),
    Contender("frames, stream and payload", "muxframe", unpacked),
    Contender("frames, all kept as bytes", "muxframe", kept),
    Contender("Python twin, bytes(frame)", "twin", twin_as_bytes),
]
ON_SOCKET = [
    Contender("recv_into + feed_into", "muxframe", socket_feed_into),
    Contender("copy, socket to buffers", "muxframe", socket_copy),
    Contender("get_buffer + buffer_updated", "muxframe", socket_get_buffer),
    Contender("frames, bytes(frame)", "muxframe", socket_frames),
]
IN_PIECES = [
    Contender("Demuxer.feed_into", "muxframe", dribble_into),
    Contender("Demuxer.feed", "muxframe", feed),
    Contender("Python twin, Demuxer.feed", "twin", twin_feed),
]
