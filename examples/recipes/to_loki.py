"""Push logs to Loki: to_loki.py http://localhost:3100 STATE [LABEL=VALUE...]."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import fleet

from muxframe import Line
from muxframe.ingest import Source


def push(url: str, source: Source, lines: list[Line]) -> None:
    """Push lines of a container; try again while Loki is away or overloaded."""
    streams: dict[str, list[list[str]]] = {}  # each in order, as Loki wants them
    for line in lines:
        timestamp = time.time_ns() if line.timestamp is None else line.timestamp
        streams.setdefault(line.stream.name.lower(), []).append([str(timestamp), line.text])
    body = [{"stream": {"container": source.name, "stream": name}, "values": streams[name]} for name in streams]
    data = json.dumps({"streams": body}).encode()
    request = urllib.request.Request(f"{url}/loki/api/v1/push", data, {"Content-Type": "application/json"})
    for attempt in range(100):
        try:
            with urllib.request.urlopen(request, timeout=30):
                return
        except urllib.error.HTTPError as error:
            if error.code != 429 and error.code < 500:
                raise  # Loki will never take these
        except OSError as error:
            print(f"Loki: {error}", file=sys.stderr)
        time.sleep(min(0.1 * 2**attempt, 10))
    raise TimeoutError(f"{url} takes nothing")


def main(url: str, state: str, *labels: str, **options: Any) -> None:
    for source, lines in fleet.read(state, *labels, **options):
        push(url, source, lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
