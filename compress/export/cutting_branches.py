"""A branch taken out of an ONNX file, by the modules that its nodes come from: for files whose times are measured."""

from __future__ import annotations

import ast
from collections.abc import Collection

from onnx import ModelProto, NodeProto, helper

from compress.core import ACTIVATIONS, SkippedModule, is_within, plural
from compress.errors import ExportError
from compress.export.scopes import NAME_SCOPES

_NODES = {"identity": None, "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "hardswish": "HardSwish"}
"""What an activation is in ONNX, where it is one node."""


def skip_module(model: ModelProto, module: SkippedModule, weights: Collection[str]) -> None:
    """What a module computes becomes its input, or an activation of it; in place.

    Args:
        model: as exported.
        module: what goes.
        weights: names of the file's initialisers; those of the module are left for others to drop.

    Raises:
        ExportError: the file does not show which nodes are the module's, or it becomes something else.
    """
    hint = "cut the network and export it"
    if any(code < 0 or ACTIVATIONS[code] not in _NODES for code in module.codes):
        raise ExportError(f"{module.name} does not become its input", hint=hint)
    inside = [node for node in model.graph.node if _is_of(node, module.name)]
    made = {name for node in inside for name in node.output}
    arriving = {name for node in inside for name in node.input if name and name not in made and name not in weights}
    outside = [node for node in model.graph.node if not _is_of(node, module.name)]
    read = {name for node in outside for name in node.input} | {value.name for value in model.graph.output}
    leaving = made & read
    if len(arriving) != 1 or len(leaving) != 1:
        raise ExportError(
            f"{module.name} has {plural(len(arriving), 'input')} and {plural(len(leaving), 'output')} in the ONNX file",
            hint=hint,
        )
    (source,), (target,) = arriving, leaving
    place = next(i for i, node in enumerate(model.graph.node) if _is_of(node, module.name))
    for node in inside:
        model.graph.node.remove(node)
    steps = [kind for code in module.codes if (kind := _NODES[ACTIVATIONS[code]])] or ["Identity"]
    for number, kind in enumerate(steps):
        result = target if number == len(steps) - 1 else f"{target}_{number}"
        model.graph.node.insert(place + number, helper.make_node(kind, [source], [result], name=f"{module.name}_{number}"))
        source = result


def _is_of(node: NodeProto, module: str) -> bool:
    scopes = next((p.value for p in node.metadata_props if p.key == NAME_SCOPES), "")
    return bool(scopes) and any(is_within(str(name), module) for name in ast.literal_eval(scopes)[:-1])
