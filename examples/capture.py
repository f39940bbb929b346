#!/usr/bin/env python3
"""Captures multiplexed streams, byte for byte, from a running Docker or Podman.

    python3 examples/capture.py --host unix:///var/run/docker.sock --name docker-20.10 \
        --image localhost/muxframe-test:latest [--out examples/streams] [--scenario NAME]...

For each scenario a container (busybox is enough) runs a deterministic script, and OUT/NAME/SCENARIO/ gets:

    stream.bin   what the engine sent after the HTTP head; nothing added, nothing removed
    stdout.bin   what the container wrote on stdout, known without reading a frame header
    stderr.bin   the same of stderr
    lines.txt    timestamped scenarios only: stdout as the container wrote it, without the engine's timestamps
    about.json   engine, endpoint, content type, command, frame counts

The expectation never comes out of the frames: this file knows what each script writes. A small decoder of its own
then compares the two and fails loudly if they differ. It imports nothing of muxframe, so that the streams can be
evidence about muxframe.

Standard library only. Exits with 1 and a message if a scenario cannot be captured or does not match.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import json
import re
import socket
import sys
import tarfile
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, Self

TIMEOUT = 60.0  # seconds; for one API call, and for the longest silence inside a stream
RECV_SIZE = 1 << 16
STDOUT, STDERR = 1, 2
STREAM_NAMES = {0: "stdin", 1: "stdout", 2: "stderr", 3: "systemerr"}

# What a log endpoint puts before a message: RFC 3339 with up to nine digits of a second (Podman: none), and a blank.
TIMESTAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d) "


class CaptureError(Exception):
    """The engine refused, or sent something else than the container wrote."""


class ScenarioSkipped(Exception):
    """This scenario cannot be had here; the text says why."""


# --- scenarios --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """One script, what it writes, and the endpoint that the stream is taken from."""

    name: str
    script: str
    stdout: bytes
    stderr: bytes
    endpoint: str = "attach"  # or "logs" or "exec"
    note: str = ""
    tty: bool = False
    timestamps: bool = False  # logs only; stdout and stderr above are without them
    empty_log_entries: bool = False  # logs only: two runs, an empty entry for each stream put between them by hand
    files: dict[str, bytes] = field(default_factory=dict)  # put into the container's / before it starts


def shell_printf(data: bytes) -> str:
    """Return a shell command that writes the bytes in one write."""
    text = "".join(chr(b) if chr(b).isalnum() and b < 128 or b == 0x20 else f"\\{b:03o}" for b in data)
    return f"printf '{text}'"


def log_lines() -> Scenario:
    """Two hundred log lines, one on stdout, one on stderr, as a service writes them: one at a time."""
    script = """i=0
while [ $i -lt 100 ]; do
    printf 'INFO  request %d path=/items/%d took %d ms\\n' $i $((i * 37)) $((i % 13)); sleep 0.002
    printf 'WARN  request %d was slow\\n' $i >&2; sleep 0.002
    i=$((i + 1))
done"""
    stdout = "".join(f"INFO  request {i} path=/items/{i * 37} took {i % 13} ms\n" for i in range(100))
    stderr = "".join(f"WARN  request {i} was slow\n" for i in range(100))
    return Scenario(
        "log-lines",
        script,
        stdout.encode(),
        stderr.encode(),
        note="A pause after each line lets the engine see it before the next; without, it sends many lines in a frame.",
    )


def binary_burst() -> Scenario:
    """Binary data on both streams at once, as fast as the engine takes it."""
    # SHAKE-256 is random enough to hold all 256 values, and the same on every machine and Python for ever.
    stdout = hashlib.shake_256(b"muxframe stdout").digest(1 << 20)
    stderr = hashlib.shake_256(b"muxframe stderr").digest(1 << 16)
    return Scenario(
        "binary-burst",
        "cat /stdout.bin & cat /stderr.bin >&2; wait",
        stdout,
        stderr,
        files={"stdout.bin": stdout, "stderr.bin": stderr},
        note="The container copies files that were put into it; the bytes are SHAKE-256 of 'muxframe stdout' and "
        "'muxframe stderr'.",
    )


def interleaved() -> Scenario:
    """Small writes that switch streams in the middle of lines and of characters."""
    writes = [
        (STDOUT, b"caf\xc3"),
        (STDERR, b"price \xe2"),
        (STDOUT, b"\xa9, "),
        (STDERR, b"\x82"),
        (STDERR, b"\xac 5"),
        (STDOUT, b"smile \xf0\x9f"),
        (STDERR, b"\n"),
        (STDOUT, b"\x98\x80"),
        (STDOUT, b"\nnext line without end "),
    ]
    body = "\n".join(f"    {shell_printf(data)}{' >&2' * (to == STDERR)}; sleep 0.003" for to, data in writes)
    script = f"i=0\nwhile [ $i -lt 25 ]; do\n{body}\n    i=$((i + 1))\ndone"
    stdout, stderr = (b"".join(data for to, data in writes if to == stream) * 25 for stream in (STDOUT, STDERR))
    return Scenario(
        "interleaved",
        script,
        stdout,
        stderr,
        note="A pause after each write makes each write one frame, so that frames end inside lines and characters.",
    )


def long_line_timestamps() -> Scenario:
    """A line longer than any engine's log buffer, between short ones, with timestamps."""
    long_line = "".join(f"{i:07d} " for i in range(5000))  # numbered, so that a lost or doubled piece shows
    assert len(long_line) == 40_000
    script = """echo first
i=0
while [ $i -lt 5000 ]; do printf '%07d ' $i; i=$((i + 1)); done >/line
cat /line
echo
echo
echo last
echo 'stderr: one line' >&2"""
    return Scenario(
        "long-line-timestamps",
        script,
        f"first\n{long_line}\n\nlast\n".encode(),
        b"stderr: one line\n",
        endpoint="logs",
        timestamps=True,
        note="stdout.bin and stderr.bin are the payload as the log endpoint gives it: the engine cuts the long line "
        "into parts (Docker every 16 KiB, Podman about every 8 KiB), and each part begins with a timestamp. Both "
        "belong to the payload. lines.txt is what the container wrote on stdout.",
    )


def zero_length() -> Scenario:
    """Frames of size 0: the log endpoint sends one for a log entry that is empty."""
    return Scenario(
        "zero-length",
        "echo 'a line on stdout'; echo 'a line on stderr' >&2",
        b"a line on stdout\n" * 2,
        b"a line on stderr\n" * 2,
        endpoint="logs",
        empty_log_entries=True,
        note="No container can cause a zero-length frame. The container ran twice, and between the runs two empty "
        "entries, one for each stream, were appended by hand to the log file that the engine keeps. The engine "
        "itself read the file and sent the frames.",
    )


def tty() -> Scenario:
    """A terminal's output: raw, one stream, every newline turned into CR LF by the kernel."""
    script = """echo 'on a terminal'
printf '\\033[1mbold\\033[0m caf\\303\\251\\n'
echo 'this went to stderr' >&2
printf 'no newline at the end'"""
    stdout = "on a terminal\r\n\x1b[1mbold\x1b[0m caf\u00e9\r\nthis went to stderr\r\nno newline at the end"
    return Scenario("tty", script, stdout.encode(), b"", tty=True, note="Not framed: stream.bin is the output itself.")


def exec_both() -> Scenario:
    """A second process in a running container."""
    stdout = "".join(f"{i}\n" for i in range(1, 3001)) + "done\n"
    stderr = "".join(f"error {i}\n" for i in range(1, 51))
    script = """seq 1 3000
i=1
while [ $i -le 50 ]; do echo "error $i" >&2; i=$((i + 1)); done
echo done"""
    return Scenario("exec", script, stdout.encode(), stderr.encode(), endpoint="exec")


def exit_no_newline() -> Scenario:
    """The container ends in the middle of a line, on both streams."""
    return Scenario(
        "exit-no-newline",
        "echo 'a whole line'; printf 'half of an error' >&2; printf 'the last output has no newline'",
        b"a whole line\nthe last output has no newline",
        b"half of an error",
    )


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        log_lines(),
        binary_burst(),
        zero_length(),
        tty(),
        interleaved(),
        long_line_timestamps(),
        exec_both(),
        exit_no_newline(),
    )
}


# --- HTTP on a unix socket --------------------------------------------------------------------------------------------


class UnixConnection(http.client.HTTPConnection):
    """http.client on a unix socket, for the calls whose answer ends."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file instead of a host."""
        self.sock = unix_socket(self._path)


def unix_socket(path: str) -> socket.socket:
    """Return a connected socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT)
    sock.connect(path)
    return sock


@dataclass
class RawStream:
    """An answer whose body is read from the socket as it is, because http.client would keep bytes of it to itself."""

    sock: socket.socket
    status: str  # "101 UPGRADED"
    headers: Message
    early: bytes  # what of the body came in the same packet as the head

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def read(self) -> bytes:
        """Read to the end of the connection."""
        parts = [self.early]
        while part := self.sock.recv(RECV_SIZE):
            parts.append(part)
        return b"".join(parts)


def open_stream(path: str, request: bytes) -> RawStream:
    """Send a request and return as soon as the whole head of the answer has arrived.

    Raises:
        CaptureError: the engine answered with an error, or closed the connection.
    """
    sock = unix_socket(path)
    try:
        sock.sendall(request)
        stream = read_head(sock)
        if not stream.status.startswith(("101", "200")):
            raise CaptureError(f"{stream.status}: {stream.read()!r}")
        if "chunked" in stream.headers.get("Transfer-Encoding", ""):
            raise CaptureError("the body is chunked: its bytes are not the stream's")
    except BaseException:
        sock.close()
        raise
    return stream


def read_head(sock: socket.socket) -> RawStream:
    """Read the head of an answer, and keep what of the body comes with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(RECV_SIZE)
        if not part:
            raise CaptureError(f"connection closed inside the response head: {data!r}")
        data += part
    head, _, early = data.partition(b"\r\n\r\n")
    status_line, _, header_lines = head.partition(b"\r\n")
    headers = http.client.parse_headers(io.BytesIO(header_lines + b"\r\n\r\n"))
    return RawStream(sock, status_line.decode("ascii").partition(" ")[2], headers, early)


# --- the engine's API -------------------------------------------------------------------------------------------------


class Engine:
    """The calls that the scenarios need. Docker and Podman answer all of them alike."""

    def __init__(self, host: str) -> None:
        """Ask the engine for its versions.

        Args:
            host: A unix:// URL, as in DOCKER_HOST.
        """
        url = urllib.parse.urlsplit(host)
        if url.scheme != "unix" or not url.path:
            raise CaptureError(f"not a unix:// address: {host}")
        self._socket = url.path
        version = json.loads(self._send("GET", "/version"))
        podman = any("Podman" in part["Name"] for part in version.get("Components") or [])
        self.name = "podman" if podman else "docker"
        self.version: str = version["Version"]
        self.api_version: str = version["ApiVersion"]

    def _send(self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        connection = UnixConnection(self._socket)
        try:
            connection.request(method, path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise CaptureError(f"{method} {path}: {answer.status} {answer.reason}: {data.decode(errors='replace')}")
        return data

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Make one API call with the engine's own API version and return the decoded JSON, None if there is none."""
        data = self._send(method, f"/v{self.api_version}{path}", None if body is None else json.dumps(body).encode())
        return json.loads(data) if data.strip() else None

    def put_files(self, container: str, files: dict[str, bytes]) -> None:
        """Write files into the root directory of a container."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
        path = f"/v{self.api_version}/containers/{container}/archive?path=/"
        self._send("PUT", path, archive.getvalue(), "application/x-tar")

    def hijack(self, path: str, body: object = None) -> RawStream:
        """POST with an upgrade to the raw stream, as attach and exec do."""
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"POST /v{self.api_version}{path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return open_stream(self._socket, head.encode("ascii") + data)

    def get_raw(self, path: str) -> RawStream:
        """GET with HTTP/1.0, so that the body is not chunked."""
        request = f"GET /v{self.api_version}{path} HTTP/1.0\r\nHost: localhost\r\n\r\n"
        return open_stream(self._socket, request.encode("ascii"))

    @contextmanager
    def container(self, image: str, script: str, *, tty: bool = False) -> Iterator[str]:
        """Create a container that runs a shell script; it is not started, and removed at the end."""
        config = {
            "Image": image,
            "Cmd": ["sh", "-c", script],
            "Tty": tty,
            "AttachStdout": True,
            "AttachStderr": True,
            "HostConfig": {"NetworkMode": "none"},
        }
        container: str = self.call("POST", "/containers/create", config)["Id"]
        try:
            yield container
        finally:
            self._remove(container)

    def _remove(self, container: str) -> None:
        try:
            self.call("POST", f"/containers/{container}/kill")  # else Podman's removal waits ten seconds for the end
        except CaptureError:
            pass  # it has ended already
        self.call("DELETE", f"/containers/{container}?force=true&v=true")

    def run(self, container: str) -> None:
        """Start a container and wait for its end."""
        self.call("POST", f"/containers/{container}/start")
        self.wait(container)

    def wait(self, container: str) -> None:
        """Wait for a started container's end.

        Raises:
            CaptureError: its exit code is not 0.
        """
        code = self.call("POST", f"/containers/{container}/wait")["StatusCode"]
        if code != 0:
            raise CaptureError(f"the container exited with {code}")

    def log_path(self, container: str) -> Path:
        """Return the path of the log file that the engine keeps for a container."""
        info = self.call("GET", f"/containers/{container}/json")
        return Path(info.get("LogPath") or info["HostConfig"]["LogConfig"].get("Path") or "")


# --- the three endpoints ----------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What came over the wire for a scenario."""

    endpoint: str
    status: str
    content_type: str | None
    body: bytes


def finish(stream: RawStream, endpoint: str) -> Answer:
    """Read a stream to its end."""
    return Answer(endpoint, stream.status, stream.headers.get("Content-Type"), stream.read())


def take_attach(engine: Engine, scenario: Scenario, image: str) -> Answer:
    """Attach to a created container, then start it: the head is awaited first, or early output would be lost."""
    query = "stream=1&stdout=1&stderr=1"
    with engine.container(image, scenario.script, tty=scenario.tty) as container:
        if scenario.files:
            engine.put_files(container, scenario.files)
        with engine.hijack(f"/containers/{container}/attach?{query}") as stream:
            engine.call("POST", f"/containers/{container}/start")
            answer = finish(stream, f"POST /containers/{{id}}/attach?{query}")
        engine.wait(container)
    return answer


def take_logs(engine: Engine, scenario: Scenario, image: str) -> Answer:
    """Run a container to its end and ask for its log."""
    query = "stdout=1&stderr=1" + "&timestamps=1" * scenario.timestamps
    with engine.container(image, scenario.script) as container:
        engine.run(container)
        if scenario.empty_log_entries:
            append_empty_entries(engine, container)
            engine.run(container)
        with engine.get_raw(f"/containers/{container}/logs?{query}") as stream:
            return finish(stream, f"GET /containers/{{id}}/logs?{query}")


def take_exec(engine: Engine, scenario: Scenario, image: str) -> Answer:
    """Run the script as a second process in a container that only sleeps."""
    config = {"AttachStdout": True, "AttachStderr": True, "Cmd": ["sh", "-c", scenario.script], "Tty": False}
    with engine.container(image, "exec sleep 600") as container:
        engine.call("POST", f"/containers/{container}/start")
        process = engine.call("POST", f"/containers/{container}/exec", config)["Id"]
        with engine.hijack(f"/exec/{process}/start", {"Detach": False, "Tty": False}) as stream:
            return finish(stream, "POST /exec/{id}/start")


TAKE = {"attach": take_attach, "logs": take_logs, "exec": take_exec}


def append_empty_entries(engine: Engine, container: str) -> None:
    """Append an empty entry for each stream to the log file of a container that has ended.

    Raises:
        ScenarioSkipped: the file is not reachable from here.
    """
    time = "2000-01-01T00:00:00.000000000"
    if engine.name == "docker":
        entries = "".join(
            json.dumps({"log": "", "stream": stream, "time": f"{time}Z"}) + "\n" for stream in ("stdout", "stderr")
        )
    else:
        entries = "".join(f"{time}+00:00 {stream} P \n" for stream in ("stdout", "stderr"))
    try:
        with engine.log_path(container).open("r+b") as file:
            file.seek(0, io.SEEK_END)
            file.write(entries.encode("ascii"))
    except OSError as error:
        raise ScenarioSkipped(f"cannot write the engine's log file: {error.strerror}") from error


# --- expectation and cross-check --------------------------------------------------------------------------------------


@dataclass
class Recording:
    """A captured stream with what it must contain."""

    engine: Engine
    scenario: Scenario
    answer: Answer
    stdout: bytes
    stderr: bytes
    frames: list[tuple[int, bytes]] | None  # None: a terminal's stream has none


def decode(stream: bytes) -> list[tuple[int, bytes]]:
    """Split a multiplexed stream into (stream type, payload), as the protocol says and in the plainest way.

    Raises:
        CaptureError: not whole frames of known types.
    """
    frames, offset = [], 0
    while offset < len(stream):
        header = stream[offset : offset + 8]
        size = int.from_bytes(header[4:], "big")
        payload = stream[offset + 8 : offset + 8 + size]
        if len(header) < 8 or header[0] not in STREAM_NAMES or header[1:4] != b"\0\0\0" or len(payload) < size:
            raise CaptureError(f"no whole frame at offset {offset}: {header.hex(' ')}, {len(payload)} bytes follow")
        frames.append((header[0], payload))
        offset += 8 + size
    return frames


def stamped_output(scenario: Scenario, stream: bytes) -> tuple[bytes, bytes]:
    """Find the timestamped messages of both streams, without believing any frame header.

    A message here is a timestamp and the printable text after it, with its newline if there is one: a header cannot
    be taken for text, since it begins with a control character. The scenario's stderr begins with "stderr".

    Raises:
        CaptureError: without the timestamps the text is not what the container wrote.
    """
    found: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    text: dict[int, bytes] = {STDOUT: b"", STDERR: b""}
    for match in re.finditer(rb"(" + TIMESTAMP + rb")([ -~]*\n?)", stream):
        to = STDERR if match[2].startswith(b"stderr") else STDOUT
        found[to].append(match[0])
        text[to] += match[2]
    if (text[STDOUT], text[STDERR]) != (scenario.stdout, scenario.stderr):
        raise CaptureError("without timestamps the log is not what the container wrote")
    return b"".join(found[STDOUT]), b"".join(found[STDERR])


def record(engine: Engine, scenario: Scenario, image: str) -> Recording:
    """Capture one scenario and compare the stream with what the container wrote.

    Raises:
        CaptureError: they differ.
        ScenarioSkipped: the scenario cannot be had from here.
    """
    answer = TAKE[scenario.endpoint](engine, scenario, image)
    expected = scenario.stdout, scenario.stderr
    if scenario.timestamps:
        expected = stamped_output(scenario, answer.body)
    frames = None if scenario.tty else decode(answer.body)
    for stream, want in zip((STDOUT, STDERR), expected, strict=True):
        if frames is None:
            got = answer.body if stream == STDOUT else b""
        else:
            got = b"".join(payload for to, payload in frames if to == stream)
        if got != want:
            name = STREAM_NAMES[stream]
            raise CaptureError(f"{name}: the {len(got)} bytes in the stream are not the {len(want)} expected")
    if frames and (others := {to for to, _ in frames} - {STDOUT, STDERR}):
        raise CaptureError(f"frames of other streams: {sorted(others)}")
    return Recording(engine, scenario, answer, *expected, frames)


# --- files ------------------------------------------------------------------------------------------------------------


def about(recording: Recording) -> dict[str, object]:
    """Return the facts for about.json."""
    engine, scenario, frames = recording.engine, recording.scenario, recording.frames
    facts: dict[str, object] = {
        "api_version": engine.api_version,
        "command": ["sh", "-c", scenario.script],
        "content_type": recording.answer.content_type,
        "endpoint": recording.answer.endpoint,
        "engine": {"name": engine.name, "version": engine.version},
        "frames": None,
        "note": scenario.note,
        "status": recording.answer.status,
        "tty": scenario.tty,
    }
    if frames is not None:
        counts = Counter(STREAM_NAMES[to] for to, _ in frames)
        sizes = [len(payload) for _, payload in frames]
        facts["frames"] = {"stdout": counts["stdout"], "stderr": counts["stderr"]}
        facts["frame_sizes"] = {"largest": max(sizes), "smallest": min(sizes), "zero": sizes.count(0)}
    return facts


def save(recording: Recording, directory: Path) -> None:
    """Write a recording's files; the directory is made if it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "stream.bin").write_bytes(recording.answer.body)
    (directory / "stdout.bin").write_bytes(recording.stdout)
    (directory / "stderr.bin").write_bytes(recording.stderr)
    if recording.scenario.timestamps:
        (directory / "lines.txt").write_bytes(recording.scenario.stdout)
    text = json.dumps(about(recording), indent=2, sort_keys=True, ensure_ascii=True)
    (directory / "about.json").write_text(text + "\n", encoding="ascii", newline="\n")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", required=True, help="unix:// address of the engine")
    parser.add_argument("--name", required=True, help="directory name of the engine, such as docker-20.10")
    parser.add_argument("--image", required=True, help="an image with a shell; it is not pulled")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "streams", help="default: %(default)s")
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="only this one; may be repeated")
    return parser.parse_args()


def main() -> int:
    """Capture the scenarios that the command line asks for."""
    options = parse_arguments()
    failed = 0
    try:
        engine = Engine(options.host)
    except (CaptureError, OSError, http.client.HTTPException) as error:
        print(f"capture: {options.host}: {error}", file=sys.stderr)
        return 1
    for name in options.scenario or SCENARIOS:
        try:
            recording = record(engine, SCENARIOS[name], options.image)
        except ScenarioSkipped as reason:
            print(f"{options.name}/{name}: skipped: {reason}", file=sys.stderr)
            continue
        except (CaptureError, OSError, http.client.HTTPException) as error:
            print(f"{options.name}/{name}: FAILED: {error}", file=sys.stderr)
            failed += 1
            continue
        save(recording, options.out / options.name / name)
        print(f"{options.name}/{name}: {len(recording.answer.body)} bytes, {about(recording)['frames'] or 'raw'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
