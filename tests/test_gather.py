"""gather: many containers at once, as they come and go, fairly and in bounded memory; blocking and on asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import muxframe
from muxframe import CheckpointError, EngineError, Stream, aio
from muxframe.ingest.aio import LEAST, Room
from muxframe.testing import Container, Fault, LoopbackEngine, Process

Gather = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio"])
def gather(request: pytest.FixtureRequest) -> Iterator[Gather]:
    """Return a function that gathers: what it returns is used as a blocking Gathering."""
    made: list[Any] = []
    with asyncio.Runner() as runner:

        def begin(host: str, *names: str, **options: Any) -> Any:
            if request.param == "blocking":
                gathering: Any = muxframe.gather(*names, host=host, **options)
            else:
                gathering = _Driven(runner, aio.gather(*names, host=host, **options))
            gathering.timeout = 10
            made.append(gathering)
            return gathering

        yield begin
        for each in made:
            each.close()


class _Driven:
    """An AsyncGathering in a blocking one's clothes."""

    def __init__(self, runner: asyncio.Runner, gathering: Any) -> None:
        self._runner = runner
        self._gathering = gathering

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        try:
            return self._run(lambda: anext(self._gathering))
        except StopAsyncIteration:
            raise StopIteration from None

    def read(self) -> Any:
        return self._run(self._gathering.read)

    def _run(self, call: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return await call()

        return self._runner.run(run())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gathering, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._gathering, name, value)

    def close(self) -> None:
        self._run(self._gathering.__aexit__)


def counting(count: int, period: float = 0.0, until: threading.Event | None = None) -> Callable[[Process], None]:
    def script(process: Process) -> None:
        for number in range(count):
            process.write(b"%d\n" % number)
            if period:
                time.sleep(period)
        if until is not None:
            until.wait(60)

    return script


def take(gathering: Any, count: int) -> dict[str, list[int]]:
    """Take so many lines, and sort them by container."""
    found: dict[str, list[int]] = {}
    for _ in range(count):
        source, line = next(gathering)
        found.setdefault(str(source), []).append(int(line.data))
    return found


@pytest.mark.parametrize(("flavor", "server"), [("docker", None), ("podman", "4.3.1"), ("podman", "5.4.2")])
def test_all_that_run_and_all_that_come(gather: Gather, flavor: Any, server: str | None) -> None:
    with LoopbackEngine(flavor=flavor, server_version=server) as engine:
        for number in range(10):
            engine.add(Container(f"old{number}", counting(20, 0.001)))
        gathering = gather(engine.host)
        found = take(gathering, 200)
        for number in range(10):
            is_heard = threading.Event()  # what is removed before is not there to be asked for
            script = counting(20, until=is_heard)
            engine.add(Container(f"new{number}", script, begin="add", auto_remove=number % 2 == 0))
            found |= take(gathering, 20)
            is_heard.set()
        assert found == {f"{age}{number}": list(range(20)) for age in ("old", "new") for number in range(10)}
        gathering.timeout = 0.1
        with pytest.raises(TimeoutError, match="no line came in time"):
            next(gathering)
        assert gathering.timeout == 0.1


def test_what_comes_and_goes_while_the_engine_does_not_answer(gather: Gather) -> None:
    """Its start is told again once the engine can say what it is."""
    with LoopbackEngine() as engine:
        engine.add(Container("first", output=[b"1\n"], log=[(1, b"0\n")]))
        gathering = gather(engine.host)
        assert take(gathering, 2) == {"first": [0, 1]}
        engine.fault("list", Fault(status=500, body={"message": "database is locked"}, delay=2.2), times=1)
        container = engine.add(Container("short", output=[b"2\n"], begin="add"))
        assert take(gathering, 1) == {"short": [2]}
        assert not container.is_running


def test_many_that_start_at_once_do_not_wait_for_each_other(gather: Gather) -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("first", output=[b"0\n"]))
        gathering = gather(engine.host)
        next(gathering)
        engine.fault("list", Fault(status=503), times=3)
        engine.fault("list", Fault(delay=0.4))
        for number in range(20):
            engine.add(Container(f"web{number}", counting(2), begin="add"))
        began = time.monotonic()
        assert take(gathering, 40) == {f"web{number}": [0, 1] for number in range(20)}
        assert time.monotonic() - began < 5


def test_by_name_id_and_label(gather: Gather) -> None:
    with LoopbackEngine() as engine:
        web = engine.add(Container("web", output=[b"1\n"], labels={"app": "x", "tier": "front"}))
        engine.add(Container("db", output=[b"2\n"], labels={"app": "x"}))
        engine.add(Container("other", output=[b"3\n"]))
        assert take(gather(engine.host, "web", "not-yet"), 1) == {"web": [1]}
        assert take(gather(engine.host, web.id[:12]), 1) == {"web": [1]}
        engine.add(Container("third", output=[b"4\n"], labels={"app": "y"}, begin="add"))
        ending = {"until": "exited", "since": 0}
        assert take(gather(engine.host, labels=["tier"]), 1) == {"web": [1]}
        assert sorted(take(gather(engine.host, labels={"app": "x"}), 2)) == ["db", "web"]
        assert list(gather(engine.host, labels={"app": "nothing"}, **ending)) == []


def test_sources_say_who_they_are(gather: Gather) -> None:
    with LoopbackEngine() as engine:
        container = engine.add(Container("web", output=[b"1\n"], labels={"app": "x"}))
        gathering = gather(engine.host)
        source, line = next(gathering)
        assert (source.name, str(source), source.id, source.labels) == ("web", "web", container.id, {"app": "x"})
        assert line.stream is Stream.STDOUT and line.timestamp is not None
        assert gathering.sources == [source]
        assert repr(source).startswith("<Source web ")


def test_ends_with_the_last_one_if_asked(gather: Gather) -> None:
    with LoopbackEngine() as engine:
        for number in range(5):
            engine.add(Container(f"n{number}", counting(50, 0.002)))
        lines = list(gather(engine.host, until="exited"))
        assert len(lines) == 250


def test_goes_on_from_checkpoints(gather: Gather) -> None:
    with LoopbackEngine() as engine:
        containers = [engine.add(Container(f"n{number}", counting(100, 0.001))) for number in range(3)]
        gathering = gather(engine.host)
        first = take(gathering, 137)
        checkpoints = {id: str(checkpoint) for id, checkpoint in gathering.checkpoints.items()}
        gathering.close()
        for container in containers:
            assert container._thread is not None
            container._thread.join()
        rest: dict[str, list[int]] = {}
        for source, line in gather(engine.host, checkpoints=checkpoints, until="exited"):
            rest.setdefault(source.name, []).append(int(line.data))
        for name in ("n0", "n1", "n2"):
            assert first.get(name, []) + rest.get(name, []) == list(range(100))


def test_a_container_that_is_started_again(gather: Gather) -> None:
    with LoopbackEngine() as engine:
        container = engine.add(Container("web", counting(20), begin="add"))
        gathering = gather(engine.host)
        assert take(gathering, 20) == {"web": list(range(20))}
        for pause in (0.0, 0.3, 0.0):
            time.sleep(pause)
            container.start()
            assert take(gathering, 20) == {"web": list(range(20))}
        engine.discard(container)
        end = time.monotonic() + 10
        gathering.timeout = 0.05
        while gathering.sources and time.monotonic() < end:
            with pytest.raises(TimeoutError):
                next(gathering)
        assert gathering.sources == []
        assert gathering.checkpoints == {}


def test_across_a_restart_of_the_engine(gather: Gather) -> None:
    with LoopbackEngine() as engine:
        for number in range(5):
            engine.add(Container(f"n{number}", counting(300, 0.004), begin="add"))

        def restart() -> None:
            time.sleep(0.3)
            engine.stop()
            engine.add(Container("meanwhile", counting(50), begin="add"))
            time.sleep(0.2)
            engine.restart()

        threading.Thread(target=restart, daemon=True).start()
        found = take(gather(engine.host), 1550)
        assert found.pop("meanwhile") == list(range(50))
        assert found == {f"n{number}": list(range(300)) for number in range(5)}


def test_none_starves_another(gather: Gather) -> None:
    """Nine containers that have much to say, and one that has a single line."""
    with LoopbackEngine() as engine:
        for number in range(9):
            engine.add(Container(f"loud{number}", log=[(1, b"7" * 999 + b"\n")] * 2000))
        gathering = gather(engine.host)
        for _ in range(2000):
            next(gathering)
        engine.add(Container("quiet", output=[b"1\n"], begin="add"))
        for _ in range(18_000):
            if next(gathering)[0].name == "quiet":
                break
        assert next(gathering)[0].name.startswith("loud")  # there was more to come


def test_memory_is_bounded(gather: Gather) -> None:
    """What has been received and not been taken stays below the limit, and a little for each."""
    with LoopbackEngine() as engine:
        for number in range(10):
            engine.add(Container(f"n{number}", log=[(1, b"x" * 8191 + b"\n")] * 100))
        gathering = gather(engine.host, max_bytes=100_000)
        taken, least = 0, 100_000
        while taken < 1000:
            taken += len(gathering.read()[1])
            least = min(least, gathering._gathering._room.left)
        assert -10 * (LEAST + 65_536) <= least < 50_000  # what comes with a head is not asked for


def test_room() -> None:
    room = Room(100_000)
    assert room.next_size() == 65_536
    room.left = 10_000
    assert room.next_size() == 10_000
    room.left = -5
    assert room.next_size() == LEAST


def test_one_that_cannot_be_read_does_not_stop_the_others(gather: Gather) -> None:
    with LoopbackEngine() as engine:
        mute = engine.add(Container("mute", counting(1)))
        engine.add(Container("web", counting(3)))
        engine.fault("logs", Fault(status=501, body={"message": "cannot be read"}), container=mute.id)
        gathering = gather(engine.host)
        assert take(gathering, 3) == {"web": [0, 1, 2]}
        gathering.timeout = 0.05
        end = time.monotonic() + 10
        errors: dict[str, Any] = {"mute": None}
        while errors["mute"] is None and time.monotonic() < end:
            with pytest.raises(TimeoutError):
                next(gathering)
            errors = {source.name: source.error for source in gathering.sources}
        assert isinstance(errors["mute"], EngineError)
        assert errors["web"] is None


def test_an_engine_that_tells_nothing(gather: Gather) -> None:
    with LoopbackEngine() as engine:
        engine.fault("list", Fault(status=403, body={"message": "forbidden"}))
        with pytest.raises(EngineError, match="forbidden"):
            next(gather(engine.host))


def test_no_gap_between_the_list_and_the_events(gather: Gather) -> None:
    """What starts after the list was made, and before events are told, is in the events from before."""
    with LoopbackEngine() as engine:
        engine.fault("events", Fault(delay=0.5))

        def start() -> None:
            while not any(request.path == "/containers/json" for request in engine.requests):
                time.sleep(0.01)
            time.sleep(0.1)
            engine.add(Container("between", output=[b"1\n"], begin="add", auto_remove=False))

        threading.Thread(target=start, daemon=True).start()
        assert take(gather(engine.host), 1) == {"between": [1]}


def test_since_and_tail(gather: Gather) -> None:
    log = [(1, b"%d\n" % number, (1_800_000_000 + number) * 10**9) for number in range(10)]
    with LoopbackEngine() as engine:
        engine.add(Container("web", log=log))
        assert take(gather(engine.host, tail=2), 2) == {"web": [8, 9]}
        assert take(gather(engine.host, since=1_800_000_007), 3) == {"web": [7, 8, 9]}


@pytest.mark.parametrize(("flavor", "server"), [("docker", None), ("podman", "4.3.1"), ("podman", "5.4.2")])
def test_up_to_where_the_logs_end(gather: Gather, flavor: Any, server: str | None) -> None:
    """Of those that run, and, if asked, of those that do not; checkpoints lead on from there."""
    with LoopbackEngine(flavor=flavor, server_version=server) as engine:
        engine.add(Container("web", log=[(1, b"%d\n" % number) for number in range(5)]))
        engine.add(Container("done", output=[b"7\n"], state="exited"))
        engine.add(Container("never", state="created"))
        assert [line.data for _, line in gather(engine.host, until="end")] == [b"%d" % number for number in range(5)]
        gathering = gather(engine.host, until="end", stopped=True)
        lines = [(source.name, line.data) for source, line in gathering]
        assert sorted(lines) == [("done", b"7"), *(("web", b"%d" % number) for number in range(5))]
        checkpoints = gathering.checkpoints
        assert list(gather(engine.host, until="end", stopped=True, checkpoints=checkpoints)) == []


def test_an_end_that_is_a_lost_connection_is_none(gather: Gather) -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", log=[(1, b"%d\n" % number) for number in range(1000)]))
        engine.fault("logs", Fault(cut=5000), times=1)
        assert take(gather(engine.host, until="end"), 1000) == {"web": list(range(1000))}


def test_up_to_a_moment(gather: Gather) -> None:
    log = [(1, b"%d\n" % number, (1_600_000_000 + number) * 10**9) for number in range(10)]
    with LoopbackEngine() as engine:
        engine.add(Container("web", log=log))
        assert [line.data for _, line in gather(engine.host, until=1_600_000_002)] == [b"0", b"1", b"2"]
        engine.add(Container("clock", counting(200, 0.01), begin="add"))
        end = time.time() + 1
        found = list(gather(engine.host, "clock", until=end))
        numbers = [int(line.data) for _, line in found]
        assert numbers == list(range(len(numbers)))
        assert 20 < len(numbers) < 110
        assert all(line.timestamp < end * 1e9 for _, line in found)
        assert 0 < time.time() - end < 5


def test_one_that_came_while_nobody_looked_is_read_from_its_beginning(gather: Gather) -> None:
    """`tail` is for those that are there at first."""
    with LoopbackEngine() as engine:
        engine.add(Container("old", log=[(1, b"%d\n" % number) for number in range(5)]))
        gathering = gather(engine.host, tail=1)
        assert take(gathering, 1) == {"old": [4]}
        engine.stop()
        engine.add(Container("meanwhile", log=[(1, b"%d\n" % number) for number in range(5)]))
        engine.restart()
        assert take(gathering, 5) == {"meanwhile": list(range(5))}


def test_what_was_taken_as_it_was_closed_is_in_the_checkpoint() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", log=[(1, b"%d\n" % number) for number in range(5)]))
        with muxframe.gather(host=engine.host) as gathering:
            taken = [next(gathering)[1]]
            gathering.close()
            found = gathering.read()  # what had come by then, mostly all
            taken += [] if found is None else found[1]
            assert gathering.read() is None
            checkpoints = gathering.checkpoints
        with muxframe.gather(host=engine.host, checkpoints=checkpoints, until="end") as gathering:
            rest = [line for _, line in gathering]
        assert [line.data for line in taken + rest] == [b"0", b"1", b"2", b"3", b"4"]


def test_close_ends_what_waits() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", output=[b"1\n"]))
        with muxframe.gather(host=engine.host) as gathering:
            next(gathering)
            threading.Timer(0.2, gathering.close).start()
            assert list(gathering) == []
        assert gathering.closed
        assert list(gathering) == []
        assert not any(thread.name == "muxframe.gather" for thread in threading.enumerate())


@pytest.mark.parametrize("moment", ["__init__", "start"])
def test_closed_while_its_thread_is_started(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread: close() then waits until there is something to close."""
    with LoopbackEngine() as engine:
        engine.add(Container("web", output=[b"1\n"]))
        gathering = muxframe.gather(host=engine.host)
        closer = threading.Thread(target=gathering.close, daemon=True)
        original = getattr(threading.Thread, moment)

        def late(thread: threading.Thread, *args: Any, **options: Any) -> None:
            if "muxframe.gather" in (options.get("name"), getattr(thread, "_name", "")):
                monkeypatch.undo()
                closer.start()
                closer.join(0.2)
            original(thread, *args, **options)

        monkeypatch.setattr(threading.Thread, moment, late)
        assert list(gathering) == []
        closer.join(10)
        assert not closer.is_alive()
        assert not any(thread.name == "muxframe.gather" for thread in threading.enumerate())


def test_arguments() -> None:
    with LoopbackEngine() as engine:
        loopback = muxframe.connect(engine.host)
        with pytest.raises(ValueError, match="until"):
            loopback.gather(until="removed")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="tail"):
            loopback.gather(tail="some")
        with pytest.raises(CheckpointError):
            loopback.gather(checkpoints={"id": "nonsense"})
        for labels in ([""], ["=x"], {"": "x"}):
            with pytest.raises(ValueError, match="a label has a name"):
                loopback.gather(labels=labels)
        with pytest.raises(TypeError, match="not one string"):
            loopback.gather(labels="app")
