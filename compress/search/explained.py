"""What each option of a method means and costs, as its searcher's own docstring says."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, dataclass, fields
from typing import Any

_ENTRY = re.compile(r"^    (\w+): (.+(?:\n {8,}.+)*)", re.MULTILINE)
_COST = " Cost: "


@dataclass(frozen=True, slots=True)
class MethodOption:
    """An option of a method.

    Attributes:
        name: as in ``--set options.NAME=VALUE``.
        default: what it is without that.
        meaning: what it decides.
        cost: what more of it, or a dearer choice, takes.
    """

    name: str
    default: Any
    meaning: str
    cost: str


def options_of(searcher: type[Any]) -> tuple[MethodOption, ...]:
    """The options of a searcher, in the order of its fields; without words where it has none or Python stripped them (-OO)."""
    words = {name: " ".join(text.split()).replace("``", "") for name, text in _ENTRY.findall(inspect.getdoc(searcher) or "")}
    found = []
    for field in fields(searcher):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        meaning, _, cost = words.get(field.name, "").partition(_COST)
        found.append(MethodOption(field.name, default, meaning, cost))
    return tuple(found)
