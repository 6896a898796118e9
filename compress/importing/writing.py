"""The file again, with the tensors that its network holds now: names, types, open dimensions, operator set and metadata stay.

Nothing is exported anew: the nodes are those of the file. After a cut, weights are smaller, and so are the numbers of channels
that some nodes have as attributes or constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper
from torch import nn

from compress.core import READS
from compress.errors import ImportRefused
from compress.importing.graph import Constant, Graph
from compress.importing.network import ImportedNetwork, NodeStep
from compress.importing.node import Held
from compress.importing.skipping import nodes_of
from compress.surgery import Skipped

_BATCH = "batch"


def written(network: ImportedNetwork, metadata: Mapping[str, str] | None = None) -> ModelProto:
    """The model of a network as it is now.

    Args:
        network: whole or cut.
        metadata: entries that are added to the file's own, or replace them.
    """
    graph, nodes = network.graph, list[NodeProto]()
    constants: dict[str, Constant] = {}
    for step in network.steps:
        module = network.get_submodule(step.name)
        node = NodeProto()
        node.CopyFrom(graph.nodes[step.node])
        if isinstance(module, Skipped):
            nodes += nodes_of(module, node, constants)
            continue
        _set(node, step, module, constants)
        held = dict(_tensors(step, module, graph))
        for place, name in enumerate(node.input):
            if place in held:
                constants[name] = held[place]
            elif name in graph.constants and name not in constants:
                constants[name] = graph.constants[name]
        nodes += _selecting(node, module, constants, network, step)
        nodes.append(node)
    model = _model(graph, nodes, constants)
    told = {prop.key: prop.value for prop in graph.shell.metadata_props} | dict(metadata or {})
    del model.metadata_props[:]
    helper.set_model_props(model, told)
    for value, axis in [(v, network.axes.inputs[v.name]) for v in model.graph.input] + [
        (v, network.axes.outputs[v.name]) for v in model.graph.output
    ]:
        if graph.batch and axis is not None:
            _open(value, axis)
    return model


def _tensors(step: NodeStep, module: nn.Module, graph: Graph) -> Iterator[tuple[int, Constant]]:
    """The constants that the module holds now, by the node's inputs, as ONNX has them."""
    state = module.state_dict()
    for held in step.made.held:
        yield held.place, _laid(held, state[held.key], graph.constants[graph.nodes[step.node].input[held.place]])
    if step.made.stored:
        stored: Mapping[int, Constant] = module.stored()  # type: ignore[operator]
        yield from ((place, stored[place]) for place in step.made.stored)


def _laid(held: Held, tensor: torch.Tensor, old: Constant) -> Constant:
    array: Constant = tensor.detach().cpu().numpy()
    if held.transposed:
        array = array.T
    if held.shape is not None:
        array = array.reshape(held.shape)
    elif array.shape != old.shape and array.size == old.size:
        array = array.reshape(old.shape)
    return np.asarray(array.astype(old.dtype, copy=False), order="C")


def _set(node: NodeProto, step: NodeStep, module: nn.Module, constants: dict[str, Constant]) -> None:
    """Attributes and numbers that are others now."""
    for name, value in step.made.settings:
        _attribute(node, name, value)
    for place, row in step.made.rows:
        if not row:
            del node.input[place:]
        else:
            node.input[place] = _own(node, place)
            constants[node.input[place]] = np.array(row, np.int64)
    for place in sorted(getattr(module, "opened", ())):
        node.input[place] = _own(node, place)
        constants[node.input[place]] = np.array([-1], np.int64)
    for where, attribute in step.made.counts:
        number: Any = getattr(module, attribute)
        if isinstance(where, int):
            node.input[where] = _own(node, where)
            constants[node.input[where]] = np.array(number, np.int64)
        elif not (where == "group" and number == 1 and not any(a.name == where for a in node.attribute)):
            _attribute(node, where, list(number) if isinstance(number, tuple) else number)


def _own(node: NodeProto, place: int) -> str:
    return f"{node.name}.numbers.{place}"


def _attribute(node: NodeProto, name: str, value: Any) -> None:
    for old in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(old)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def _selecting(
    node: NodeProto, module: nn.Module, constants: dict[str, Constant], network: ImportedNetwork, step: NodeStep
) -> Iterator[NodeProto]:
    """A node before this one that picks the channels which a layer reads, where it does not read all that arrive."""
    reads = getattr(module, READS, None)
    if reads is None:
        return
    chosen = f"{node.name}.{READS}"
    constants[chosen] = reads.detach().cpu().numpy().astype(np.int64)
    axis = -1 if isinstance(module, nn.Linear) else 1
    picked = f"{node.name}.selected"
    yield helper.make_node("Gather", [node.input[0], chosen], [picked], name=f"{node.name}.select", axis=axis)
    node.input[0] = picked


def _model(graph: Graph, nodes: list[NodeProto], constants: Mapping[str, Constant]) -> ModelProto:
    model = ModelProto()
    model.CopyFrom(graph.shell)
    model.graph.node.extend(nodes)
    model.graph.input.extend(graph.inputs)
    model.graph.output.extend(graph.outputs)
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
    if sum(t.ByteSize() for t in model.graph.initializer) > 2**31 - 2**20:
        raise ImportRefused("the weights take more than one ONNX file can hold", hint="give a network below 2 GB")
    return model


def _open(value: ValueInfoProto, axis: int) -> None:
    """Leaves the batch open."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) > axis:
        dims[axis].Clear()
        dims[axis].dim_param = _BATCH
