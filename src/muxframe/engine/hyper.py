"""Requests signed as Hyper.sh wants them: HYPER-HMAC-SHA256.

    auth = HyperAuth()
    engine = muxframe.connect(auth.host, api_version="1.23", auth=auth)

A signature covers method, path, query, body and some headers, and is good for five minutes; each request gets its own.
Connection and Upgrade are left out of it, so a hijack is signed like everything else.

Source: Hyper's "Generate API credential" and "Signature"; laid out like AWS's Signature Version 4.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .handshake import Request

__all__ = ["HyperAuth"]

ALGORITHM = "HYPER-HMAC-SHA256"
DEFAULT_REGION = "us-west-1"


class HyperAuth:
    """Signs requests.

    What is not given is looked for: in HYPER_ACCESS and HYPER_SECRET, else in `config.json` of the directory
    HYPER_CONFIG (default: `.hyper` in the home directory), under the cloud whose address fits the region's.

    Args:
        access: the key that tells who asks.
        secret: the key that signs. It is kept, never shown, and not pickled.
        region: where the engine is; None: as the configuration says, else us-west-1.
        environ: the environment.
        clock: tells the seconds since 1970.

    Raises:
        ValueError: there are no credentials, or the configuration is broken.

    Attributes:
        host: the address to connect to.
    """

    def __init__(
        self,
        access: str | None = None,
        secret: str | None = None,
        region: str | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if bool(access) != bool(secret):
            raise ValueError("access and secret come together")
        access = access or environ.get("HYPER_ACCESS")
        secret = secret or environ.get("HYPER_SECRET")
        if not (access and secret):
            access, secret, region = _configured(environ, region)
        self._access: str = access
        self._secret: str = secret
        self._clock = clock
        self.region: str = region or DEFAULT_REGION
        self.host: str = f"https://{self.region}.hyper.sh"

    def __repr__(self) -> str:
        return f"<HyperAuth {self._access} {self.region}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("HyperAuth holds a secret: make another where it is needed")

    def __call__(self, request: Request) -> dict[str, str]:
        """Return the headers that sign a request."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        payload = hashlib.sha256(request.content).hexdigest()
        kind = "text/plain" if request.body is None else "application/json"
        added = {"Content-Type": kind, "X-Hyper-Content-Sha256": payload, "X-Hyper-Date": moment}
        added = {name: value for name, value in added.items() if name not in request.headers}
        signed = added | {name: value for name, value in request.headers.items() if _is_signed(name)}
        headers = {name.lower(): " ".join(value.split()) for name, value in signed.items()}
        headers["host"] = request.host.removesuffix(":80").removesuffix(":443")
        names = ";".join(sorted(headers))
        canonical = [request.method, _canonical_path(request.path), _canonical_query(request.query)]
        canonical += [f"{name}:{headers[name]}" for name in sorted(headers)] + ["", names, payload]
        scope = [moment[:8], self.region, "hyper", "hyper_request"]
        digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
        text = "\n".join([ALGORITHM, moment, "/".join(scope), digest])
        signature = _hmac(self._key(scope), text).hex()
        credential = "/".join([self._access, *scope])
        added["Authorization"] = f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
        return added

    def _key(self, scope: list[str]) -> bytes:
        key = b"HYPER" + self._secret.encode()
        for part in scope:
            key = _hmac(key, part)
        return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _is_signed(name: str) -> bool:
    return name.lower() in ("content-type", "content-md5") or name.lower().startswith("x-hyper-")


def _canonical_path(path: str) -> str:
    """Return the path without its first slash and without empty segments; a slash at its end stays."""
    segments = [segment for segment in path.split("/") if segment]
    return "/".join(segments) + ("/" if path.endswith("/") and segments else "")


def _canonical_query(query: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query))


def _configured(environ: Mapping[str, str], region: str | None) -> tuple[str, str, str]:
    """Read Hyper's configuration: access, secret, region. The region's own address goes before a pattern."""
    directory = environ.get("HYPER_CONFIG") or os.path.join(os.path.expanduser("~"), ".hyper")
    path = Path(directory, "config.json")
    try:
        clouds: Any = json.loads(path.read_bytes())["clouds"]
        own = f"tcp://{region}.hyper.sh:443"
        for pattern, cloud in sorted(clouds.items(), key=lambda each: each[0] != own):
            asked = region or cloud.get("region") or DEFAULT_REGION
            if fnmatch(f"tcp://{asked}.hyper.sh:443", pattern):
                found = cloud["accesskey"], cloud["secretkey"], asked
                if not all(isinstance(each, str) and each for each in found):
                    raise ValueError
                return found
    except FileNotFoundError:
        raise ValueError(f"no credentials for Hyper: neither HYPER_ACCESS and HYPER_SECRET nor {path}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path}: not a configuration of Hyper's") from None
    raise ValueError(f"{path}: no cloud there fits tcp://{region or DEFAULT_REGION}.hyper.sh:443")
