"""What differs between engines: versions, headers, content types, and how they say no.

Each line is what a running engine was seen to do: Docker 20.10, 26.1 and 28.5, Podman 4.3, 5.4 and 5.8.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .answers import Request

Flavor = Literal["docker", "podman"]

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
JSON = "application/json"
PLAIN = "text/plain; charset=utf-8"

#: The server that goes with an API version: that of the nearest version at or below it.
SERVERS = {
    "docker": {"1.24": "1.12.6", "1.41": "20.10.24", "1.42": "23.0.6", "1.45": "26.1.5", "1.51": "28.5.2"},
    "podman": {"1.24": "4.3.1", "1.41": "5.4.2", "1.44": "5.8.6"},
}
DEFAULT_API = {"docker": "1.45", "podman": "1.41"}


class RefusedError(Exception):
    """The engine says no.

    Attributes:
        status: of the answer.
        message: for the client.
        cause: what Podman adds.
    """

    def __init__(self, status: int, message: str, cause: str = "") -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.cause = cause or message


def version_tuple(version: str) -> tuple[int, ...]:
    """Turn "1.41" into (1, 41)."""
    return tuple(int(part) for part in version.split("."))


@dataclass(frozen=True)
class Personality:
    """Which engine this is.

    Attributes:
        flavor: "docker" or "podman".
        api_version: the newest API version it speaks.
        server_version: its own version.
    """

    flavor: Flavor
    api_version: str
    server_version: str

    @classmethod
    def choose(cls, flavor: Flavor, api_version: str | None, server_version: str | None) -> Personality:
        """Fill in what is not said.

        Raises:
            ValueError: there is no such flavor or version.
        """
        if flavor not in SERVERS:
            raise ValueError(f"flavor must be 'docker' or 'podman', not {flavor!r}")
        if api_version is None:
            api_version = DEFAULT_API[flavor]
            if flavor == "podman" and server_version and version_tuple(server_version) >= (5, 8):
                api_version = "1.44"
        wanted = version_tuple(api_version)
        if not (1, 24) <= wanted <= (1, 51):
            raise ValueError(f"api_version must be 1.24 to 1.51, not {api_version}")
        if server_version is None:
            server_version = [server for api, server in SERVERS[flavor].items() if version_tuple(api) <= wanted][-1]
        return cls(flavor, api_version, server_version)

    @property
    def is_docker(self) -> bool:
        """Whether this is Docker."""
        return self.flavor == "docker"

    @property
    def api(self) -> tuple[int, ...]:
        """The newest API version."""
        return version_tuple(self.api_version)

    @property
    def server(self) -> tuple[int, ...]:
        """Its own version."""
        return version_tuple(self.server_version)

    @property
    def min_api_version(self) -> str:
        """The oldest API version."""
        return "1.24" if self.api >= (1, 44) or not self.is_docker else "1.12"

    # --- heads -------------------------------------------------------------------------------------------------------

    def headers(self) -> dict[str, str]:
        """Return the headers of ordinary answers."""
        if self.is_docker:
            return {
                "Api-Version": self.api_version,
                "Docker-Experimental": "false",
                "Ostype": "linux",
                "Server": f"Docker/{self.server_version} (linux)",
            }
        return {
            "Api-Version": self.api_version,
            "Libpod-Api-Version": self.server_version,
            "Server": f"Libpod/{self.server_version} (linux)",
            "X-Reference-Id": "0xc000c44000",
        }

    def ping_headers(self) -> dict[str, str]:
        """Return the headers that _ping adds."""
        if self.is_docker:
            new = {"Builder-Version": "2", "Swarm": "inactive"} if self.api >= (1, 42) else {}
            return {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", **new}
        headers = {
            "Builder-Version": "",
            "Buildkit-Version": "",
            "Cache-Control": "no-cache",
            "Docker-Experimental": "true",
            "Libpod-Buildah-Version": "1.39.3" if self.server >= (5,) else "1.28.2",
            "Pragma": "no-cache",
        }
        return {**headers, "Ostype": "linux"} if self.server >= (5,) else headers

    def upgrade(self, request: Request) -> str | None:
        """Return the protocol a request is upgraded to, or None."""
        wanted = request.headers.get("upgrade")
        if self.is_docker:
            return "tcp" if wanted else None
        return wanted if wanted and request.headers.get("connection", "").lower() == "upgrade" else None

    def _speaks_142(self, request: Request) -> bool:
        asked = self.api if request.version is None else version_tuple(request.version)
        return min(asked, self.api) >= (1, 42)

    def stream_type(self, request: Request, *, tty: bool, upgraded: bool) -> str:
        """Return the Content-Type of attach and exec start. It is RAW for framed streams too, more often than not."""
        truthful = self._speaks_142(request) and (upgraded or not self.is_docker)
        return MULTIPLEXED if truthful and not tty else RAW

    def logs_type(self, request: Request, *, tty: bool) -> str | None:
        """Return the Content-Type of logs."""
        if not self.is_docker:
            sniffed = PLAIN if tty else "application/octet-stream"
            return sniffed if self.server < (5,) else None
        if self.api < (1, 42):
            return None
        return MULTIPLEXED if self._speaks_142(request) and not tty else RAW

    # --- errors ------------------------------------------------------------------------------------------------------

    def error_body(self, error: RefusedError) -> bytes:
        """Return the JSON that goes with an error."""
        document: dict[str, object] = {"message": error.message}
        if not self.is_docker:
            document = {"cause": error.cause, "message": error.message, "response": error.status}
        return dump(document)

    def check_version(self, request: Request) -> RefusedError | None:
        """Return what Docker says to a version it does not speak; Podman speaks all."""
        if request.version is None or not self.is_docker:
            return None
        asked = version_tuple(request.version)
        text = f"client version {request.version} is too"
        if asked > self.api:
            return RefusedError(400, f"{text} new. Maximum supported API version is {self.api_version}")
        if asked < version_tuple(self.min_api_version):
            return RefusedError(
                400,
                f"{text} old. Minimum supported API version is {self.min_api_version}, "
                "please upgrade your client to a newer version",
            )
        return None

    def choose_error(self, docker: tuple[int, str], podman: tuple[int, str, str]) -> RefusedError:
        """Return an error: Docker's (status, message), or Podman's (status, message, cause)."""
        status, message, cause = podman
        return RefusedError(*docker) if self.is_docker else RefusedError(status, f"{message}: {cause}", cause)

    def no_container(self, name: str) -> RefusedError:
        """There is no such container."""
        what = "ID or name" if self.server >= (5,) else "name or ID"
        return self.choose_error(
            (404, f"No such container: {name}"),
            (404, f'no container with {what} "{name}" found', "no such container"),
        )

    def no_exec(self, name: str) -> RefusedError:
        """There is no such exec."""
        return self.choose_error(
            (404, f"No such exec instance: {name}"),
            (404, f"no exec session with ID {name} found", "no such exec session"),
        )

    def no_stream(self, request: Request) -> str:
        """Logs of neither stream."""
        if self.is_docker:
            return "Bad parameters: you must choose at least one stream"
        return f"invalid arguments: {request.target}: you must choose at least one stream"

    def _container(self, id: str) -> str:
        return f"{'container' if self.server >= (24,) else 'Container'} {id}"

    def not_running(self, id: str, podman: str, *, podman_status: int = 500, docker: str = "") -> RefusedError:
        """The container does not run."""
        return self.choose_error(
            (409, f"{docker}{self._container(id)} is not running"), (podman_status, podman, "container state improper")
        )


def dump(document: object) -> bytes:
    """Write JSON as Go does."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
