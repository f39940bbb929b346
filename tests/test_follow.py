"""follow: the place in a log, what is asked for again and what is dropped; all of it against an engine that fails."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import random
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import muxframe
from muxframe import Checkpoint, CheckpointError, DaemonError, EngineError, Line, NotFoundError, Stream, aio
from muxframe.engine.calls import Opened
from muxframe.ingest import CheckpointFile
from muxframe.ingest.following import Backoff, Following, Pause, Receive
from muxframe.ingest.resume import LAG, SECOND, Place, Repeats, Replay
from muxframe.testing import Container, Fault, LoopbackEngine, Process

T0 = 1_800_000_000 * SECOND


def line(time: int | None, data: bytes = b"", stream: int = 1) -> Line:
    return Line(stream, None if time is None else T0 + time, data)


# --- the place -------------------------------------------------------------------------------------------------------


def resumed(log: Sequence[Line], taken: int, *, rest: Sequence[Line] | None = None) -> tuple[list[Line], bool]:
    """Take some lines of a log, ask again as an engine would be asked, and return what is new then."""
    checkpoint = Checkpoint.from_str(str(Checkpoint("id").after(log[:taken])))
    since = checkpoint.resume_since()
    again = [each for each in (log if rest is None else rest) if each.timestamp is None or each.timestamp >= since]
    replay = Replay(checkpoint, since)
    return list(itertools.chain(*(replay.new([each]) for each in again))), replay.has_gap


def test_a_place_is_found_wherever_it_is() -> None:
    rng = random.Random(5)
    for _ in range(200):
        now, log = 0, []
        for number in range(60):
            now += rng.choice((0, 0, 0, 1, SECOND, 30 * SECOND))
            stream = rng.choice((1, 1, 2))
            log.append(line(now, b"%d" % number, stream))
        for taken in range(len(log) + 1):
            fresh, has_gap = resumed(log, taken)
            assert fresh == log[taken:]
            assert not has_gap


def test_thousands_of_lines_in_one_second() -> None:
    log = [line(5 * SECOND, b"same", 1 + number % 2) for number in range(5000)]
    for taken in (1, 2, 2499, 2500, 4999, 5000):
        assert resumed(log, taken)[0] == log[taken:]


def test_batches_count_as_single_lines_do() -> None:
    log = [line(each) for each in (1, 1, 1, 2, 2)]
    for cut in range(6):
        assert Checkpoint("id").after(log[:cut]).after(log[cut:]) == Checkpoint("id").after(log)


def test_streams_out_of_order_among_each_other() -> None:
    log = [line(SECOND, b"a"), line(5 * SECOND, b"b", 2), line(4 * SECOND, b"c"), line(3 * SECOND + 1, b"d", 1)]
    log = [log[0], log[1], log[3], log[2]]  # stdout's were stamped before stderr's, and written after it
    for taken in range(5):
        assert resumed(log, taken) == (log[taken:], False)


def test_lines_without_a_timestamp_have_the_last_one() -> None:
    log = [line(None, b"x"), line(1, b"a"), line(None, b"b"), line(None, b"b"), line(2, b"c")]
    for taken in range(1, 6):
        assert resumed(log, taken)[0] == log[taken:]


def test_the_clock_is_set_back_while_reading() -> None:
    times = [1, 2, 3, 4, 2, 3, 3, 4, 5, 6]
    log = [line(each * SECOND, b"%d" % number) for number, each in enumerate(times)]
    for taken in range(len(log) + 1):
        assert resumed(log, taken) == (log[taken:], False), taken


def test_the_clock_is_set_back_while_away() -> None:
    log = [line(100 * SECOND, b"a"), line(95 * SECOND, b"b"), line(101 * SECOND, b"c")]
    assert resumed(log, 1) == (log[1:], False)


def test_a_log_that_was_rotated_away_is_a_gap() -> None:
    log = [line(each * SECOND, b"%d" % each) for each in range(100)]
    assert resumed(log, 50, rest=log[60:]) == (log[60:], True)
    assert resumed(log, 50, rest=log[49:]) == (log[50:], False)


def test_rotation_may_take_some_lines_of_a_second() -> None:
    rng = random.Random(6)
    for _ in range(20):
        now, log = 0, []
        for number in range(15):
            now += rng.choice((0, 0, 0, SECOND, 30 * SECOND))
            log.append(line(now, b"%d" % number))
        log.append(line(now + SECOND, b"end"))
        for taken in range(1, len(log)):
            for first in range(len(log)):
                fresh, has_gap = resumed(log, taken, rest=log[first:])
                assert fresh == log[max(first, taken) :]
                assert has_gap == (first >= taken)


def test_rotation_among_lines_that_are_equal() -> None:
    log = [*(line(0, b"same") for _ in range(5)), line(1)]
    for taken in range(1, 6):
        for first in range(1, 6):
            fresh, _ = resumed(log, taken, rest=log[first:])
            assert fresh in [log[position:] for position in range(max(first, taken), 6)]  # none twice


def test_lines_of_one_second_that_rotation_has_left_at_the_end() -> None:
    log = [line(0, b"%d" % number) for number in range(8)]
    checkpoint = Checkpoint("id").after(log[:4])
    replay = Replay(checkpoint, checkpoint.resume_since())
    assert replay.new(log[5:7]) == []  # these may have been delivered
    assert replay.finish(log[7:]) == log[5:]
    assert replay.has_gap


def test_lines_of_one_second_are_not_held_without_end() -> None:
    log = [line(0, b"%d" % number) for number in range(100_000)]
    checkpoint = Checkpoint("id").after(log[:90_000])
    for rest, expected in ((log, log[90_000:]), (log[20_000:], [])):
        replay = Replay(checkpoint, checkpoint.resume_since())
        assert replay.new(rest) + replay.finish([]) == expected
        later = line(SECOND)
        assert replay.new([later]) == [later]
        assert replay.has_gap == (not expected)


def test_lines_that_an_engine_repeats() -> None:
    log = [line(each * SECOND + 17, b"%d" % each) for each in range(5)]
    assert Repeats().new([*log[:3], *log[1:3], *log[3:]]) == log
    other = [line(17, b"a"), line(17, b"b"), line(17, b"a", 2), Line(1, None, b"a"), Line(1, None, b"a")]
    assert Repeats().new(other) == other
    coarse = [line(SECOND, b"a")] * 3  # a clock that does not count nanoseconds: these may be three
    assert Repeats().new(coarse) == coarse


def test_a_quiet_stream_is_no_gap() -> None:
    log = [line(0, b"once", 2), *(line(each * SECOND) for each in range(1, 100)), line(100 * SECOND, b"again", 2)]
    for taken in range(1, len(log)):
        assert resumed(log, taken) == (log[taken:], False)


def test_since_covers_unfinished_lines_and_parts() -> None:
    checkpoint = Checkpoint("id").after([line(0, b"", 2), line(100 * SECOND)])
    assert checkpoint.resume_since() == T0 + 100 * SECOND - LAG
    assert checkpoint.resume_since([line(20 * SECOND)]) == T0 + 19 * SECOND
    near = Checkpoint("id").after([line(89 * SECOND, b"", 2), line(100 * SECOND)])
    assert near.resume_since() == T0 + 88 * SECOND  # not between the parts of stderr's last line
    assert Checkpoint("id", since=7).resume_since() == 7


def test_checkpoints_are_values() -> None:
    checkpoint = Checkpoint("id", 3).after([line(1, b"a"), line(2, b"b", 2)])
    assert checkpoint == Checkpoint.from_str(str(checkpoint)) == pickle.loads(pickle.dumps(checkpoint))
    assert len({checkpoint, Checkpoint.from_str(str(checkpoint))}) == 1
    assert checkpoint.after([]) is checkpoint
    assert len(str(Checkpoint("f" * 64, T0).after([line(1), line(2, b"", 2)]))) < 300
    with pytest.raises(AttributeError):
        checkpoint.since = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '[2,"id",0,null,null]', '[1,"",0,null,null]', '[1,"id",-1,null,null]', "[" * 100_000,
     '[1,"id",0,null]', '[1,"id",0,[1,2,3],null]', '[1,"id",0,[1,2,3,"4"],null]', '[1,"id",true,null,null]', "\ud800"],
)  # fmt: skip
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        Checkpoint.from_str(text)


def test_a_file_keeps_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    file = CheckpointFile(path)
    assert file.is_new and not file.checkpoints and list(tmp_path.iterdir()) == []
    file.since = "7.5"
    checkpoints = {"id": Checkpoint("id", 3).after([line(1, b"a")])}
    file.store(checkpoints)
    again = CheckpointFile(path)
    assert (again.is_new, again.since, again.checkpoints) == (False, "7.5", checkpoints)
    again.store({})
    assert CheckpointFile(path).checkpoints == {}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_file_of_checkpoints_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = CheckpointFile(tmp_path / "kept")
    file.store({})
    before = (tmp_path / "kept").read_bytes()
    monkeypatch.setattr(file, "_open", lambda: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(OSError, match="No space left") as caught:
        file.store({"id": Checkpoint("id", 3)})
    assert caught.value.filename == str(tmp_path / "kept.part")
    assert (tmp_path / "kept").read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "[" * 100_000, '{"muxframe checkpoints": 1, "since": 7, "containers": {}}', "\xff",
     '{"muxframe checkpoints": 1, "since": null, "containers": {"other": "[1,\\"id\\",0,null,null]"}}',
     '{"muxframe checkpoints": 2, "since": null, "containers": {}}'],
)  # fmt: skip
def test_what_is_no_file_of_checkpoints(text: str, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="kept: (not )?a checkpoint file"):
        CheckpointFile(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == text.encode("latin-1")


# --- what is done, and in which order ---------------------------------------------------------------------------------


def test_backoff() -> None:
    backoff = Backoff(0.1, 1.0, lambda: 1.0)
    assert [backoff.delay() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    backoff.reset()
    assert backoff.delay() == pytest.approx(0.1)
    assert Backoff(0.1, 1.0, lambda: 0.0).delay() == pytest.approx(0.05)


class Link:
    """What is closed, and nothing else."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def opened(link: Link) -> Opened:
    return Opened(link=link, path="", is_raw=False, is_tty=False)


def frame(time: int, data: bytes) -> bytes:
    return muxframe.pack_frame(1, b"1970-01-01T00:00:%02dZ " % time + data)


RUNNING = {"Id": "abc", "State": {"Status": "running", "Running": True}, "Config": {}}
GRABBING = muxframe.pack_frame(3, b"Error grabbing logs: EOF")


def test_steps_without_any_engine() -> None:
    """A connection that breaks, an engine that is away, a line that is cut off and comes whole: no I/O, no waiting."""
    following = Following("web", backoff=Backoff(1, 8, lambda: 1.0))
    steps = following.steps()
    asks: list[Any] = [next(steps)]
    asks.append(steps.send(RUNNING))
    first = Link()
    assert steps.send(opened(first)) == Receive(first)
    assert steps.send(frame(5, b"one\n") + frame(5, b"tw")) == [Line(1, 5 * SECOND, b"one")]
    assert steps.send(None) == Receive(first)
    assert following.checkpoint is not None
    assert following.checkpoint.stdout == Place(5 * SECOND, 1, zlib.crc32(b"one"), 5 * SECOND)
    assert steps.throw(muxframe.ConnectionLostError("gone")) == Pause(1)
    assert first.is_closed
    asks.append(steps.send(None))
    assert steps.throw(muxframe.ConnectionLostError("away")) == Pause(2)
    asks.append(steps.send(None))
    asks.append(steps.send(RUNNING))
    second = Link()
    steps.send(opened(second))
    assert steps.send(frame(5, b"one\n") + frame(5, b"two\n")) == [Line(1, 5 * SECOND, b"two")]
    assert [ask.arguments[0] for ask in asks] == ["web", "abc", "abc", "abc", "abc"]
    steps.close()
    assert second.is_closed


def test_an_error_in_the_stream_is_raised_where_it_comes_again() -> None:
    steps = Following("web", backoff=Backoff(1, 8, lambda: 1.0)).steps()
    next(steps)
    steps.send(RUNNING)
    steps.send(opened(Link()))
    wire = frame(5, b"one\n") + frame(6, b"unfinished") + GRABBING
    assert steps.send(wire) == [Line(1, 5 * SECOND, b"one")]
    assert steps.send(None) == Pause(1)
    steps.send(None)
    steps.send(RUNNING)
    steps.send(opened(Link()))
    assert isinstance(steps.send(frame(5, b"one\n")), Receive)
    with pytest.raises(DaemonError, match="grabbing"):
        steps.send(GRABBING)


def test_an_error_in_the_stream_of_a_container_that_is_gone_is_its_end() -> None:
    steps = Following("web", backoff=Backoff(1, 8, lambda: 1.0)).steps()
    next(steps)
    steps.send(RUNNING)
    steps.send(opened(Link()))
    podman = b'{"cause":"no such container","message":"failed to obtain logs","response":500}\n'
    assert steps.send(podman) == Pause(1)
    steps.send(None)
    with pytest.raises(StopIteration):
        steps.throw(NotFoundError("no such container"))


# --- against an engine -----------------------------------------------------------------------------------------------

Follow = Callable[..., "Any"]


@pytest.fixture(params=["blocking", "asyncio"])
def follow(request: pytest.FixtureRequest) -> Iterator[Follow]:
    """Return a function that follows: what it returns is used as a blocking Follower."""
    if request.param == "blocking":
        followers: list[Any] = []

        def blocking(host: str, container: str, **options: Any) -> Any:
            follower = muxframe.follow(container, host=host, **options)
            follower.timeout = 10
            followers.append(follower)
            return follower

        yield blocking
        for follower in followers:
            follower.close()
        return
    with asyncio.Runner() as runner:
        made: list[_Driven] = []

        def driven(host: str, container: str, **options: Any) -> Any:
            made.append(_Driven(runner, aio.follow(container, host=host, **options)))
            return made[-1]

        yield driven
        for each in made:
            each.close()


class _Driven:
    """An asyncio Follower in a blocking one's clothes."""

    def __init__(self, runner: asyncio.Runner, follower: Any) -> None:
        self._runner = runner
        self._follower = follower
        self._follower.timeout = 10

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        try:
            return self._run(anext(self._follower))  # type: ignore[no-any-return]
        except StopAsyncIteration:
            raise StopIteration from None

    def _run(self, awaitable: Any) -> Any:
        async def run() -> Any:
            return await awaitable

        return self._runner.run(run())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._follower, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._follower, name, value)

    def read(self) -> Any:
        return self._run(self._follower.read())

    def close(self) -> None:
        self._run(self._follower.__aexit__())


def counting(count: int, period: float = 0.0, first: int = 0) -> Callable[[Process], None]:
    """Return a script that writes numbers to both streams."""

    def script(process: Process) -> None:
        for number in range(first, first + count):
            process.write(b"%d\n" % number)
            process.write(b"%d\n" % number, stream=2)
            if period:
                time.sleep(period)

    return script


def numbers(lines: Sequence[Line]) -> dict[Stream, list[int]]:
    found: dict[Stream, list[int]] = {}
    for each in lines:
        found.setdefault(each.stream, []).append(int(each.data))
    return found


FLAVORS = [("docker", None), ("podman", "4.3.1"), ("podman", "5.4.2")]


@pytest.mark.parametrize(("flavor", "server"), FLAVORS)
def test_across_restarts_of_the_engine(follow: Follow, flavor: Any, server: str | None) -> None:
    with LoopbackEngine(flavor=flavor, server_version=server) as engine:
        engine.add(Container("web", counting(300, 0.005), begin="add"))
        follower = follow(engine.host, "web", until="exited")
        lines = []

        def restart() -> None:
            for _ in range(3):
                time.sleep(0.3)
                engine.stop()
                time.sleep(0.1)
                engine.restart()

        threading.Thread(target=restart, daemon=True).start()
        lines = list(follower)
        assert numbers(lines) == {Stream.STDOUT: list(range(300)), Stream.STDERR: list(range(300))}
        assert follower.gaps == 0
        assert sum(request.path.endswith("/logs") for request in engine.requests) >= 4


@pytest.mark.parametrize("times", [1, 3])
def test_connections_cut_anywhere(follow: Follow, times: int) -> None:
    log = [(1 + number % 2, b"line %d\n" % number) for number in range(50)]
    with LoopbackEngine() as engine:
        engine.add(Container("web", state="exited", log=log))
        for cut in range(0, 3000, 211):
            engine.clear_faults()
            engine.fault("logs", Fault(cut=cut), times=times)
            lines = list(follow(engine.host, "web", until="exited"))
            assert [each.data + b"\n" for each in lines] == [data for _, data in log], cut


def test_a_checkpoint_at_every_line(follow: Follow) -> None:
    log = [(1 + number % 3 % 2, b"line %d\n" % number, T0 + number // 7 * SECOND) for number in range(60)]
    with LoopbackEngine(flavor="podman") as engine:
        engine.add(Container("web", state="exited", log=log))
        follower = follow(engine.host, "web", until="exited")
        assert follower.checkpoint is None
        checkpoints, lines = [], []
        for each in follower:
            lines.append(each)
            checkpoints.append(str(follower.checkpoint))
        assert len(lines) == 60
        for position in range(0, 60, 7):
            rest = list(follow(engine.host, "web", until="exited", checkpoint=checkpoints[position]))
            assert rest == lines[position + 1 :]


def test_restarts_of_the_container(follow: Follow) -> None:
    runs = itertools.count()

    def script(process: Process) -> None:
        counting(20, first=20 * next(runs))(process)

    with LoopbackEngine() as engine:
        container = engine.add(Container("web", script, begin="add"))

        def restart() -> None:
            for _ in range(2):
                time.sleep(0.4)
                container.start()

        threading.Thread(target=restart, daemon=True).start()
        follower = follow(engine.host, "web")
        lines = [next(follower) for _ in range(120)]
        assert numbers(lines) == {Stream.STDOUT: list(range(60)), Stream.STDERR: list(range(60))}
        engine.discard(container)
        assert list(follower) == []


def test_the_last_words_without_a_line_end(follow: Follow) -> None:
    with LoopbackEngine(flavor="podman", server_version="5.4.2") as engine:
        engine.add(Container("web", output=[(1, b"one\n"), (1, b"last words")], auto_remove=True))
        assert [each.data for each in follow(engine.host, "web")] == [b"one", b"last words"]


def test_removed_while_nobody_was_connected(follow: Follow) -> None:
    with LoopbackEngine() as engine:
        container = engine.add(Container("web", log=[(1, b"one\n")]))
        follower = follow(engine.host, "web")
        assert next(follower).data == b"one"
        engine.discard(container)
        assert list(follower) == []
        with pytest.raises(NotFoundError):
            next(follow(engine.host, "web"))


def test_a_successor_of_the_same_name(follow: Follow) -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", state="exited", log=[(1, b"one\n")]))
        follower = follow(engine.host, "web", until=None)
        assert next(follower).data == b"one"
        first = follower.checkpoint
        engine.discard(engine.find("container", "web"))  # type: ignore[arg-type]
        engine.add(Container("web", state="exited", log=[(1, b"two\n")]))
        assert next(follower).data == b"two"
        assert follower.checkpoint.container != first.container
        with pytest.raises(CheckpointError, match="the checkpoint is of"):
            next(follow(engine.host, "web", checkpoint=first))
        assert next(follow(engine.host, "web", checkpoint=first, until=None)).data == b"two"


def test_since_and_tail(follow: Follow) -> None:
    log = [(1, b"%d\n" % number, T0 + number * SECOND) for number in range(10)]
    with LoopbackEngine() as engine:
        engine.add(Container("web", state="exited", log=log))
        seen = [each.data for each in follow(engine.host, "web", until="exited", since=1_800_000_007)]
        assert seen == [b"7", b"8", b"9"]
        follower = follow(engine.host, "web", until="exited", tail=2)
        assert next(follower).data == b"8"
        assert follower.checkpoint.since == T0 + 8 * SECOND
        rest = follow(engine.host, "web", until="exited", checkpoint=follower.checkpoint)
        assert [each.data for each in rest] == [b"9"]


def test_a_gap_is_counted(follow: Follow, caplog: pytest.LogCaptureFixture) -> None:
    with LoopbackEngine() as engine:
        log = [(1, b"%d\n" % number, T0 + number * SECOND) for number in range(10)]
        container = engine.add(Container("web", state="exited", log=log))
        follower = follow(engine.host, "web", until="exited")
        next(follower)
        checkpoint = follower.checkpoint
        del container.log.entries[:5]
        follower = follow(engine.host, "web", until="exited", checkpoint=checkpoint)
        assert [each.data for each in follower] == [b"5", b"6", b"7", b"8", b"9"]
        assert follower.gaps == 1
        assert "rotated away" in caplog.text


def test_a_gap_within_a_second_at_the_end_of_a_log(follow: Follow, caplog: pytest.LogCaptureFixture) -> None:
    log = [(1, b"%d\n" % number, T0) for number in range(6)]
    with LoopbackEngine() as engine:
        container = engine.add(Container("web", state="exited", log=log))
        follower = follow(engine.host, "web", until="exited")
        assert [next(follower).data for _ in range(3)] == [b"0", b"1", b"2"]
        del container.log.entries[:4]
        follower = follow(engine.host, "web", until="exited", checkpoint=follower.checkpoint)
        assert [each.data for each in follower] == [b"4", b"5"]
        assert follower.gaps == 1
    assert "lines are missing" in caplog.text


def test_a_timeout_leaves_it_as_it_was(follow: Follow) -> None:
    with LoopbackEngine() as engine:
        container = engine.add(Container("web", log=[(1, b"one\n")]))
        follower = follow(engine.host, "web")
        assert next(follower).data == b"one"
        follower.timeout = 0.05
        for _ in range(3):
            with pytest.raises(TimeoutError, match="no line came in time"):
                next(follower)
        container._write(1, b"two\n")
        follower.timeout = 10
        assert next(follower).data == b"two"
        container.kill()  # now it waits for the next start, or the end
        follower.timeout = 0.05
        for _ in range(20):
            with pytest.raises(TimeoutError):
                next(follower)
        engine.discard(container)
        follower.timeout = 10
        assert list(follower) == []


def test_what_does_not_get_better_is_raised(follow: Follow) -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", log=[(1, b"one\n")]))
        engine.fault("logs", Fault(status=501, body={"message": "driver does not support reading"}))
        follower = follow(engine.host, "web")
        for _ in range(2):
            with pytest.raises(EngineError, match="501"):
                next(follower)


def test_what_may_get_better_is_tried_again(follow: Follow) -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", state="exited", log=[(1, b"one\n")]))
        engine.fault("logs", Fault(status=500, body={"message": "not now"}), times=3)
        engine.fault("inspect", Fault(status=503), times=1)
        engine.fault("inspect", Fault(garbage=b"SSH-2.0-x\r\n"), times=1)
        assert [each.data for each in follow(engine.host, "web", until="exited")] == [b"one"]
        engine.fault("logs", Fault(status=500, body={"message": "never"}))
        with pytest.raises(EngineError, match="never"):
            next(follow(engine.host, "web"))


def test_close_ends_what_waits() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", log=[(1, b"one\n")]))
        follower = muxframe.follow("web", host=engine.host)
        assert next(follower).data == b"one"
        threading.Timer(0.2, follower.close).start()
        begin = time.monotonic()
        assert list(follower) == []
        assert time.monotonic() - begin < 5
        assert follower.closed


@pytest.mark.parametrize("route", ["inspect", "logs"])
def test_close_ends_a_request(route: str) -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", log=[(1, b"one\n")]))
        follower = muxframe.follow("web", host=engine.host)
        engine.fault(route, Fault(delay=60))
        threading.Timer(0.2, follower.close).start()
        begin = time.monotonic()
        assert list(follower) == []
        assert time.monotonic() - begin < 30


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
@pytest.mark.parametrize("is_late", [False, True])
def test_an_answer_that_nobody_waits_for_is_closed(is_late: bool) -> None:
    """It came before the follower was closed, or comes afterwards."""
    with LoopbackEngine() as engine:
        engine.add(Container("web"))
        before = len(os.listdir("/proc/self/fd"))
        follower = muxframe.follow("web", host=engine.host)
        engine.fault("logs", Fault(delay=0.3))
        follower.timeout = 0.001
        while not any(request.path.endswith("/logs") for request in engine.requests):
            with pytest.raises(TimeoutError):
                next(follower)
        asking = follower._asking
        if asking is not None and not is_late:
            asking.join()
            assert isinstance(asking.result, Opened)
        follower.close()
        assert list(follower) == []
        del follower
        end = time.monotonic() + 30
        while len(os.listdir("/proc/self/fd")) > before:
            assert time.monotonic() < end, "a connection is left"
            time.sleep(0.01)


def test_close_ends_a_pause() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", log=[(1, b"one\n")]))
        follower = muxframe.follow("web", host=engine.host)
        next(follower)
        engine.stop()
        threading.Timer(0.5, follower.close).start()
        assert list(follower) == []
        engine.restart()


def test_cancelled_and_closed_on_asyncio() -> None:
    async def main(host: str) -> None:
        async with aio.follow("web", host=host) as follower:
            assert (await anext(follower)).data == b"one"
            waiting = asyncio.ensure_future(follower.read())
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            container._write(1, b"two\n")
            assert (await anext(follower)).data == b"two"
            waiting = asyncio.ensure_future(follower.read())
            await asyncio.sleep(0.05)
            follower.close()
            assert await waiting == []

    with LoopbackEngine() as engine:
        container = engine.add(Container("web", log=[(1, b"one\n")]))
        asyncio.run(main(engine.host))


def test_arguments() -> None:
    with LoopbackEngine() as engine:
        loopback = muxframe.connect(engine.host)
        with pytest.raises(ValueError, match="until must be"):
            loopback.follow("web", until="now")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="max_line_size"):
            loopback.follow("web", max_line_size=0)
        with pytest.raises(ValueError, match="not a moment"):
            loopback.follow("web", since="yesterday")
        with pytest.raises(ValueError, match="tail"):
            loopback.follow("web", tail="some")
        with pytest.raises(CheckpointError):
            loopback.follow("web", checkpoint="nonsense")
