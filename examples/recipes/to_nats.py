"""Publish a container's output to NATS, as frames: to_nats.py nats://localhost:4222 SUBJECT CONTAINER. Needs nats-py.

A message holds whole frames, many where there are many, so that a subscriber can take each apart by itself. A line may
go on in the next message: feed all messages of a subject to one `muxframe.LineSplitter(timestamps=True)`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import nats

from muxframe import aio, pack_frame

MAX_SIZE = 512 * 1024  # bytes of a message; NATS takes 1 MiB, and an engine's frames are far smaller
MAX_AGE = 0.1  # seconds that a frame waits for others, about


async def messages(session: aio.Session) -> AsyncIterator[bytes]:
    """Yield what the container writes, as messages of whole frames."""
    message = bytearray()
    began = 0.0
    session.timeout = MAX_AGE
    while True:
        try:
            frame = await anext(session, None)
        except TimeoutError:
            if message:
                yield bytes(message)
                message.clear()
            continue
        if message and (frame is None or len(message) + len(frame) > MAX_SIZE or time.monotonic() > began + MAX_AGE):
            yield bytes(message)
            message.clear()
        if frame is None:
            return
        if not message:
            began = time.monotonic()
        message += pack_frame(frame.stream, frame.payload)


async def main(server: str, subject: str, container: str, host: str | None = None) -> None:
    client = await nats.connect(server)
    async with await aio.logs(container, host=host, follow=True, timestamps=True) as session:
        async for message in messages(session):
            await client.publish(subject, message)
    await client.drain()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
