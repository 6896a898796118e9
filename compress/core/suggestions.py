"""What was probably meant by a name that nothing has: one mechanism for settings, methods, networks, tasks, criteria
and files.

Commands and their options are told apart by Typer, which goes by the same distance (difflib's).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

_MOST_BESIDE = 2000
"""Files of a folder that are looked at."""


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The known names most like one, the most alike first; upper and lower case are the same."""
    plain: dict[str, str] = {}
    for one in known:
        plain.setdefault(one.lower(), one)
    return [plain[found] for found in difflib.get_close_matches(name.lower(), list(plain), n=most)]


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", most: int = 1) -> str:
    """The hint of an error about a name that is not there.

    Args:
        name: as typed.
        known: names that are there.
        otherwise: the hint where none of them is alike.
        most: how many may be offered.
    """
    found = [repr(one) for one in nearest(name, known, most)]
    return f"did you mean {' or '.join(found)}?" if found else otherwise


def files_like(path: str | Path, otherwise: str) -> str:
    """The hint of an error about a file or a folder that is not there: the one beside it that was probably meant."""
    path = Path(path)
    try:
        beside = [one.name for one in islice(path.parent.iterdir(), _MOST_BESIDE)]
    except (OSError, ValueError):
        return otherwise
    found = nearest(path.name, beside)
    return f"did you mean {str(path.parent / found[0])!r}?" if found else otherwise


def file_inside(folder: Path, suffixes: Iterable[str], otherwise: str) -> str:
    """The hint of an error about a folder where a file was wanted: one in it, a run's own network before others."""
    try:
        found = sorted(one.name for one in folder.iterdir() if one.suffix in suffixes)
    except OSError:
        return otherwise
    return f"name the file, e.g. {folder / min(found, key=lambda name: not name.startswith('model.'))}" if found else otherwise
