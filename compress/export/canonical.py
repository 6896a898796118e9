"""The same computation in the plainest ONNX: a file that strict consumers load and that hides its maker's machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from compress.errors import ExportError, one_line
from compress.export.left_out import drop_added_zeros
from compress.export.scopes import NAME_SCOPES

FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16},
)


def canonicalise(model: ModelProto, *, name: str, metadata: Mapping[str, str]) -> None:
    """Rewrite a freshly exported model in place; its inputs, outputs and values stay the same.

    The order matters: the full check needs ``value_info`` to see a weight that was cut wrongly, so that goes after it;
    provenance goes last because rewriting drops it.

    Args:
        model: what an exporter made.
        name: the graph's name.
        metadata: provenance, readable later through ``session.get_modelmeta()``.

    Raises:
        ExportError: the model is no valid ONNX, or a weight is not finite.
    """
    for graph in _graphs(model.graph):
        _strip(graph)
        _drop_default_attributes(graph, _opset(model))
    drop_added_zeros(model.graph)
    _pool_by_name(model.graph)
    drop_unused(model.graph)
    _drop_unused_domains(model)
    _check(model)
    for graph in _graphs(model.graph):
        del graph.value_info[:]
    del model.metadata_props[:]
    model.doc_string = ""
    model.graph.name = name
    model.producer_name = "compress"
    model.producer_version = metadata.get("version", "")
    model.domain = ""
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})


def _opset(model: ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and those inside its control flow."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _strip(graph: GraphProto) -> None:
    """Drop what exporters note down for debugging: stack traces hold the paths of the exporting machine."""
    graph.doc_string = ""
    del graph.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        scopes = [prop.value for prop in node.metadata_props if prop.key == NAME_SCOPES]
        del node.metadata_props[:]
        for value in scopes:
            node.metadata_props.add(key=NAME_SCOPES, value=value)
    for value_info in (*graph.input, *graph.output, *graph.value_info):
        value_info.doc_string = ""
        del value_info.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]


def _drop_default_attributes(graph: GraphProto, opset: int) -> None:
    """Drop attributes that say what the operator's schema says anyway: some consumers refuse their mere presence."""
    for node in graph.node:
        if node.domain not in {"", "ai.onnx"} or not onnx.defs.has(node.op_type):
            continue
        known = onnx.defs.get_schema(node.op_type, opset).attributes
        for attribute in list(node.attribute):
            default = known[attribute.name].default_value if attribute.name in known else None
            if default is None or default.type != attribute.type:  # without a default its type is undefined
                continue
            if helper.get_attribute_value(default) == helper.get_attribute_value(attribute):
                node.attribute.remove(attribute)


def _pool_by_name(graph: GraphProto) -> None:
    """Turn a ReduceMean over height and width of four dimensions into GlobalAveragePool, which every consumer has fast."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    known = [(value.name, value.type.tensor_type) for value in (*graph.input, *graph.output, *graph.value_info)]
    images = {name for name, kind in known if len(kind.shape.dim) == 4 and kind.elem_type in FLOATS}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        source = node.input[0] if node.input else ""
        if node.op_type != "ReduceMean" or source not in images or _axes(node, constants) != {2, 3}:
            continue
        keeps = next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1)
        pooled = node.output[0] if keeps else f"{node.output[0]}_pooled"
        replacement = [helper.make_node("GlobalAveragePool", [source], [pooled], name=node.name)]
        if not keeps:
            replacement.append(helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}_flatten", axis=1))
        for new in replacement:
            new.metadata_props.extend(node.metadata_props)
        _drop_default_attributes(GraphProto(node=replacement), 20)
        graph.node.remove(node)
        for offset, new in enumerate(replacement):
            graph.node.insert(index + offset, new)


def _axes(node: NodeProto, constants: Mapping[str, onnx.TensorProto]) -> set[int]:
    """The axes a reduction over a four-dimensional tensor runs over, from the front; empty when known only at run time."""
    listed = [axis for attribute in node.attribute if attribute.name == "axes" for axis in attribute.ints]  # before opset 18
    if len(node.input) > 1 and node.input[1] in constants:
        listed = [int(axis) for axis in numpy_helper.to_array(constants[node.input[1]]).reshape(-1)]
    return {axis % 4 for axis in listed}


def drop_unused(graph: GraphProto) -> None:
    """Drop weights and constants that no node reads."""
    while True:
        read = {name for inner in _graphs(graph) for node in inner.node for name in node.input}
        read |= {output.name for inner in _graphs(graph) for output in inner.output}
        unread = [tensor for tensor in graph.initializer if tensor.name not in read]
        idle = [node for node in graph.node if not any(name in read for name in node.output)]
        for tensor in unread:
            graph.initializer.remove(tensor)
        for node in idle:
            graph.node.remove(node)
        if not idle:
            return


def _drop_unused_domains(model: ModelProto) -> None:
    """Drop operator sets that no node is from: optimisers import all they know, and a consumer may refuse what it does not."""
    used = {node.domain for graph in _graphs(model.graph) for node in graph.node} | {"", "ai.onnx"}
    for entry in [entry for entry in model.opset_import if entry.domain not in used]:
        model.opset_import.remove(entry)


def _check(model: ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # checker and shape inference raise unrelated types
        raise ExportError(
            f"the exported graph is not valid ONNX: {one_line(error)}", hint="try the other exporter: --exporter legacy"
        ) from error
    refuse_infinite(model)


def refuse_infinite(model: ModelProto) -> None:
    """Refuses weights that no training can have meant.

    Raises:
        ExportError: one is not finite.
    """
    for tensor in model.graph.initializer:
        if tensor.data_type in FLOATS and not np.isfinite(numpy_helper.to_array(tensor).astype(np.float32)).all():
            raise ExportError(
                f"the weight {tensor.name!r} holds NaN or infinity",
                hint="train again from a checkpoint whose weights are finite",
            )
