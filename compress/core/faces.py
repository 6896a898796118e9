"""A room's face: its public names, each loaded from its module on first use (PEP 562).

Importing a room costs nothing, and what its face does not name is private to it; ``tests/test_rooms.py`` and the import
contracts hold both. Standard library only: the bench kit packs this file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(room: str, homes: Mapping[str, str]) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` of a package.

    Args:
        room: the package's ``__name__``.
        homes: module, relative to the package -> the names it gives to the face, separated by blanks.
    """
    home = {name: module for module, names in homes.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        found = getattr(import_module(f"{room}.{home[name]}"), name)
        setattr(sys.modules[room], name, found)
        return found

    return sorted(home), load, lambda: sorted({*vars(sys.modules[room]), *home})
