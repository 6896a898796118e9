"""A plan applied to an ONNX file itself: what took an exporter many seconds once serves many cut networks.

The weights keep their names in the file, so the table of positions (``core.plan.kept_positions``) says which slices stay,
as it does in ``surgery.cutting``; folded biases follow the layer they belong to. The result computes what an export of the
cut network computes, before any recovery; a file whose structure holds a width elsewhere is refused, never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from compress.core import Plan, Topology, canonical, gone_modules, kept_positions
from compress.errors import ExportError, ModelError
from compress.export.cutting_branches import skip_module
from compress.export.scopes import module_of
from compress.runtime import OrtRuntime

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_BESIDE = {"Conv": (2,), "ConvTranspose": (2,), "Gemm": (2,), "BatchNormalization": (1, 2, 3, 4)}
"""Inputs of a node that have one number for each channel it makes."""

Kept = Mapping[tuple[str, int], NDArray[np.int64]]


@dataclass(frozen=True)
class Resizable:
    """An ONNX file that plans can be applied to.

    Attributes:
        model: of the unpruned network, as exported.
        topology: the network's.
        owners: initialiser -> the state_dict key and dimension whose channels its first dimension follows, where it is
            not itself an entry of the state_dict.
        again: cuts the network and exports it to a path, for plans that the file cannot follow; None where only the file
            is there.
        why_not: why the file can follow no plan at all; empty where it can.
    """

    model: ModelProto
    topology: Topology
    owners: Mapping[str, tuple[str, int]]
    again: Callable[[Plan, Path], object] | None = None
    why_not: str = ""


def resizable(model: ModelProto, topology: Topology, again: Callable[[Plan, Path], object] | None = None) -> Resizable:
    """Finds out which layer each folded tensor belongs to.

    Args:
        model: of the unpruned network; tensors that the exporter merged are taken apart in it, weights that it renamed get
            their names back.
        topology: traced from the same network.
        again: see :class:`Resizable`.

    Raises:
        ExportError: a weight that a plan may change is not in the file with its shape, and networks cannot be exported.
    """
    _name_again(model, topology)
    initial = {tensor.name: tensor for tensor in model.graph.initializer}
    writes = {layer.weight: (layer.weight, layer.write_dim) for layer in topology.layers}
    owners: dict[str, tuple[str, int]] = {}
    for node in model.graph.node:
        weight = next((name for name in list(node.input)[1:2] if name in topology.tensors), "")
        for place in _BESIDE.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            if name in initial and name not in topology.tensors and weight:
                owners[name] = writes.get(weight, (weight, 0))
    why_not = next(_lost(initial, topology), "")
    if why_not and again is None:
        raise ExportError(why_not, hint="export it with the newer exporter: --exporter dynamo")
    return Resizable(model=model, topology=topology, owners=owners, again=again, why_not=why_not)


def _lost(initial: Mapping[str, TensorProto], topology: Topology) -> Iterator[str]:
    """The weights that a plan may change and the file does not hold."""
    changing = {key for key, _ in topology.slots}
    for key in sorted(changing & {layer.weight for layer in topology.layers}):
        if key not in initial or tuple(initial[key].dims) != topology.tensors[key].shape:
            seen = "is missing" if key not in initial else f"has shape {list(initial[key].dims)}"
            yield f"the weight {key} {seen} in the ONNX file, {list(topology.tensors[key].shape)} is wanted"


_ENTRIES = {
    "Conv": ("weight",),
    "ConvTranspose": ("weight",),
    "Gemm": ("weight",),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
}
"""What a module calls the tensors that its node reads, from the second one on."""


def _name_again(model: ModelProto, topology: Topology) -> None:
    """Every tensor under the name of the module that reads it.

    The older exporter renames what it folds a batch norm into; both merge equal tensors, as the scales of untrained batch
    norms are.
    """
    initial, renamed = {tensor.name: tensor for tensor in model.graph.initializer}, set[str]()
    for node in model.graph.node:
        module = module_of(node)
        for place, entry in enumerate(_ENTRIES.get(node.op_type, ()), start=1):
            own, read = f"{module}.{entry}", initial.get(node.input[place])
            if own not in topology.tensors or read is None or tuple(read.dims) != topology.tensors[own].shape:
                continue
            if read.name in topology.tensors and node.op_type != "BatchNormalization":  # a weight that modules share
                continue
            if own not in initial:
                copied = model.graph.initializer.add()
                copied.CopyFrom(read)
                copied.name = own
                initial[own] = copied
            node.input[place] = own
            renamed.add(read.name)
    idle = renamed - {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in idle]:
        model.graph.initializer.remove(tensor)


def write_resized(source: Resizable, plan: Plan, path: Path) -> None:
    """The file of the network after a plan: the unpruned one's resized where that runs, else cut and exported.

    Args:
        source: from :func:`resizable`.
        plan: folds are left out, they are not a matter of shapes.
        path: where to write it.

    Raises:
        ExportError: neither works.
    """
    shapes = Plan({g: replace(c, fold={}) for g, c in plan.cuts.items()}, plan.inputs, plan.branches)
    try:
        path.write_bytes(resized(source, shapes).SerializeToString())
        with OrtRuntime().load(path):
            return
    except (ExportError, ModelError) as error:
        if source.again is None:
            raise ExportError(
                f"the plan cannot be applied to the ONNX file: {error.message}", hint="cut the network and export it"
            ) from error
    source.again(shapes, path)


def resized(source: Resizable, plan: Plan) -> ModelProto:
    """The file after a plan.

    Args:
        source: from :func:`resizable`.
        plan: widths and branches; folds and selected inputs are not a matter of shapes alone and are refused.

    Raises:
        ExportError: the file can follow no plan, the plan folds or selects, the file holds a width where no plan can reach
            it, or a branch of which it does not show where it begins and ends.
    """
    if source.why_not:
        raise ExportError(source.why_not, hint="cut the network and export it")
    if plan.inputs or any(cut.fold for cut in plan.cuts.values()):
        raise ExportError("only plans of widths can be applied to an ONNX file", hint="cut the network and export it")
    topology, kept = source.topology, kept_positions(source.topology, plan)
    model = ModelProto()
    model.CopyFrom(_bare(source.model))
    initial = {tensor.name: tensor for tensor in source.model.graph.initializer}
    for module in gone_modules(topology, canonical(topology, plan)):
        skip_module(model, module, set(initial))
    if plan.branches:
        read = {name for node in model.graph.node for name in node.input}
        initial = {name: tensor for name, tensor in initial.items() if name in read}
    flattened = _flattened(model)
    for name, tensor in initial.items():
        if name in flattened:
            model.graph.initializer.append(numpy_helper.from_array(np.array([0, -1], dtype=np.int64), name))
            continue
        owner = name if name in topology.tensors else None
        dims: list[tuple[int, tuple[str, int]]] = []
        if owner is not None:
            dims = [(dim, (owner, dim)) for dim in range(len(tensor.dims))]
        elif name in source.owners:
            dims = [(0, source.owners[name])]
        taken = [(dim, kept[slot]) for dim, slot in dims if slot in kept]
        if not taken:
            model.graph.initializer.append(tensor)
            continue
        array = numpy_helper.to_array(tensor)
        for dim, positions in taken:
            array = array.take(positions, axis=dim)
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    _set_groups(model, topology, kept)
    _set_pads(model, topology, plan)
    return model


def _bare(model: ModelProto) -> ModelProto:
    """The model without weights; they are what makes copying dear."""
    bare = ModelProto()
    bare.ir_version, bare.producer_name = model.ir_version, model.producer_name
    bare.opset_import.extend(model.opset_import)
    bare.metadata_props.extend(model.metadata_props)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    return bare


def _flattened(model: ModelProto) -> set[str]:
    """Constants that flatten all but the batch before a linear layer: they name a width, and need not."""
    read = {node.input[0] for node in model.graph.node if node.op_type in {"Gemm", "MatMul"}}
    found = [node for node in model.graph.node if node.op_type == "Reshape" and node.output[0] in read]
    for node in found:
        del node.attribute[:]  # allowzero: here 0 means to copy the batch
    return {node.input[1] for node in found}


def _set_groups(model: ModelProto, topology: Topology, kept: Kept) -> None:
    """A depthwise convolution has as many groups as channels."""
    follows = {layer.weight: layer for layer in topology.layers if layer.depthwise}
    for node in model.graph.node:
        if node.op_type in _CONVOLUTIONS and node.input[1] in follows:
            layer = follows[node.input[1]]
            whole = topology.tensors[layer.weight].shape[0]
            now = len(kept.get((layer.weight, 0), np.arange(whole)))
            for attribute in node.attribute:
                if attribute.name == "group":
                    attribute.i = now * layer.cardinality // whole


def _set_pads(model: ModelProto, topology: Topology, plan: Plan) -> None:
    """A zero-padded shortcut adds as many channels in front and behind as the wide side keeps there."""
    producer = {name: node for node in model.graph.node for name in node.output}
    initial = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Pad" or node.input[1] not in initial:
            continue
        pads = numpy_helper.to_array(initial[node.input[1]]).copy()
        sums = [n for n in model.graph.node if n.op_type == "Add" and node.output[0] in n.input]
        if len(pads) != 8 or not (pads[1] or pads[5]) or len(sums) != 1:
            continue
        other = next(name for name in sums[0].input if name != node.output[0])
        narrow, wide = (_writer(name, producer, topology) for name in (node.input[0], other))
        found = dict(topology.slots.get((wide, 0), ()))
        for group_id, member in topology.slots.get((narrow, 0), ()):
            if group_id not in found:
                continue
            cut = plan.cuts.get(group_id)
            kept = range(len(member.positions)) if cut is None else cut.keep
            there = [bool(member.positions[c]) for c in kept if found[group_id].positions[c]]
            front, run = there.index(True), sum(there)
            if not all(there[front : front + run]):
                raise ExportError("a shortcut's kept channels do not stand side by side", hint="cut the network and export it")
            pads[1], pads[5] = front, len(there) - front - run
            own = numpy_helper.from_array(pads, f"{node.output[0]}_pads")
            model.graph.initializer.append(own)
            node.input[1] = own.name


def _writer(name: str, producer: Mapping[str, NodeProto], topology: Topology) -> str:
    """The weight of the nearest layer that makes a tensor's channels."""
    near = [name]
    while near:
        node = producer.get(near.pop(0))
        if node is None:
            continue
        weight = node.input[1] if len(node.input) > 1 else ""
        if node.op_type in _CONVOLUTIONS and weight in topology.tensors:
            return str(weight)
        near += list(node.input)
    return ""
