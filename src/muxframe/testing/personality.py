"""What differs between engines: versions, headers, content types, and how they say no.

Each line is what a running engine was seen to do: Docker 20.10, 26.1 and 28.5, Podman 4.3, 5.4 and 5.8.
"""

from __future__ import annotations

import json
import re
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
        is_bare: whether it comes without the engine's own headers.
    """

    def __init__(self, status: int, message: str, cause: str = "", *, is_bare: bool = False) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.cause: str = cause or message
        self.is_bare = is_bare


def version_tuple(version: str) -> tuple[int, ...]:
    """Turn "1.41" into (1, 41), and "20.10.24+dfsg1" into (20, 10, 24)."""
    found = re.match(r"\d+(\.\d+)*", version)
    if found is None:
        raise ValueError(f"not a version: {version!r}")
    return tuple(int(part) for part in found[0].split("."))


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
    def is_new(self) -> bool:
        """Whether it speaks 1.42, which changed much: content types, ConsoleSize, error texts."""
        return self.api >= (1, 42)

    @property
    def is_podman_4(self) -> bool:
        """Whether it has the defects of Podman 4."""
        return not self.is_docker and self.server < (5,)

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
            new = {"Builder-Version": "2", "Swarm": "inactive"} if self.is_new else {}
            return {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", **new}
        headers = {
            "Builder-Version": "",
            "Buildkit-Version": "",
            "Cache-Control": "no-cache",
            "Docker-Experimental": "true",
            "Libpod-Buildah-Version": "1.28.2" if self.is_podman_4 else "1.39.3",
            "Pragma": "no-cache",
        }
        return headers if self.is_podman_4 else {**headers, "Ostype": "linux"}

    def upgrade(self, request: Request) -> str | None:
        """Return the protocol a request is upgraded to, or None."""
        wanted = request.headers.get("upgrade")
        if self.is_docker:
            return "tcp" if wanted else None
        return wanted if wanted and request.headers.get("connection", "").lower() == "upgrade" else None

    def stream_type(self, request: Request, *, tty: bool, upgraded: bool) -> str:
        """Return the Content-Type of attach and exec start. It is RAW for framed streams too, more often than not."""
        if self.is_docker:
            is_truthful = upgraded and self._speaks_142(request)
        else:  # whatever version it says it has: what the request says
            is_truthful = not self.is_podman_4 and version_tuple(request.version or "1.41") >= (1, 42)
        return MULTIPLEXED if is_truthful and not tty else RAW

    def logs_type(self, request: Request, *, tty: bool) -> str | None:
        """Return the Content-Type of logs."""
        if not self.is_docker:
            sniffed = PLAIN if tty else "application/octet-stream"
            return sniffed if self.is_podman_4 else None
        if not self.is_new:
            return None
        return MULTIPLEXED if self._speaks_142(request) and not tty else RAW

    def _speaks_142(self, request: Request) -> bool:
        return self.is_new and version_tuple(request.version or self.api_version) >= (1, 42)

    # --- errors -------------------------------------------------------------------------------------------------------

    def error_body(self, error: RefusedError) -> bytes:
        """Return the JSON that goes with an error."""
        if self.is_docker:
            return dump({"message": error.message})
        body = dump({"cause": error.cause, "message": error.message, "response": error.status})
        for character in b"&<>":
            body = body.replace(bytes([character]), b"\\u%04x" % character)
        return body

    def choose_error(self, docker: tuple[int, str], podman: tuple[int, str, str]) -> RefusedError:
        """Return an error: Docker's (status, message), or Podman's (status, message, cause)."""
        status, message, cause = podman
        return RefusedError(*docker) if self.is_docker else RefusedError(status, f"{message}: {cause}", cause)

    def _improper(self, docker: tuple[int, str], podman: str, podman_status: int = 500) -> RefusedError:
        return self.choose_error(docker, (podman_status, podman, "container state improper"))

    def _case(self, text: str) -> str:
        """Write a message as versions do: those from 24 on begin in lower case."""
        return text[0].lower() + text[1:] if self.server >= (24,) else text

    def check_version(self, request: Request) -> RefusedError | None:
        """Return what Docker says to a version it does not speak. Podman speaks all."""
        if request.version is None or not self.is_docker:
            return None
        asked = version_tuple(request.version)
        text = f"client version {request.version} is too"
        if asked > self.api:
            return RefusedError(400, f"{text} new. Maximum supported API version is {self.api_version}")
        if asked < version_tuple(self.min_api_version):
            advice = "please upgrade your client to a newer version"
            return RefusedError(400, f"{text} old. Minimum supported API version is {self.min_api_version}, {advice}")
        return None

    def says_in_text(self, version_error: RefusedError) -> bool:
        """Say whether the error of `check_version` is text in place of JSON."""
        return "too old" in version_error.message and not (24,) <= self.server < (28,)

    def no_container(self, name: str, what: str = "name or ID") -> RefusedError:
        """There is no such container."""
        podman = (404, f'no container with {what} "{name}" found', "no such container")
        return self.choose_error((404, f"No such container: {name}"), podman)

    def no_container_to_remove(self, name: str) -> RefusedError:
        """There is none to remove."""
        return self.no_container(name, "name or ID" if self.is_podman_4 else "ID or name")

    def name_taken(self, name: str, id: str) -> RefusedError:
        """The name of a container to be created is another's."""
        docker = f'Conflict. The container name "/{name}" is already in use by container "{id}".'
        podman = f'container create: creating container storage: the container name "{name}" is already in use by {id}.'
        advice = "to be able to reuse that name"
        return self.choose_error(
            (409, f"{docker} You have to remove (or rename) that container {advice}."),
            (500, f"{podman} You have to remove that container {advice}", "that name is already in use"),
        )

    def not_running(self, id: str, podman: str, *, podman_status: int = 500) -> RefusedError:
        """The container does not run."""
        return self._improper((409, self._case(f"Container {id} is not running")), podman, podman_status)

    def not_running_at_kill(self, name: str, id: str, state: str) -> RefusedError:
        """There is nothing to kill."""
        docker = f"{self._case('Cannot kill container')}: {name}: {self._case('Container')} {id} is not running"
        podman = f"can only kill running containers. {id} is in state {state}"
        return self._improper((409, docker), podman, 500 if self.is_podman_4 else 409)

    def bad_signal(self, name: str, signal: str) -> RefusedError:
        """There is no such signal."""
        if not self.is_docker:
            return RefusedError(500, f"invalid signal: {signal}")
        new = f"cannot kill container: {name}: invalid signal: {signal}"
        return RefusedError(400, new if self.server >= (24,) else f"Invalid signal: {signal}")

    def paused_at_start(self, id: str) -> RefusedError:
        """A paused container cannot be started."""
        docker = "cannot start a paused container, try unpause instead"
        return self._improper((409, docker), f"container {id} must be in Created or Stopped state to be started")

    def paused_at_attach(self, name: str) -> RefusedError:
        """A paused container cannot be attached to."""
        docker = f"container {name} is paused, unpause the container before attach"
        podman = "can only attach to created or running containers - currently in state paused"
        return self._improper((409, docker), podman)

    def paused_at_exec(self, name: str, id: str) -> RefusedError:
        """Nothing can be run in a paused container."""
        docker = f"Container {name} is paused, unpause the container before exec"
        podman = f"cannot create exec session as container {id} is paused"
        return RefusedError(409, docker if self.is_docker else podman)

    def running_at_remove(self, name: str, id: str) -> RefusedError:
        """A running container is not removed."""
        docker = f"You cannot remove a running container {id}. Stop the container before attempting removal"
        if self.server >= (24,):
            docker = f'cannot remove container "/{name}": container is running: stop the container before removing'
        podman = f"cannot remove container {id} as it is running - running or paused containers cannot be removed"
        return self._improper((409, f"{docker} or force remove"), f"{podman} without force")

    def check_condition(self, condition: str) -> None:
        """Refuse an unknown condition of wait; old ones take it for not-running."""
        if self.is_new or not self.is_docker:
            podman = f"failed to parse query parameter 'condition': \"{condition}\""
            raise self.choose_error(
                (400, f'invalid condition: "{condition}"'), (400, podman, "not a valid docker condition")
            )

    def wait_document(self, exit_code: int, *, is_removed: bool) -> dict[str, object]:
        """Return what wait answers. Podman 4 has forgotten the exit code of what is removed."""
        if not self.is_docker:
            return {"StatusCode": 0 if is_removed and self.is_podman_4 else exit_code, "Error": None}
        return {"StatusCode": exit_code} if self.is_new else {"Error": None, "StatusCode": exit_code}

    def bad_size(self, target: str, name: str, text: str) -> RefusedError:
        """A height or width is no number."""
        podman = (400, f"failed to parse parameters for {target}", f'schema: error converting value for "{name}"')
        return self.choose_error((400, f'strconv.Atoi: parsing "{text}": invalid syntax'), podman)

    def bad_keys(self, keys: str, key: str) -> RefusedError:
        """There are no such detach keys."""
        docker = (400, f"Invalid detach keys ({keys}) provided")
        return self.choose_error(docker, (500, "invalid detach keys", f"Unknown character: '{key}'"))

    def no_stream(self, target: str) -> RefusedError:
        """The logs of neither stream."""
        docker = "Bad parameters: you must choose at least one stream"
        podman = f"Bad Request: you must choose at least one stream for {target}"
        return RefusedError(400, docker if self.is_docker else podman)

    def bad_time(self, name: str, text: str) -> RefusedError:
        """The since or until of logs is none."""
        podman = f"failed to parse query parameter '{name}': \"{text}\""
        return self.choose_error(
            (500, f'strconv.ParseInt: parsing "{text}": invalid syntax'),
            (400, podman, "unable to interpret time value"),
        )

    def bad_tail(self, text: str) -> RefusedError:
        """The tail of logs is no number; Docker takes it for all."""
        problem = f"failed to parse query parameter 'tail': \"{text}\": strconv.ParseInt: parsing \"{text}\""
        return RefusedError(400, f"{problem}: invalid syntax", "invalid syntax")

    def no_exec(self, id: str) -> RefusedError:
        """There is no such exec."""
        podman = (404, f"no exec session with ID {id} found", "no such exec session")
        return self.choose_error((404, f"No such exec instance: {id}"), podman)

    def no_command(self) -> RefusedError:
        """An exec of nothing."""
        podman = (500, "must provide a non-empty command to start an exec session", "invalid argument")
        return self.choose_error((400, "No exec command specified"), podman)

    def exec_started(self, container_id: str, id: str, *, is_running: bool = False) -> RefusedError:
        """An exec is started twice. Docker says so in the stream."""
        docker = f"Error: {'Exec' if self.server < (28,) else 'exec'} command {id} has already run\r\n"
        podman = f"can only start created exec sessions, while container {container_id} session {id} state is"
        state = "running" if is_running else "stopped"
        return self.choose_error((409, docker), (500, f'{podman} "{state}"', "exec session state improper"))

    def exec_not_ready(self, container_id: str, id: str) -> RefusedError:
        """The terminal of an exec that has not been started gets no size."""
        podman = f"cannot resize session: cannot resize container {container_id} exec session {id} as it is not running"
        docker = (500, "timeout waiting for exec session ready")
        return self.choose_error(docker, (500, podman, "exec session state improper"))

    def bad_content_type(self, content_type: str) -> RefusedError:
        """An exec is started with a body that is not said to be JSON."""
        old = f"Content-Type specified ({content_type}) must be 'application/json'"
        new = f"malformed Content-Type header ({content_type}): mime: no media type"
        return RefusedError(400, new if self.is_new else old)

    # --- what comes in the stream -------------------------------------------------------------------------------------

    def command_not_found(self, command: str) -> tuple[int, str, int]:
        """Return what the stream of an exec says whose command is not there: stream, message, and its exit code."""
        missing = f'exec: "{command}": executable file not found in $PATH'
        failed = f"exec failed: unable to start container process: {missing}"
        if self.is_docker:
            return 1, f"OCI runtime exec failed: {failed}: unknown\r\n", 126 if self.server < (28,) else 127
        attempt = "OCI runtime attempted to invoke a command that was not found"
        return 2, f"Error: runc: {failed}: {attempt}\n", 127

    def detach_farewell(self) -> bytes:
        """Return what a client gets that leaves by its detach keys."""
        return b"Error: detached from container\n" if self.is_podman_4 else b""


def dump(document: object) -> bytes:
    """Write JSON as Go does."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
