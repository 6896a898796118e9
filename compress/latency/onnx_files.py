"""What an ONNX file is, before it is clocked: read with onnx alone, nothing in it is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto

from compress.core import plural
from compress.errors import ConfigError, ModelError
from compress.latency.measurement import MeasuredFile, identify
from compress.latency.protocol import BASE
from compress.runtime import read_onnx

QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"})
NAMES = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16", TensorProto.DOUBLE: "fp64"}


def describe(path: Path) -> MeasuredFile:
    """Name, digest, size and precision of a file.

    Raises:
        ModelError: it is no ONNX file, or weights it keeps in a second file are missing.
    """
    return _described(path)[0]


def _described(path: Path) -> tuple[MeasuredFile, int]:
    """The file, and how many inputs it takes."""
    facts = identify(path)
    graph = (proto := read_onnx(path, weights=False)).graph
    if not graph.node:
        raise ModelError(f"{path} holds no network", hint="make an .onnx file with: compress export")
    inputs = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    return replace(facts, precision=precision(proto)), len(inputs)


def precision(proto: onnx.ModelProto) -> str:
    """``int8`` where it computes in integers, else the type of most of its weights; empty where it has none."""
    if any(node.op_type in QUANTISED for node in proto.graph.node):
        return "int8"
    counts = dict.fromkeys(NAMES, 0)
    for tensor in proto.graph.initializer:
        if tensor.data_type in counts:
            elements = 1
            for size in tensor.dims:
                elements *= size
            counts[tensor.data_type] += elements
    most = max(counts, key=lambda kind: counts[kind])
    return NAMES[most] if counts[most] else ""


def file_arms(files: list[Path]) -> dict[str, Path]:
    """The first file as the base, the others under their names: with folder or number only where names are alike.

    Raises:
        ConfigError: there is no file.
    """
    if not files:
        raise ConfigError("no file is given, at least one is wanted", hint="give the base first: BASE.onnx OTHER.onnx")
    named: dict[str, Path] = {BASE: files[0]}
    names = Counter(file.name for file in files[1:])
    for file in files[1:]:
        short = file.name if names[file.name] == 1 else f"{file.parent.name}/{file.name}"
        free = (f"{short} #{count}" if count > 1 else short for count in range(1, len(files) + 1))
        named[next(name for name in free if name not in named)] = file
    return named


def describe_all(files: Mapping[str, Path]) -> dict[str, MeasuredFile]:
    """Every arm's file; see :func:`describe`.

    Raises:
        ModelError: one takes another number of inputs than the first.
    """
    found = {arm: _described(path) for arm, path in files.items()}
    wanted = next(iter(found.values()))[1]
    for arm, (_, inputs) in found.items():
        if inputs != wanted:
            told = f"{files[arm]} takes {plural(inputs, 'input')}, {wanted} is wanted, as the first file takes"
            raise ModelError(told, hint="export both from the same example")
    return {arm: facts for arm, (facts, _) in found.items()}
