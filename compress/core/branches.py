"""Skippable branches: what a network adds to an identity shortcut, and could leave out.

A branch is found once, from the network's own run (``compress.coupling.branch_search``), and is plain data from then on: which
modules go with it, what stands in their place, and which of them would have to give zeros for it to contribute nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NewType

BranchId = NewType("BranchId", str)
"""The module that holds the branch and the addition; where several branches share it, the module that ends the branch."""

SKIPPED = "skipped"
"""Buffer of what stands in a gone module's place: what it does to its input."""

ZEROS = -1
"""Code of what gives zeros in the shape of its input."""

ACTIVATIONS = ("identity", "relu", "relu6", "silu", "gelu", "hardswish", "leaky_relu", "sigmoid", "tanh", "mish")
"""What a gone module may still do, by its code: nothing, or an activation at torch's own settings."""


@dataclass(frozen=True, slots=True)
class SkippedModule:
    """A module that goes with a branch.

    Attributes:
        name: as in ``model.named_modules()``.
        codes: what is done to its input instead, one after another: ``ZEROS``, or numbers of ``ACTIVATIONS``.
    """

    name: str
    codes: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Branch:
    """What is added to an identity shortcut.

    Attributes:
        name: its id.
        modules: what goes with it.
        silenced: modules that are in it; where they give zeros, so does the branch.
    """

    name: BranchId
    modules: tuple[SkippedModule, ...]
    silenced: tuple[str, ...]

    def holds(self, key: str) -> bool:
        """Whether a module, or an entry of the state_dict, goes with the branch."""
        return any(is_within(key, module.name) for module in self.modules)


def is_within(key: str, module: str) -> bool:
    """Whether a name is a module's, or that of something inside it."""
    return key == module or key.startswith(f"{module}.")


def outermost(modules: Iterable[SkippedModule]) -> tuple[SkippedModule, ...]:
    """The modules without those inside others; of two of one name the first."""
    found: dict[str, SkippedModule] = {}
    for module in sorted(modules, key=lambda m: m.name.count(".")):
        if not any(is_within(module.name, other) for other in found):
            found[module.name] = module
    return tuple(found[name] for name in sorted(found))


def without_nested(branches: Sequence[Branch]) -> tuple[Branch, ...]:
    """The branches that are in none of the others."""
    return tuple(b for b in branches if not any(a is not b and all(a.holds(m.name) for m in b.modules) for a in branches))
