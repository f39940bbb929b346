"""Where an engine is looked for, what addresses are taken, and how TLS is set up."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muxframe import ConnectionLostError
from muxframe.engine.endpoint import Attempts, Endpoint, Tls, find_endpoints, parse_endpoint

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")


def find(home: Path, *args: Any, environ: dict[str, str] | None = None, **kwargs: Any) -> list[str]:
    return [str(endpoint) for endpoint in find_endpoints(*args, environ=environ or {}, home=home, **kwargs)]


def add_context(config: Path, name: str, docker: Any, *files: str) -> None:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": docker}}))
    tls = config / "contexts" / "tls" / digest / "docker"
    tls.mkdir(parents=True)
    for file in files:
        (tls / file).write_text("")


def set_current(config: Path, name: object) -> None:
    config.mkdir(exist_ok=True)
    (config / "config.json").write_text(json.dumps({"auths": {}, "currentContext": name}))


# --- which one -------------------------------------------------------------------------------------------------------


def test_first_that_is_there_decides(tmp_path: Path) -> None:
    config = tmp_path / ".docker"
    for name in ("argument", "variable", "current"):
        add_context(config, name, {"Host": f"tcp://{name}:1"})
    set_current(config, "current")
    environ = {"DOCKER_HOST": "tcp://host:1", "DOCKER_CONTEXT": "variable"}
    assert find(tmp_path, "tcp://url:1", environ=environ, context="argument") == ["tcp://url:1"]
    assert find(tmp_path, environ=environ, context="argument") == ["tcp://argument:1"]
    assert find(tmp_path, environ=environ) == ["tcp://host:1"]
    assert find(tmp_path, environ={**environ, "DOCKER_HOST": ""}) == ["tcp://variable:1"]
    assert find(tmp_path) == ["tcp://current:1"]
    usual = find(tmp_path, environ={"DOCKER_CONFIG": str(tmp_path / "none")})
    assert len(usual) > 1 and not set(usual) & {"tcp://current:1", "tcp://variable:1"}


def test_origin(tmp_path: Path) -> None:
    add_context(tmp_path / ".docker", "it's", {"Host": "tcp://h:1"})
    places = [
        find_endpoints("tcp://h", environ={}, home=tmp_path),
        find_endpoints(environ={"DOCKER_HOST": "tcp://h"}, home=tmp_path),
        find_endpoints(environ={"DOCKER_CONTEXT": "it's"}, home=tmp_path),
        find_endpoints(environ={}, home=tmp_path),
    ]
    origins = [place[0].origin for place in places]
    assert origins == ["host argument", "DOCKER_HOST", 'context "it\'s"', "Docker's default"]


@pytest.mark.parametrize("environ", [{}, {"DOCKER_HOST": "tcp://host:1"}])
def test_context_named_default(tmp_path: Path, environ: dict[str, str]) -> None:
    config = tmp_path / ".docker"
    add_context(config, "current", {"Host": "tcp://current:1"})
    add_context(config, "default", {"Host": "tcp://never:1"})
    expected = ["tcp://host:1"] if environ else find(tmp_path / "none")
    expected = [url.replace(f"{tmp_path}/none", str(tmp_path)) for url in expected]
    set_current(config, "current")
    assert find(tmp_path, context="default", environ=environ) == expected
    assert find(tmp_path, environ={**environ, "DOCKER_CONTEXT": "default"}) == expected
    for name in ("default", "", None):
        set_current(config, name)
        assert find(tmp_path, environ=environ) == expected


@posix_only
def test_usual_sockets(tmp_path: Path) -> None:
    uid = os.getuid()
    assert find(tmp_path, environ={"XDG_RUNTIME_DIR": "/run/me"}) == [
        "unix:///var/run/docker.sock",
        "unix:///run/me/docker.sock",
        f"unix://{tmp_path}/.docker/run/docker.sock",
        "unix:///run/podman/podman.sock",
        "unix:///run/me/podman/podman.sock",
        f"unix:///run/user/{uid}/podman/podman.sock",
    ]
    assert find(tmp_path, environ={"XDG_RUNTIME_DIR": f"/run/user/{uid}"}) == find(tmp_path)
    assert len(find(tmp_path)) == 5, "each is tried once"


def test_usual_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert find(tmp_path) == ["npipe:////./pipe/docker_engine", "npipe:////./pipe/podman-machine-default"]


def test_home_is_that_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    set_current(tmp_path / ".docker", "x")
    add_context(tmp_path / ".docker", "x", {"Host": "tcp://x:1"})
    assert [str(endpoint) for endpoint in find_endpoints(environ={})] == ["tcp://x:1"]


# --- contexts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", ["", "ca.pem", "cert.pem key.pem", "ca.pem cert.pem key.pem", "key.pem"])
@pytest.mark.parametrize("skip", [None, False, True])
def test_tls_of_a_context(tmp_path: Path, files: str, skip: bool | None) -> None:
    docker = {"Host": "tcp://h:1"} if skip is None else {"Host": "tcp://h:1", "SkipTLSVerify": skip}
    add_context(tmp_path, "x", docker, *files.split())
    # The environment's TLS is not meant for contexts.
    environ = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "x", "DOCKER_CERT_PATH": "/elsewhere"}
    [endpoint] = find_endpoints(environ=environ)
    if not files and not skip:
        assert endpoint.tls is None
        return
    assert endpoint.tls is not None
    directory = tmp_path / "contexts" / "tls" / hashlib.sha256(b"x").hexdigest() / "docker"
    has_pair = "key.pem" in files
    assert endpoint.tls.ca == (directory / "ca.pem" if "ca.pem" in files else None)
    assert endpoint.tls.cert == (directory / "cert.pem" if has_pair else None)
    assert endpoint.tls.key == (directory / "key.pem" if has_pair else None)
    assert endpoint.tls.verify is not bool(skip)
    [endpoint] = find_endpoints(tls=True, environ=environ)
    assert endpoint.tls is not None and endpoint.tls.verify, "asked for, whatever the context says"
    [endpoint] = find_endpoints(tls=False, environ=environ)
    assert endpoint.tls is None


def test_context_of_a_socket_ignores_tls(tmp_path: Path) -> None:
    add_context(tmp_path, "x", {"Host": "unix:///s", "SkipTLSVerify": True}, "ca.pem")
    [endpoint] = find_endpoints(context="x", environ={"DOCKER_CONFIG": str(tmp_path)})
    assert endpoint == Endpoint("unix", "/s", origin="context 'x'")


def test_missing_context(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        find(tmp_path, context="../x")
    assert str(caught.value) == f"there is no context '../x' in {tmp_path / '.docker' / 'contexts' / 'meta'}"
    set_current(tmp_path / ".docker", "gone")
    with pytest.raises(ValueError, match="there is no context 'gone'"):
        find(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"", b'{"currentContext": 5}', b'{"currentContext": ["x"]}'])
def test_broken_configuration(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        find(tmp_path, environ={"DOCKER_CONFIG": str(tmp_path)})
    assert str(path) in str(caught.value)
    assert find(tmp_path, "tcp://h:1", environ={"DOCKER_CONFIG": str(tmp_path)}) == ["tcp://h:1"], "it is not needed"


@pytest.mark.parametrize(
    "content",
    [
        *(b"{", b"[]", b"{}", b'{"Endpoints": []}', b'{"Endpoints": {"docker": "tcp://h"}}'),
        b'{"Endpoints": {"docker": {"Host": 1}}}',
    ],
)
def test_broken_context(tmp_path: Path, content: bytes) -> None:
    add_context(tmp_path, "x", {})
    [path] = tmp_path.glob("contexts/meta/*/meta.json")
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        find(tmp_path, context="x", environ={"DOCKER_CONFIG": str(tmp_path)})
    assert str(path) in str(caught.value)


def test_bad_address_of_a_context(tmp_path: Path) -> None:
    add_context(tmp_path, "x", {"Host": "ssh://-oProxyCommand=touch%20x"})
    with pytest.raises(ValueError, match="^context 'x': "):
        find(tmp_path, context="x", environ={"DOCKER_CONFIG": str(tmp_path)})


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected", "host_header"),
    [
        ("unix:///var/run/docker.sock", Endpoint("unix", "/var/run/docker.sock"), "localhost"),
        ("/var/run/docker.sock", Endpoint("unix", "/var/run/docker.sock"), "localhost"),
        ("unix:///with a space/é?#@%41", Endpoint("unix", "/with a space/é?#@%41"), "localhost"),
        ("tcp://h", Endpoint("tcp", host="h", port=2375), "h:2375"),
        ("tcp://h:99", Endpoint("tcp", host="h", port=99), "h:99"),
        ("tcp://h:80", Endpoint("tcp", host="h", port=80), "h"),
        ("tcp://h/", Endpoint("tcp", host="h", port=2375), "h:2375"),
        ("tcp://[::1]", Endpoint("tcp", host="::1", port=2375), "[::1]:2375"),
        ("tcp://[fe80::1%25eth0]:99", Endpoint("tcp", host="fe80::1%eth0", port=99), "[fe80::1]:99"),
        ("tcp://[fe80::1%eth0]:99", Endpoint("tcp", host="fe80::1%eth0", port=99), "[fe80::1]:99"),
        ("http://h", Endpoint("http", host="h", port=80), "h"),
        ("http://h:2375/a/b%20c/", Endpoint("http", host="h", port=2375, prefix="/a/b%20c"), "h:2375"),
        ("https://My-Host_1.x", Endpoint("https", host="My-Host_1.x", port=443, tls=Tls()), "My-Host_1.x"),
        ("https://h:8443/p", Endpoint("https", host="h", port=8443, prefix="/p", tls=Tls()), "h:8443"),
        ("https://[::1]:443", Endpoint("https", host="::1", port=443, tls=Tls()), "[::1]"),
        ("ssh://h", Endpoint("ssh", host="h"), "localhost"),
        ("ssh://h/", Endpoint("ssh", host="h"), "localhost"),
        ("ssh://u@h:22/run/a b.sock", Endpoint("ssh", "/run/a b.sock", "h", 22, "u"), "localhost"),
        ("ssh://DOMAIN\\u@[::1]", Endpoint("ssh", host="::1", user="DOMAIN\\u"), "localhost"),
        ("ssh://u@corp.example@h", Endpoint("ssh", host="h", user="u@corp.example"), "localhost"),
        ("npipe:////./pipe/docker_engine", Endpoint("npipe", "\\\\.\\pipe\\docker_engine"), "localhost"),
    ],
)  # fmt: skip
def test_addresses(url: str, expected: Endpoint, host_header: str) -> None:
    endpoint = parse_endpoint(url)
    assert endpoint == expected
    assert endpoint.host_header == host_header
    assert endpoint.kind == ("tcp" if endpoint.scheme.startswith("http") else endpoint.scheme)
    assert parse_endpoint(str(endpoint)) == endpoint


def test_default_ports_with_tls() -> None:
    assert str(parse_endpoint("tcp://h", tls=True)) == "tcp://h:2376"
    assert str(parse_endpoint("http://h", tls=True)) == "https://h:443", "what is secured says so"
    assert parse_endpoint("tcp://h:443", tls=True).host_header == "h"
    assert parse_endpoint("tcp://h:80", tls=True).host_header == "h:80"


@pytest.mark.parametrize(
    "url",
    [
        *("", "h", "h:2375", "docker.sock", "ftp://h", "TCP://h", "unix", "unix:/s", "fd://", "fd://3", "://h"),
        *("unix://", "unix://s", "unix://./s", "unix:///s\0", "/s\n", "tcp://h\r\nX: y", "tcp://h\t"),
        *("tcp://", "tcp://:2375", "tcp://h:", "tcp://h:0", "tcp://h:65536", "tcp://h:-1", "tcp://h:1e3", "tcp://h:٣"),
        *("tcp://h:1:2", "tcp://::1", "tcp://[::1", "tcp://[::1]x", "tcp://[h]", "tcp://[1::2::3]", "tcp://h h"),
        *("tcp://h?x", "tcp://h/?x", "tcp://h/#x", "tcp://h/a b", "http://h/é", "tcp://u@h", "http://u:p@h", "https://é"),
        *("ssh://", "ssh://@h", "ssh://u:p@h", "ssh://-h", "ssh://-oProxyCommand=x", "ssh://-lx@h", "ssh://u@-h"),
        *("ssh://a b@h", "ssh://u%40c@h"),
        *("tcp://a..b", "tcp://a.b..", "https://" + "a" * 64, "ssh://a..b"),
        *("ssh://$(x)@h", "ssh://`x`@h", "ssh://u;x@h", "ssh://h;x", "ssh://h$x", "ssh://[::1%$(x)]", "ssh://h/a\nb"),
        *("npipe://./pipe/x", "npipe:////other/pipe/x", "npipe:////./pipe/", "npipe:////./pipe/a/b"),
        "npipe:////./pipe/a\\b",
    ],
)  # fmt: skip
def test_refused_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="^DOCKER_HOST: "):
        parse_endpoint(url, "DOCKER_HOST")


def test_unknown_schemes_are_told_the_known_ones() -> None:
    with pytest.raises(ValueError) as caught:
        parse_endpoint("ftp://h")
    for scheme in ("unix://", "tcp://", "http://", "https://", "ssh://", "npipe://"):
        assert scheme in str(caught.value)
    with pytest.raises(ValueError, match="for a daemon to listen on"):
        parse_endpoint("fd://")


@pytest.mark.parametrize(
    "url",
    [
        *("ssh://u:hidden@h", "tcp://u:hidden@h", "ssh://u:hid/hidden@h", "ssh://u:?hidden@h", "ssh://u:#hidden@h"),
        *("ftp://u:hidden@h", "u:hidden@h", "tcp://h?token=hidden", "ssh://u:hidden@h\n", "ssh://u:\nhidden@h", "https://hidden@h/"),
    ],
)  # fmt: skip
def test_errors_hold_no_secret(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_endpoint(url)
    assert "hidden" not in str(caught.value)


def failing(cause: BaseException) -> ConnectionLostError:
    error = ConnectionLostError("cannot connect")
    error.__cause__ = cause
    return error


def test_attempts() -> None:
    docker, podman, other = (Endpoint("unix", f"/{name}", origin=f"{name}'s default") for name in ("d", "p", "o"))
    attempts = Attempts(ConnectionLostError, OSError)
    for endpoint, error in (
        (docker, failing(FileNotFoundError(2, "No such file or directory"))),
        (podman, TimeoutError("no connection within 3 s")),
        (other, ConnectionResetError()),
    ):
        with attempts.at(endpoint):
            raise error
    assert isinstance(attempts.failure(), ConnectionLostError)
    assert str(attempts.failure()) == (
        "no engine answers; tried unix:///d (d's default): No such file or directory; "
        "unix:///p (p's default): no connection within 3 s; unix:///o (o's default): ConnectionResetError"
    )
    with pytest.raises(ValueError, match="something else"), attempts.at(docker):
        raise ValueError("something else")


def test_one_attempt() -> None:
    attempts, error = Attempts(OSError), TimeoutError("late")
    with attempts.at(Endpoint("unix", "/d")):
        raise error
    assert attempts.failure() is error


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({}, None),
        ({"DOCKER_TLS_VERIFY": ""}, None),
        ({"DOCKER_TLS_VERIFY": "1"}, ".docker"),
        ({"DOCKER_TLS_VERIFY": "0"}, ".docker"),  # not empty, as in Docker
        ({"DOCKER_TLS_VERIFY": "1", "DOCKER_CONFIG": "conf"}, "conf"),
        ({"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "certs"}, "certs"),
        ({"DOCKER_CERT_PATH": "certs"}, "certs"),
    ],
)
@pytest.mark.parametrize("scheme", ["tcp", "http", "https"])
def test_tls_of_the_environment(tmp_path: Path, environ: dict[str, str], directory: str | None, scheme: str) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "cert.pem").touch()
    environ = {name: str(tmp_path / value) if "_C" in name else value for name, value in environ.items()}
    url = f"{scheme}://h:1"
    for arguments, variables in (((url,), environ), ((), {**environ, "DOCKER_HOST": url})):
        [endpoint] = find_endpoints(*arguments, environ=variables, home=tmp_path)
        if directory is None:
            assert endpoint.tls == (Tls() if scheme == "https" else None)
        else:
            named = tmp_path / directory
            has_pair = directory == "certs"
            cert, key = (named / "cert.pem", named / "key.pem") if has_pair else (None, None)
            assert endpoint.tls == Tls(named / "ca.pem", cert, key)
            [same] = find_endpoints(*arguments, tls=True, environ=variables, home=tmp_path)
            assert same == endpoint


@posix_only
def test_tls_is_for_tcp(tmp_path: Path) -> None:
    environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}
    for url in ("unix:///s", "ssh://h", "npipe:////./pipe/x"):
        [endpoint] = find_endpoints(url, environ=environ, home=tmp_path)
        assert endpoint.tls is None and endpoint.ssl_context() is None
        assert find(tmp_path, url, tls=False) == [url]
        for tls in (True, "/certs", Path("/certs"), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
            with pytest.raises(ValueError, match="TLS is for tcp:// and https://, not for"):
                find(tmp_path, url, tls=tls)
    with pytest.raises(ValueError, match="TLS is for tcp:// and https://, not for unix://"):
        find(tmp_path, tls=True)


def test_tls_argument(tmp_path: Path) -> None:
    environ = {"DOCKER_CERT_PATH": "/certs"}

    def choose(tls: Any, url: str = "tcp://h", environ: dict[str, str] = environ) -> Tls | None:
        return find_endpoints(url, tls=tls, environ=environ, home=tmp_path)[0].tls

    assert choose(None) == Tls.in_directory("/certs")
    assert choose(True) == Tls.in_directory("/certs")
    assert choose(True, environ={}) == Tls()
    assert choose(False) is None
    assert choose(False, "http://h") is None
    assert choose("/other") == choose(Path("/other")) == Tls.in_directory("/other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    chosen = choose(context)
    assert chosen is not None and chosen.ssl_context is context
    with pytest.raises(ValueError, match="https:// without TLS"):
        choose(False, "https://h")
    for wrong in (1, object(), b"x"):
        with pytest.raises(TypeError, match="tls must be"):
            choose(wrong)


def test_contexts_verify(certificates: Path) -> None:
    for tls in (Tls(), Tls.in_directory(certificates)):
        context = tls.ssl_context
        assert Endpoint("tcp", tls=tls).ssl_context() is context
        assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert [cert["subject"] for cert in context.get_ca_certs()] == [((("commonName", "muxframe test authority"),),)]
    context = Tls(verify=False).ssl_context
    assert context.verify_mode == ssl.CERT_NONE and not context.check_hostname


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
def test_missing_and_broken_files_are_named(certificates: Path, tmp_path: Path, name: str) -> None:
    for each in ("ca.pem", "cert.pem", "key.pem"):
        shutil.copy(certificates / each, tmp_path)
    path = tmp_path / name
    path.write_text("no certificate")
    with pytest.raises(ValueError) as broken:
        _ = Tls.in_directory(tmp_path).ssl_context
    assert str(path) in str(broken.value)
    path.unlink()
    with pytest.raises(FileNotFoundError) as missing:
        _ = Tls.in_directory(tmp_path).ssl_context
    assert str(missing.value.filename) == str(path)
    path.mkdir()
    with pytest.raises(OSError) as unreadable:
        _ = Tls.in_directory(tmp_path).ssl_context
    assert str(path) in str(unreadable.value)


def test_encrypted_key_asks_nobody(certificates: Path, tmp_path: Path) -> None:
    for each in ("ca.pem", "cert.pem"):
        shutil.copy(certificates / each, tmp_path)
    encrypt = ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", f"{certificates}/key.pem"]
    subprocess.run([*encrypt, "-out", f"{tmp_path}/key.pem"], check=True, capture_output=True)
    with pytest.raises(ValueError, match="encrypted"):
        _ = Tls.in_directory(tmp_path).ssl_context


def test_ssl_is_imported_only_for_tls() -> None:
    code = """
import sys, muxframe.engine.dial, muxframe.engine.endpoint as e
assert e.find_endpoints("tcp://h", environ={})[0].ssl_context() is None
assert "ssl" not in sys.modules and "asyncio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
