"""Detach keys: what a client types to leave a container without ending it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .exchange import Exchange

DEFAULT = "ctrl-p,ctrl-q"

#: ctrl- and one of these; its place is its code.
CONTROLS = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


class DetachKeys:
    """Looks for the keys in what a client sends.

    Docker finds them wherever they are; for Podman each has to come in a write of its own.
    """

    def __init__(self, keys: bytes, *, each_alone: bool) -> None:
        self._keys = keys
        self._each_alone = each_alone
        self._held = b""  # typed so far

    @classmethod
    def parse(cls, x: Exchange) -> DetachKeys:
        """Take the keys from a request.

        Raises:
            RefusedError: there are no such keys.
        """
        is_docker = x.personality.is_docker
        text = x.request.query.get("detachKeys", DEFAULT) or (DEFAULT if is_docker else "")
        keys = b""
        for key in text.split(",") if text else []:
            control = key.removeprefix("ctrl-")
            if len(key) == 1:
                keys += key.encode()
            elif key.startswith("ctrl-") and len(control) == 1 and control in CONTROLS:
                keys += bytes([CONTROLS.index(control)])
            else:
                raise x.personality.bad_keys(text, key)
        return cls(keys, each_alone=not is_docker)

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be passed on of data, and whether the client has left."""
        if not self._keys:
            return data, False
        if self._each_alone and len(data) != 1:
            passed, self._held = self._held + data, b""
            return passed, False
        passed = b""
        for byte in data:
            self._held += bytes([byte])
            if self._held == self._keys:
                return passed, True
            if not self._keys.startswith(self._held):
                passed, self._held = passed + self._held, b""
        return passed, False
