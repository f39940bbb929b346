"""Streams recorded as files, read in parallel and from a time.

    record(source, path)        a session's stream, or any source's, into a file, with its index beside it
    build_index(path)           the index of a file that is there already
    open(path)                  an Archive: its lines, or its slices, each of which can be read by another process

An archive is the wire as it came, byte for byte: every other part of this package reads it. A name that ends in .gz or
.zst is compressed, in pieces that can be read alone. docs/archives.md says what holds when.

    codecs.py       what compresses
    index.py        where an archive can be cut, and the format of the index; no I/O
    recording.py    into a file
    reading.py      out of it
"""

from __future__ import annotations

from .reading import Archive, Slice, open
from .recording import Recorded, build_index, record

__all__ = ["Archive", "Recorded", "Slice", "build_index", "open", "record"]
