"""Hyper's signatures: the known answer, and an engine that verifies each request by a reading of its own."""

from __future__ import annotations

import asyncio
import calendar
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

import muxframe
from muxframe import EngineError, aio
from muxframe.engine import Request
from muxframe.engine.hyper import HyperAuth
from muxframe.testing import Container, LoopbackEngine, Process, cat

KNOWN = calendar.timegm((2017, 7, 29, 23, 8, 45))


def test_known_answer() -> None:
    request = Request("GET", "/v1.23/", host="us-west-1.hyper.sh", headers={"Content-Type": "application/json"})
    headers = HyperAuth("ak", "sk", clock=lambda: KNOWN)(request)
    assert headers == {
        "Authorization": "HYPER-HMAC-SHA256 Credential=ak/20170729/us-west-1/hyper/hyper_request, "
        "SignedHeaders=content-type;host;x-hyper-content-sha256;x-hyper-date, "
        "Signature=3a923718db713abc7b851712a434343eb7887298ab5f48113a7b291f261c037a",
        "X-Hyper-Content-Sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "X-Hyper-Date": "20170729T230845Z",
    }


class Guarded(LoopbackEngine):
    """An engine that answers signed requests only."""

    keys = {"ak": "sk"}  # noqa: RUF012
    now = staticmethod(time.time)
    verified = 0

    def _refuse(self, x: Any, fault: Any) -> bool:
        why = self._verify(x.request)
        if why:
            x.reply(403, json.dumps({"message": why}).encode(), {"Content-Type": "application/json"})
            return True
        self.verified += 1
        return super()._refuse(x, fault)

    def _verify(self, request: Any) -> str:
        headers = request.headers
        algorithm, _, rest = headers.get("authorization", "").partition(" ")
        if algorithm != "HYPER-HMAC-SHA256":
            return "not signed"
        fields = dict(part.split("=", 1) for part in rest.split(", "))
        access, date, region, service, kind = fields["Credential"].split("/")
        if access not in self.keys or (service, kind) != ("hyper", "hyper_request"):
            return "unknown credential"
        then = calendar.timegm(time.strptime(headers["x-hyper-date"], "%Y%m%dT%H%M%SZ"))
        if abs(self.now() - then) > 300 or not headers["x-hyper-date"].startswith(date):
            return "expired"
        if hashlib.sha256(request.body).hexdigest() != headers["x-hyper-content-sha256"]:
            return "another body"
        names = fields["SignedHeaders"].split(";")
        must = {name for name in headers if name.startswith("x-hyper-")} | {"host", "content-type"}
        if not must <= set(names) or {"connection", "upgrade", "authorization"} & set(names):
            return "wrong headers signed"
        parts = urlsplit(request.target)
        pairs = sorted(parse_qsl(parts.query, keep_blank_values=True))
        lines = [request.method, parts.path.strip("/")]
        lines.append("&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs))
        lines += [f"{name}:{headers[name].strip()}" for name in names]
        lines += ["", fields["SignedHeaders"], headers["x-hyper-content-sha256"]]
        to_sign = f"HYPER-HMAC-SHA256\n{headers['x-hyper-date']}\n{date}/{region}/hyper/hyper_request\n"
        to_sign += hashlib.sha256("\n".join(lines).encode()).hexdigest()
        key = ("HYPER" + self.keys[access]).encode()
        for part in (date, region, "hyper", "hyper_request", to_sign):
            key = hmac.digest(key, part.encode(), "sha256")
        return "" if key.hex() == fields["Signature"] else "wrong signature"


def ls(process: Process) -> int:
    process.write(b"a b\n")
    return 3


def test_attach_and_exec() -> None:
    with Guarded(transport="tcp", on_exec={"ls": ls}) as engine:
        engine.add(Container("web", cat, open_stdin=True, stdin_once=True))
        engine.add(Container("other", output=[(1, b"out\n"), (2, b"err\n")]))
        hyper = muxframe.connect(engine.host, auth=HyperAuth("ak", "sk"))
        with hyper.attach("web", stdin=True) as session:
            session.write(b"hello")
            session.close_stdin()
            assert session.read_all() == (b"hello", b"")
            assert session.wait(5) == 0
        with hyper.attach("other") as session:
            assert session.read_all() == (b"out\n", b"err\n")
        with hyper.exec(engine.add(Container("third")).name, "ls") as session:
            assert session.read_all() == (b"a b\n", b"")
            assert session.exit_code == 3
        odd = {"z": '{"name":["a b/+"]}', "all": ""}
        assert hyper.request("GET", "/containers/other/json", query=odd).status == 200
        assert engine.verified == len(engine.requests) > 5


def test_asyncio() -> None:
    async def read() -> Any:
        connected = await aio.connect(engine.host, auth=HyperAuth("ak", "sk"))
        async with connected.attach("other") as session:
            return await session.read_all()

    with Guarded(transport="tcp") as engine:
        engine.add(Container("other", output=[(1, b"out\n"), (2, b"err\n")]))
        assert asyncio.run(read()) == (b"out\n", b"err\n")
        assert engine.verified == len(engine.requests) > 1


@pytest.mark.parametrize(
    ("auth", "why"),
    [
        (None, "not signed"),
        (HyperAuth("ak", "another"), "wrong signature"),
        (HyperAuth("nobody", "sk"), "unknown credential"),
        (HyperAuth("ak", "sk", clock=lambda: time.time() - 301), "expired"),
        (HyperAuth("ak", "sk", clock=lambda: time.time() + 310), "expired"),
    ],
)
def test_refused(auth: Any, why: str) -> None:
    with Guarded(transport="tcp") as engine:
        with pytest.raises(EngineError, match=f"403 Forbidden: {why}") as caught:
            muxframe.connect(engine.host, auth=auth)
        assert "sk" not in str(caught.value)
        assert engine.verified == 0


def test_any_token_in_a_header() -> None:
    """The hook is for any proxy that wants something in a header."""
    seen: list[Request] = []

    def auth(request: Request) -> dict[str, str]:
        seen.append(request)
        return {"Authorization": "Bearer t0ken"}

    with LoopbackEngine(transport="tcp") as engine:
        engine.add(Container("web", output=[(1, b"out")]))
        with muxframe.connect(engine.host, auth=auth).attach("web") as session:
            assert session.read_all() == (b"out", b"")
        assert {request.headers["authorization"] for request in engine.requests} == {"Bearer t0ken"}
        assert len(seen) == len(engine.requests)
        assert {request.host for request in seen} == {engine.host.removeprefix("tcp://")}
        assert [request.path for request in seen][-1].endswith("/containers/web/attach")


# --- credentials -----------------------------------------------------------------------------------------------------


def configured(directory: Path, clouds: Any) -> dict[str, str]:
    (directory / "config.json").write_text(json.dumps({"clouds": clouds}))
    return {"HYPER_CONFIG": str(directory)}


CLOUD = {"accesskey": "file-ak", "secretkey": "file-sk"}


def test_where_credentials_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = configured(tmp_path, {"tcp://*.hyper.sh:443": CLOUD | {"region": "eu-central-1"}})
    auth = HyperAuth(environ=environ)
    assert (repr(auth), auth.host) == ("<HyperAuth file-ak eu-central-1>", "https://eu-central-1.hyper.sh")
    assert repr(HyperAuth(region="us-west-1", environ=environ)) == "<HyperAuth file-ak us-west-1>"
    variables = {"HYPER_ACCESS": "env-ak", "HYPER_SECRET": "env-sk"}
    assert repr(HyperAuth(environ=environ | variables)) == "<HyperAuth env-ak us-west-1>"
    assert repr(HyperAuth("ak", "sk", environ=environ | variables)) == "<HyperAuth ak us-west-1>"
    european = CLOUD | {"accesskey": "eu-ak"}
    environ = configured(tmp_path, {"tcp://*.hyper.sh:443": CLOUD, "tcp://eu.hyper.sh:443": european})
    assert repr(HyperAuth(region="eu", environ=environ)) == "<HyperAuth eu-ak eu>", "before the pattern"
    assert repr(HyperAuth(environ=environ)) == "<HyperAuth file-ak us-west-1>"
    home = tmp_path / "home"
    (home / ".hyper").mkdir(parents=True)
    configured(home / ".hyper", {"tcp://*.hyper.sh:443": CLOUD})
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert repr(HyperAuth(environ={})) == "<HyperAuth file-ak us-west-1>"


@pytest.mark.parametrize(
    ("clouds", "why"),
    [
        ({}, "no cloud there fits tcp://us-west-1.hyper.sh:443"),
        ({"tcp://eu.hyper.sh:443": CLOUD}, "no cloud there fits"),
        ({"tcp://*.hyper.sh:443": {"accesskey": "x"}}, "not a configuration of Hyper's"),
        ({"tcp://*.hyper.sh:443": CLOUD | {"accesskey": None}}, "not a configuration of Hyper's"),
        ({"tcp://*.hyper.sh:443": CLOUD | {"secretkey": ""}}, "not a configuration of Hyper's"),
        ({"tcp://*.hyper.sh:443": CLOUD | {"region": 1}}, "not a configuration of Hyper's"),
        ([], "not a configuration of Hyper's"),
    ],
)
def test_configuration_that_is_no_use(tmp_path: Path, clouds: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        HyperAuth(environ=configured(tmp_path, clouds))


def test_no_credentials(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither HYPER_ACCESS and HYPER_SECRET nor .*config"):
        HyperAuth(environ={"HYPER_CONFIG": str(tmp_path)})
    with pytest.raises(ValueError, match="access and secret come together"):
        HyperAuth("ak", environ={})
