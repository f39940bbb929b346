"""examples/recipes, each against a stand-in for its server that refuses what the real one would."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import muxframe
from muxframe.ingest import CheckpointFile
from muxframe.testing import Container, LoopbackEngine

RECIPES = Path(__file__).parent.parent / "examples" / "recipes"

OUTPUT = [(1, b"one\n"), (2, b"two \xc3\xa9\n"), (1, b"three\n")]
LINES = {"stdout": ["one", "three"], "stderr": ["two é"]}
NAMES = ["db", "web"]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackEngine]:
    monkeypatch.syspath_prepend(str(RECIPES))
    with LoopbackEngine() as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.host)
        for name in NAMES:
            engine.add(Container(name, output=OUTPUT, labels={"team": "shop"}))
        engine.add(Container("other", output=[(1, b"not for us\n")]))
        yield engine


@contextmanager
def http(answer: Callable[[str, bytes], int]) -> Iterator[str]:
    """A server that answers each POST's path and body with a status; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answer(self.path, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def check_state(state: Path) -> None:
    """It holds where the two containers ended."""
    file = CheckpointFile(state)
    assert len(file.checkpoints) == len(NAMES) and not file.is_new


def test_loki(engine: LoopbackEngine, tmp_path: Path) -> None:
    to_loki = import_module("to_loki")
    found: dict[tuple[str, str], list[str]] = {}
    asked = []

    def loki(path: str, body: bytes) -> int:
        asked.append(path)
        if len(asked) == 1:
            return 503
        for stream in json.loads(body)["streams"]:
            labels = stream["stream"]
            assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) for name in labels)
            times = [int(time) for time, _ in stream["values"]]
            assert times == sorted(times) and times[0] > 10**18
            found.setdefault((labels["container"], labels["stream"]), []).extend(text for _, text in stream["values"])
        return 204

    with http(loki) as url:
        to_loki.main(url, tmp_path / "state", "team=shop", until="exited")
        assert found == {(name, stream): lines for name in NAMES for stream, lines in LINES.items()}
        assert set(asked) == {"/loki/api/v1/push"}
        check_state(tmp_path / "state")

        found.clear()
        to_loki.main(url, tmp_path / "state", "team=shop", until="exited")
        assert not found  # nothing comes twice


def test_what_loki_refuses_is_not_forgotten(engine: LoopbackEngine, tmp_path: Path) -> None:
    to_loki = import_module("to_loki")
    with http(lambda *_: 400) as url, pytest.raises(OSError, match="400"):
        to_loki.main(url, tmp_path / "state", "team=shop", until="exited")
    assert not (tmp_path / "state").exists()


def test_opentelemetry(engine: LoopbackEngine, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    to_opentelemetry = import_module("to_opentelemetry")
    found: dict[tuple[str, str], list[str]] = {}

    def collector(path: str, body: bytes) -> int:
        assert path == "/v1/logs"
        for each in ExportLogsServiceRequest.FromString(body).resource_logs:
            resource = {pair.key: pair.value.string_value for pair in each.resource.attributes}
            assert len(resource["container.id"]) == 64
            for record in (record for scope in each.scope_logs for record in scope.log_records):
                attributes = {pair.key: pair.value.string_value for pair in record.attributes}
                key = resource["container.name"], attributes["log.iostream"]
                found.setdefault(key, []).append(record.body.string_value)
                assert record.time_unix_nano > 10**18
                assert record.severity_number == {"stdout": 9, "stderr": 13}[key[1]]
        return 200

    with http(collector) as url:
        to_opentelemetry.main(f"{url}/v1/logs", tmp_path / "state", "team=shop", until="exited")
    assert found == {(name, stream): lines for name in NAMES for stream, lines in LINES.items()}
    check_state(tmp_path / "state")


def test_kafka(engine: LoopbackEngine, tmp_path: Path) -> None:
    kafka: Any = pytest.importorskip("confluent_kafka")
    to_kafka = import_module("to_kafka")
    cluster = kafka.Producer({"test.mock.num.brokers": 1})  # librdkafka's own, on loopback
    [broker] = cluster.list_topics(timeout=10).brokers.values()
    servers = f"{broker.host}:{broker.port}"
    to_kafka.main(servers, "logs", tmp_path / "state", "team=shop", until="exited")
    check_state(tmp_path / "state")

    consumer = kafka.Consumer({"bootstrap.servers": servers, "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.subscribe(["logs"])
    found: dict[tuple[str, str], list[str]] = {}
    ids = {}
    for _ in NAMES:
        for _ in OUTPUT:
            message = consumer.poll(20)
            assert message is not None and message.error() is None
            record = json.loads(message.value())
            ids[record["container"]] = message.key().decode()
            found.setdefault((record["container"], record["stream"]), []).append(record["data"])
    consumer.close()
    assert found == {(name, stream): lines for name in NAMES for stream, lines in LINES.items()}
    assert len(set(ids.values())) == 2 and all(len(id) == 64 for id in ids.values())


def test_nats(engine: LoopbackEngine) -> None:
    pytest.importorskip("nats")
    to_nats = import_module("to_nats")
    long = b"x" * 700_000  # too long for one message with the others
    engine.add(Container("long", output=[*OUTPUT, (1, long + b"\n")]))
    published: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As much of NATS as a publisher needs."""
        writer.write(b'INFO {"server_id":"x","version":"2.9.10","max_payload":1048576,"headers":true}\r\n')
        while verb := (await reader.readline()).split():
            if verb[0] == b"PING":
                writer.write(b"PONG\r\n")
            elif verb[0] == b"PUB":
                assert verb[1] == b"logs.long"
                published.append((await reader.readexactly(int(verb[-1]) + 2))[:-2])
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await to_nats.main(f"nats://127.0.0.1:{port}", "logs.long", "long")

    asyncio.run(asyncio.wait_for(run(), 30))
    assert all(len(message) <= 1024 * 1024 for message in published)
    splitter = muxframe.LineSplitter(timestamps=True)
    lines = [line for message in published for line in splitter.feed(message)] + splitter.feed_eof()
    assert [line.data for line in lines] == [*(data.rstrip() for _, data in OUTPUT), long]
    for message in published:
        muxframe.demux(message)  # each has whole frames


def test_parquet(engine: LoopbackEngine, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    duckdb: Any = pytest.importorskip("duckdb")
    command = [sys.executable, "-c", "import sys, to_parquet; to_parquet.main(*sys.argv[1:], until='exited')"]
    arguments = [str(tmp_path / "lines"), str(tmp_path / "state"), "team=shop"]
    done = subprocess.run(command + arguments, cwd=RECIPES, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"db +│ +1 │\n│ web +│ +1 ", done.stdout)
    rows = duckdb.sql(f"SELECT source, line::VARCHAR FROM '{tmp_path}/lines/*.parquet' WHERE stream = 1").fetchall()
    assert sorted(rows) == sorted((name, line) for name in NAMES for line in LINES["stdout"])
    check_state(tmp_path / "state")
