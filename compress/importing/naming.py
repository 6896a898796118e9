"""Names of an imported network's layers: those of the file, as paths of modules."""

from __future__ import annotations

import re
from collections.abc import Sequence

from onnx import NodeProto
from torch import nn

_WEIGHTS = (".weight", ".bias", ".running_mean", ".running_var")


class ModuleFolder(nn.Module):
    """A part of a network that only holds layers."""


def path_of(node: NodeProto, constants: Sequence[str]) -> str:
    """Where a node's layer belongs: ``layer1.0.conv1`` by its weights' name or the exporter's scopes; else its own name.

    Args:
        node: with a name.
        constants: names of the constants that its module holds.
    """
    for name in constants:
        for ending in _WEIGHTS:
            if name.endswith(ending) and len(name) > len(ending):
                return _cleaned(name[: -len(ending)].split("."))
    if "/" in node.name:
        scopes: list[str] = []
        for part in [part for part in node.name.split("/") if part][:-1]:
            if scopes and part.startswith(f"{scopes[-1]}."):
                scopes[-1] = part
            else:
                scopes.append(part)
        last = node.name.rpartition("/")[2]
        if scopes and constants:
            return _cleaned(".".join(scopes).split("."))
        return _cleaned(["_".join([*scopes, last])])
    return _cleaned([node.name])


def _cleaned(parts: Sequence[str]) -> str:
    found = []
    for part in parts:
        name = re.sub(r"\W", "_", part, flags=re.ASCII)[:100] or "_"
        found.append(f"{name}_" if hasattr(ModuleFolder, name) or name in ("graph", "steps", "axes") else name)
    return ".".join(found[:20])


def added(root: nn.Module, path: str, module: nn.Module) -> str:
    """Puts a module at a path below the root, or as near as the names that are there allow; the name that it got."""
    parent, parts = root, path.split(".")
    for number, part in enumerate(parts[:-1]):
        child = parent._modules.get(part)
        if child is None:
            child = ModuleFolder()
            parent.add_module(part, child)
        if not isinstance(child, ModuleFolder):  # a layer has this name
            return added(root, ".".join([*parts[:number], "_".join(parts[number:])]), module)
        parent = child
    name = parts[-1]
    while name in parent._modules:
        name += "_"
    parent.add_module(name, module)
    return ".".join([*parts[:-1], name])
