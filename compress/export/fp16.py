"""Half precision: weights and arithmetic in float16, inputs and outputs as before."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.errors import ExportError, one_line
from compress.export.canonical import canonicalise
from compress.runtime import read_onnx

NO_GAIN = "fp16 gains nothing on a CPU, which computes it in fp32 after converting: it is for GPUs, and halves the file"


def halve(source: Path, target: Path, metadata: dict[str, str]) -> tuple[str, ...]:
    """Writes a file in float16 that takes and gives what the float32 file does.

    Args:
        source: a float32 ONNX file.
        target: written in place: the caller renames it.
        metadata: its provenance.

    Returns:
        What the converter warned about: weights that float16 cannot hold.

    Raises:
        ExportError: the converter fails, or its graph is not valid.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    log = logging.getLogger("onnxruntime.transformers.onnx_model")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wrapped = OnnxModel(convert_float_to_float16(read_onnx(source), keep_io_types=True))
            wrapped.topological_sort(is_deterministic=True)  # casts are appended at the end, behind their readers
            wrapped.prune_graph()
    except Exception as error:  # the converter raises whatever the graph makes it raise
        raise ExportError(f"float16 conversion failed: {one_line(error)}", hint="stay at fp32") from error
    finally:
        log.setLevel(level)
    _split_gemm(wrapped.model.graph)
    canonicalise(wrapped.model, name=wrapped.model.graph.name, metadata=metadata)
    target.write_bytes(wrapped.model.SerializeToString(deterministic=True))
    return tuple(dict.fromkeys(one_line(warning.message, 200) for warning in caught))


def _split_gemm(graph: onnx.GraphProto) -> None:
    """A linear layer as MatMul and Add: tract gives a Gemm of halves the type of floats; ONNX Runtime joins the two again."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
        weight = weights.get(node.input[1]) if node.op_type == "Gemm" and plain and len(node.input) == 3 else None
        if weight is None or readers[weight.name] > 1:
            continue
        if settings.get("transB", 0):
            turned = np.ascontiguousarray(numpy_helper.to_array(weight).T)
            weight.CopyFrom(numpy_helper.from_array(turned, weight.name))
        product = f"{node.output[0]}_product"
        parts = [
            helper.make_node("MatMul", list(node.input[:2]), [product], name=node.name),
            helper.make_node("Add", [product, node.input[2]], list(node.output), name=f"{node.name}_bias"),
        ]
        parts[0].metadata_props.extend(node.metadata_props)
        graph.node.remove(node)
        for offset, part in enumerate(parts):
            graph.node.insert(index + offset, part)
