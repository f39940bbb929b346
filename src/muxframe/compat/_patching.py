"""What the drop-in replacements share: another package's attributes, replaced and put back; its version, checked."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

_INHERITED = object()


class UncheckedVersionWarning(UserWarning):
    """The package at hand has a version that its replacements were not checked with."""


class Patch:
    """Attributes of another package, to be replaced all at once, and put back.

    Args:
        package: the distribution that they are of.
        versions: of the package, with which the replacements were checked.
        replacements: (module or class, name, what takes its place).
    """

    def __init__(self, package: str, versions: Sequence[str], replacements: Sequence[tuple[Any, str, Any]]) -> None:
        self._package = package
        self._versions = versions
        self._replacements = replacements
        self._originals: list[tuple[Any, str, Any]] = []
        self._installed: Installed | None = None
        self._lock = Lock()

    def install(self) -> Installed:
        """Put the replacements in place, if they are not. To be called by the function that the user calls.

        Returns:
            A context manager, which takes back at its exit what this call has done.

        Warns:
            UncheckedVersionWarning: the version is not one of `versions`.

        Raises:
            AttributeError: there is no such thing to be replaced; nothing has been.
        """
        with self._lock:
            if self._originals:
                return Installed(self)
            found = version(self._package)
            if found not in self._versions:
                warnings.warn(
                    f"muxframe was checked with {self._package} {', '.join(self._versions)}, and this is {found}",
                    UncheckedVersionWarning,
                    stacklevel=3,
                )
            for owner, name, _ in self._replacements:
                getattr(owner, name)
            for owner, name, replacement in self._replacements:
                self._originals.append((owner, name, vars(owner).get(name, _INHERITED)))
                setattr(owner, name, replacement)
            self._installed = Installed(self)
            return self._installed

    def uninstall(self, installed: Installed | None = None) -> None:
        """Put back what was there, if it is not; given what `install` returned, only what that very call replaced."""
        with self._lock:
            if installed is not None and installed is not self._installed:
                return
            for owner, name, original in self._originals:
                if original is _INHERITED:
                    delattr(owner, name)
                else:
                    setattr(owner, name, original)
            self._originals = []
            self._installed = None


class Installed:
    """What `install` returns: to be ignored, or used with `with`."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.uninstall(self)
