"""Where an engine is, and how it is reached.

`find_endpoints` answers from its arguments, the environment and Docker's configuration files, in the order of the
docker command: a url, a named context, DOCKER_HOST, DOCKER_CONTEXT, the current context, the usual sockets. Nothing
is connected here. Addresses come from files and variables that others may have written: each part is checked before
anything is done with it, so that none of it can become an option of ssh or a line of HTTP.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, cast

from ..errors import ConnectionLostError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

    #: None: as the environment, the context or the scheme says. True: verify, with the certificates that the
    #: environment or the context names, or the system's. False: no TLS. A directory with ca.pem, cert.pem and key.pem.
    AnyTls = Union[bool, str, os.PathLike[str], ssl.SSLContext, None]

Kind = Literal["unix", "tcp", "ssh", "npipe"]

SCHEMES = ("unix", "tcp", "http", "https", "ssh", "npipe")

# [user@]host[:port]; an IPv6 address is in brackets. A host may not begin like an option.
AUTHORITY = re.compile(
    r"(?:(?P<user>.*)@)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%(?:25)?[A-Za-z0-9._~-]+)?)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+@\\-]*")
PREFIX = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")  # the path of a url, escaped where it must be
PIPE = re.compile(r"//\./pipe/[^/\\]+")


@dataclass(frozen=True)
class Tls:
    """How a TCP connection is secured. Certificates and host names are verified unless `verify` is False.

    Attributes:
        ca: file of the authorities to trust; None trusts the system's.
        cert: file of the client's certificate, or None.
        key: file of its private key; not encrypted.
        verify: False accepts any certificate of any host.
        context: a context made elsewhere; the rest is of no account then.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True
    context: ssl.SSLContext | None = None

    @classmethod
    def in_directory(cls, directory: str | os.PathLike[str], *, verify: bool = True) -> Tls:
        """Name ca.pem, which must be there when it is used, and cert.pem with key.pem if one of them is there."""
        ca, cert, key = (Path(directory, f"{name}.pem") for name in ("ca", "cert", "key"))
        has_pair = cert.exists() or key.exists()
        return cls(ca, cert if has_pair else None, key if has_pair else None, verify)

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """The context for these settings; files are read once.

        Raises:
            OSError: a file cannot be read; `exc.filename` says which.
            ValueError: a file is not what it should be.
        """
        import ssl

        if self.context is not None:
            return self.context
        for path in filter(None, (self.ca, self.cert, self.key)):
            with path.open("rb"):  # ssl's own errors do not name the file
                pass
        # Not create_default_context: from 3.13 on it refuses certificates made as Docker's manual says.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is None:
            context.load_default_certs()
        else:
            try:
                context.load_verify_locations(self.ca)
            except ssl.SSLError as error:
                raise ValueError(f"{self.ca}: not a file of PEM certificates") from error
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
            except ssl.SSLError as error:
                raise ValueError(f"{self.cert} and {self.key}: not a PEM certificate and its key") from error
        return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted: give an ssl.SSLContext that has loaded it")  # never ask a terminal


@dataclass(frozen=True)
class Endpoint:
    """One address of an engine. `str()` of it is its url, which holds no secret.

    Attributes:
        scheme: as in the url; https wherever http is secured.
        path: of the socket (unix), of the pipe (npipe), of the far side's socket (ssh; empty for its default).
        host: name or address, IPv6 without brackets.
        port: TCP port; None where ssh is to decide.
        user: for ssh; empty where ssh is to decide.
        prefix: what comes before every request's path: empty or "/some/path".
        tls: how the connection is secured; None where it is not.
        origin: where the address comes from, for messages: "DOCKER_HOST", "context 'x'".
    """

    scheme: str
    path: str = ""
    host: str = ""
    port: int | None = None
    user: str = ""
    prefix: str = ""
    tls: Tls | None = None
    origin: str = "host argument"

    @property
    def kind(self) -> Kind:
        """What is to be connected."""
        return "tcp" if self.scheme in ("http", "https") else cast("Kind", self.scheme)

    @property
    def server_hostname(self) -> str:
        """Whom the server's certificate must name."""
        return self.host.partition("%")[0]  # the zone of a link-local address means nothing to the peer

    @property
    def host_header(self) -> str:
        """What HTTP's Host says: the address without the scheme's usual port."""
        if self.kind != "tcp":
            return "localhost"
        name = _bracketed(self.server_hostname)
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix://{self.path}"
        if self.kind == "npipe":
            return "npipe://" + self.path.replace("\\", "/")
        user = f"{self.user}@" if self.user else ""
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{user}{_bracketed(self.host)}{port}{self.path}{self.prefix}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the context to connect with; None without TLS. Raises as `Tls.ssl_context`."""
        return None if self.tls is None else self.tls.ssl_context


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# --- finding ---------------------------------------------------------------------------------------------------------


def find_endpoints(
    host: str | None = None,
    *,
    context: str | None = None,
    tls: AnyTls = None,
    environ: Mapping[str, str] = os.environ,
    home: str | os.PathLike[str] | None = None,
) -> list[Endpoint]:
    """Say where the engine is.

    The first that is there decides: host, context, DOCKER_HOST, DOCKER_CONTEXT, the current context in Docker's
    config.json. The context "default" means DOCKER_HOST or the usual sockets.

    Args:
        host: unix://, tcp://, http://, https://, ssh:// or npipe:// url, or the absolute path of a socket.
        context: name of a context in Docker's configuration directory.
        tls: see AnyTls.
        environ: the environment.
        home: the user's home directory.

    Returns:
        One endpoint; or, where nothing names one, the usual sockets: Docker's, Podman's, rootful before rootless. They
        are to be tried in this order.

    Raises:
        ValueError: an address is not usable; there is no such context; a file of the configuration is broken; TLS was
            asked for where there is none.
        OSError: a file of the configuration cannot be read.
    """
    home = Path(home or os.path.expanduser("~")).absolute()  # Path.home() fails where there is none
    config = _config_directory(environ, home)
    ambient = _environment_tls(environ, config)
    if host is not None:
        return [parse_endpoint(host, "host argument", tls, ambient)]
    if context is None and not environ.get("DOCKER_HOST"):
        context = environ.get("DOCKER_CONTEXT") or _setting(config, "currentContext")
    if context is not None and context != "default":
        return [_read_context(context, config, tls)]
    if environ.get("DOCKER_HOST"):
        return [parse_endpoint(environ["DOCKER_HOST"], "DOCKER_HOST", tls, ambient)]
    return [parse_endpoint(url, origin, tls, ambient) for url, origin in _usual_urls(environ, home).items()]


class Attempts:
    """Endpoints that are tried, one after the other.

    Args:
        failures: what stands for another endpoint to be tried.
    """

    def __init__(self, *failures: type[Exception]) -> None:
        self._kinds = failures
        self._failures: list[tuple[Endpoint, Exception]] = []

    @contextmanager
    def at(self, endpoint: Endpoint) -> Iterator[None]:
        """Around an attempt: go on behind it if it fails."""
        try:
            yield
        except self._kinds as error:
            self._failures.append((endpoint, error))

    def failure(self) -> Exception:
        """Return what is to be raised where all have failed: the reason, or the list of them."""
        if len(self._failures) == 1:
            return self._failures[0][1]
        tried = [f"{endpoint} ({endpoint.origin}): {reason_of(error)}" for endpoint, error in self._failures]
        return ConnectionLostError(f"no engine answers; tried {'; '.join(tried)}")


def reason_of(error: BaseException) -> str:
    """Return the reason alone, without what a ConnectionLostError adds to its cause."""
    if isinstance(error, ConnectionLostError) and error.__cause__ is not None:
        error = error.__cause__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _usual_urls(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return urls with their origins, in the order in which they are to be tried."""
    docker, podman = "Docker's default", "Podman's default"
    if sys.platform == "win32":
        return {"npipe:////./pipe/docker_engine": docker, "npipe:////./pipe/podman-machine-default": podman}
    runtime, user = environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}"
    runtime = runtime if runtime.startswith("/") else user
    return {
        "unix:///var/run/docker.sock": docker,
        f"unix://{runtime}/docker.sock": docker,
        f"unix://{home}/.docker/run/docker.sock": docker,
        "unix:///run/podman/podman.sock": podman,
        f"unix://{runtime}/podman/podman.sock": podman,
        f"unix://{user}/podman/podman.sock": podman,
    }


# --- Docker's configuration ------------------------------------------------------------------------------------------


def detach_keys(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the detach keys that Docker's configuration names, if it does.

    Raises:
        ValueError, OSError: as `find_endpoints`.
    """
    return _setting(_config_directory(environ, Path(os.path.expanduser("~"))), "detachKeys")


def _config_directory(environ: Mapping[str, str], home: Path) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or home / ".docker")


def _setting(config: Path, name: str) -> str | None:
    """Return what config.json says, if it says something."""
    try:
        value = _read_json(config / "config.json").get(name) or None
    except FileNotFoundError:
        return None
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{config / 'config.json'}: {name} is not a string")
    return value


def _read_context(name: str, config: Path, tls: AnyTls) -> Endpoint:
    """Find a context where Docker keeps it: under the hash of its name."""
    origin = f"context {name!r}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts" / "meta" / digest / "meta.json"
    try:
        endpoints = _read_json(meta).get("Endpoints")
    except FileNotFoundError:
        raise ValueError(f"there is no {origin} in {meta.parent.parent}") from None
    docker = endpoints.get("docker") if isinstance(endpoints, dict) else None
    url = docker.get("Host") if isinstance(docker, dict) else None
    if not isinstance(docker, dict) or not isinstance(url, str):
        raise ValueError(f"{meta}: {origin} has no docker endpoint")
    verify = docker.get("SkipTLSVerify") is not True
    own = Tls.in_directory(config / "contexts" / "tls" / digest / "docker", verify=verify)
    if own.ca is not None and not own.ca.exists():
        own = replace(own, ca=None)  # unlike elsewhere, each of the files may be missing
    return parse_endpoint(url, origin, tls, None if own == Tls() else own)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a JSON object")
    return content


# --- TLS -------------------------------------------------------------------------------------------------------------


def _environment_tls(environ: Mapping[str, str], config: Path) -> Tls | None:
    """Return what DOCKER_CERT_PATH and DOCKER_TLS_VERIFY ask for. Unlike Docker, the former alone verifies, too."""
    if environ.get("DOCKER_CERT_PATH"):
        return Tls.in_directory(environ["DOCKER_CERT_PATH"])
    return Tls.in_directory(config) if environ.get("DOCKER_TLS_VERIFY") else None


def _choose_tls(scheme: str, asked: AnyTls, ambient: Tls | None) -> Tls | None:
    """Decide between the argument, the environment or context (ambient), and the scheme."""
    if scheme not in ("tcp", "http", "https"):
        if asked is not None and asked is not False:
            raise ValueError(f"TLS is for tcp:// and https://, not for {scheme}://")
        return None
    if asked is None:
        return Tls() if ambient is None and scheme == "https" else ambient
    if asked is False:
        if scheme == "https":
            raise ValueError("https:// without TLS")
        return None
    if asked is True:
        return replace(ambient or Tls(), verify=True)
    if isinstance(asked, (str, os.PathLike)):
        return Tls.in_directory(asked)
    ssl = sys.modules.get("ssl")  # whoever has a context has imported it
    if ssl is None or not isinstance(asked, ssl.SSLContext):
        raise TypeError(f"tls must be a bool, a directory or an ssl.SSLContext, not {type(asked).__name__}")
    return Tls(context=asked)


# --- addresses -------------------------------------------------------------------------------------------------------


def parse_endpoint(url: str, origin: str = "host argument", tls: AnyTls = None, ambient: Tls | None = None) -> Endpoint:
    """Take an address apart.

    Args:
        url: as for `find_endpoints`.
        origin: where it comes from, for messages.
        tls: what the caller asks for.
        ambient: what the environment or the context says, if the caller does not.

    Raises:
        ValueError: it is not one of the known forms, or goes against tls. Nothing before an "@" is repeated.
    """
    scheme, separator, rest = url.partition("://")
    if url.startswith("/"):
        scheme, rest = "unix", url
    elif scheme == "fd" and separator:
        raise ValueError(f"{origin}: fd:// is an address for a daemon to listen on, not for a client")
    elif scheme not in SCHEMES or not separator:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise ValueError(f"{origin}: {_harmless(url)!r} is none of {known} or an absolute path")
    if not url.isprintable():
        raise ValueError(f"{origin}: {_harmless(url)!r} contains control characters")
    try:
        if scheme in ("unix", "npipe"):
            return Endpoint(scheme, _local_path(scheme, rest), tls=_choose_tls(scheme, tls, ambient), origin=origin)
        host, port, user, path = _split_authority(rest)
        chosen = _choose_tls(scheme, tls, ambient)
        if scheme == "ssh":
            return Endpoint(scheme, path, host, port, _check_user(user), origin=origin)
        if user is not None:
            raise ValueError("a user name is for ssh:// only")
        if not PREFIX.fullmatch(path):
            raise ValueError("not a path that can be put before others")
    except ValueError as error:
        raise ValueError(f"{origin}: {_harmless(url)!r}: {error}") from None
    if port is None:
        port = {"tcp": 2376 if chosen else 2375, "http": 443 if chosen else 80, "https": 443}[scheme]
    scheme = "https" if scheme == "http" and chosen else scheme
    return Endpoint(scheme, "", host, port, prefix=path, tls=chosen, origin=origin)


def _local_path(scheme: str, path: str) -> str:
    if scheme == "npipe":
        if not PIPE.fullmatch(path):
            raise ValueError("a pipe's address looks like npipe:////./pipe/docker_engine")
        return path.replace("/", "\\")
    if not path.startswith("/"):
        raise ValueError("the socket's path must be absolute")
    return path


def _split_authority(rest: str) -> tuple[str, int | None, str | None, str]:
    """Return host, port, user and path, the latter without a slash at its end."""
    authority, slash, path = rest.partition("/")
    match = AUTHORITY.fullmatch(authority)
    if match is None:
        raise ValueError("the address must be host, host:port or [IPv6 address]:port")
    host = match["host"] or str(IPv6Address(match["ipv6"].replace("%25", "%", 1)))
    if match["host"] and not all(0 < len(label) < 64 for label in host.removesuffix(".").split(".")):
        raise ValueError("a host's name has parts of 1 to 63 characters between its dots")
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"port {port} is not between 1 and 65535")
    return host, port, match["user"], (slash + path).rstrip("/")


def _check_user(user: str | None) -> str:
    if user is None:
        return ""
    if ":" in user:
        raise ValueError("a password does not belong into the address: ssh asks for it")
    if not USER.fullmatch(user):
        raise ValueError("not a user name that ssh can be given")
    return user


def _harmless(url: str) -> str:
    """Return the url without what may be a secret: all before an "@", and a query."""
    return re.sub(r"^(\w+://)?.*@", r"\1...@", url, flags=re.DOTALL).partition("?")[0].partition("#")[0]
