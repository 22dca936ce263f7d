"""Registry of named entries that suggests the closest name for an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class UnknownNameError(ValueError):
    """Unknown registry name; the message lists the valid ones."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UnknownNameError:
    """Build the error for an unknown name.

    >>> str(unknown_name("normaliser", "xnrom", ["xnorm", "l2"]))
    "unknown normaliser 'xnrom', did you mean 'xnorm'? Valid: xnorm, l2"
    """
    names = list(valid)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean '{near[0]}'?" if near else "."
    return UnknownNameError(f"unknown {kind} '{name}'{hint} Valid: {', '.join(names)}")


class Registry(Generic[Entry]):
    """Entries by name, in order of registration.

    Args:
        kind: noun for an entry in error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, entry: Entry) -> None:
        """Register an entry.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is already registered")
        self._entries[name] = entry

    def replace(self, name: str, entry: Entry) -> None:
        """Replace an existing entry, as reloading a module does."""
        self[name]
        self._entries[name] = entry

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises:
            UnknownNameError: the name is unknown.
        """
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> list[Entry]:
        """Return every entry, in order of registration."""
        return list(self._entries.values())
