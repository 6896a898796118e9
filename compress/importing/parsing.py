"""A stranger's ONNX model into a plain graph: functions inlined, everything that is no network refused before it is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from compress.core import plural
from compress.errors import ImportRefused, one_line
from compress.importing.folding import folded
from compress.importing.graph import Constant, Graph, array_of, dims_of
from compress.importing.sharing import separated

STANDARD = ("", "ai.onnx")
_OLDEST = 7
_MOST_NODES = 50_000
_NOT, _DAMAGED = "do not use this file", "the file is damaged: copy or export it again"
_MOST_ENDS = 6
"""Names that a hint repeats."""
_FOLLOWED_BY_VALUE = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_QUANTISED = frozenset(
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul ConvInteger MatMulInteger "
    "QLinearAdd QLinearMul QLinearSigmoid QLinearGlobalAveragePool QGemm DynamicQuantizeLSTM DynamicQuantizeMatMul".split()
)
_FLOATS = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT8)


def graph_of(model: ModelProto, known: Collection[str], *, emptied: bool = False) -> Graph:
    """The model's graph, its constant parts computed.

    Args:
        model: with its weights inside.
        known: operators that can be imported.
        emptied: as for :func:`compress.importing.graph.array_of`.

    Raises:
        ImportRefused: it is no network that can be imported; the message says what stands in the way.
    """
    _refuse_sizes(model.graph)
    model = _inlined(model)
    opset = next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0)
    if opset < _OLDEST:
        raise ImportRefused(
            f"the file is of operator set {opset}, {_OLDEST} or newer is wanted",
            hint="convert it: onnx.version_converter.convert_version(model, 17)",
        )
    _refuse_kinds(model.graph, known)
    nodes = _in_order(model.graph)
    constants = {tensor.name: array_of(tensor, emptied=emptied) for tensor in model.graph.initializer}
    nodes, constants = folded(nodes, constants, opset)
    outputs = tuple(model.graph.output)
    nodes = _without_idle(_without_copies(nodes, outputs), outputs)
    nodes, constants = separated(_named(nodes), constants)
    read = {name for node in nodes for name in node.input}
    inputs = tuple(value for value in model.graph.input if value.name not in constants)
    _refuse_interface(inputs, outputs, nodes, constants)
    shell = ModelProto()
    shell.CopyFrom(model)
    shell.ClearField("graph")
    shell.graph.name = model.graph.name or "network"
    return Graph(
        nodes=tuple(nodes),
        constants={name: array for name, array in constants.items() if name in read},
        inputs=inputs,
        outputs=outputs,
        opset=opset,
        shell=shell,
        batch=_fixed_batch(inputs),
    )


def _refuse_sizes(graph: GraphProto) -> None:
    if len(graph.node) > _MOST_NODES:
        raise ImportRefused(
            f"the file has {len(graph.node)} nodes, at most {_MOST_NODES} are read", hint="do not use this file"
        )
    if graph.sparse_initializer:
        raise ImportRefused("the file has sparse weights, dense ones are wanted", hint="export the network again")


def _inlined(model: ModelProto) -> ModelProto:
    """The model with its local functions in their places."""
    if not model.functions:
        return model
    from onnx import inliner

    if len(model.functions) > 1000:
        raise ImportRefused(
            f"the file has {len(model.functions)} functions, at most 1000 are read", hint="do not use this file"
        )
    try:
        result: ModelProto = inliner.inline_local_functions(model)
    except Exception as error:  # onnx's checker and inliner raise unrelated types
        raise ImportRefused(f"its functions cannot be put in their places: {one_line(error, 200)}") from error
    _refuse_sizes(result.graph)
    return result


def _refuse_kinds(graph: GraphProto, known: Collection[str]) -> None:
    """Quantised files, control flow, strangers' and unknown operators: each by name, count and first node."""
    nodes = list(graph.node)
    quantised = [node for node in nodes if node.op_type in _QUANTISED]
    if quantised:
        raise ImportRefused(
            f"the file is quantised: {_told(quantised)}; numbers of 8 bits cannot be pruned and recovered",
            hint="give the fp32 file that it was made from; compress export --precision int8 quantises the pruned one",
        )
    flow = [node for node in nodes if node.op_type in _FOLLOWED_BY_VALUE]
    if flow:
        raise ImportRefused(
            f"the file decides by values what it computes: {_told(flow)}",
            hint="export the network without control flow, or simplify the file with onnxsim for one size of its input",
        )
    strange = [node for node in nodes if node.domain not in STANDARD or node.op_type not in {*known, "Constant"}]
    if strange:
        raise ImportRefused(f"operators that are not known here: {_told(strange)}", hint=_without(strange, graph))


def _without(strange: Sequence[NodeProto], graph: GraphProto) -> str:
    """What can be done about operators that are not known: leave them out, or give another file."""
    if all(node.domain.startswith("com.microsoft") for node in strange):
        return "ONNX Runtime's own optimisation or its tools wrote them: give the file that they were given"
    late = {name for node in strange for name in node.output if name}
    for node in _in_order(graph):
        if late & set(node.input):
            late |= {name for name in node.output if name}
    behind = [node for node in graph.node if late & set(node.output)]
    front = {name for node in graph.node if not late & set(node.output) for name in node.output}
    ends = {name for node in behind for name in node.input} & front | {value.name for value in graph.output} - late
    if not ends & front or len(ends) > _MOST_ENDS or len(behind) > len(graph.node) - len(behind):
        return "report their names, or give the network without them"
    held = {tensor.name for tensor in graph.initializer}
    given = [value.name[:60] for value in graph.input if value.name not in held][:_MOST_ENDS]
    return (
        "they are behind the network: prune what onnx.utils.extract_model(FILE, 'front.onnx', "
        f"{given}, {sorted(name[:60] for name in ends)}) leaves, and put them back with onnx.compose.merge_models"
    )


def _told(nodes: Iterable[NodeProto]) -> str:
    """``Loop (2, first 'loop_1'), If (1, first 'if_7')``."""
    nodes = list(nodes)
    counted = Counter(_kind(node) for node in nodes)
    first = {_kind(node): node.name or (node.output[0] if node.output else "") for node in reversed(nodes)}
    shown = [f"{kind} ({count}, first {first[kind][:60]!r})" for kind, count in counted.most_common(6)]
    return ", ".join(shown) + (f" and {len(counted) - 6} more" if len(counted) > 6 else "")


def _kind(node: NodeProto) -> str:
    return (node.op_type if node.domain in STANDARD else f"{node.domain}:{node.op_type}")[:80]


def _in_order(graph: GraphProto) -> list[NodeProto]:
    """The nodes, each after those that it reads.

    Raises:
        ImportRefused: a value is made twice, comes from nowhere, or needs itself.
    """
    known = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input} | {""}
    made: set[str] = set()
    for node in graph.node:
        for name in node.output:
            if name and (name in made or name in known):
                raise ImportRefused(
                    f"the value {name[:80]!r} is made twice", hint="the file is damaged: copy or export it again"
                )
            made.add(name)
    waiting, ordered = list(graph.node), list[NodeProto]()
    while waiting:
        later = []
        for node in waiting:
            if all(name in known for name in node.input):
                ordered.append(node)
                known.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            lacking = next(name for node in later for name in node.input if name not in known)
            what = "needs itself" if lacking in made else "comes from nowhere"
            raise ImportRefused(f"the value {lacking[:80]!r} {what}", hint=_DAMAGED)
        waiting = later
    return ordered


def _without_copies(nodes: Sequence[NodeProto], outputs: Sequence[ValueInfoProto]) -> list[NodeProto]:
    """Without nodes that only pass a value on, except where the graph's output is named so."""
    last = {value.name for value in outputs}
    same: dict[str, str] = {}
    kept: list[NodeProto] = []
    for node in nodes:
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [same.get(name, name) for name in node.input]
        passes = node.op_type in ("Identity", "Dropout") and not (len(node.output) > 1 and node.output[1])
        if passes and node.output[0] not in last:
            same[node.output[0]] = copied.input[0]
        else:
            kept.append(copied)
    return kept


def _without_idle(nodes: Sequence[NodeProto], outputs: Sequence[ValueInfoProto]) -> list[NodeProto]:
    """Without nodes that nothing reads."""
    read = {value.name for value in outputs}
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if any(name in read for name in node.output if name):
            kept.append(node)
            read.update(node.input)
    return kept[::-1]


def _named(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """With a name each, and no name twice."""
    taken: set[str] = set()
    for number, node in enumerate(nodes):
        name = node.name or f"{node.op_type}_{number}"
        while name in taken:
            name += "_"
        taken.add(name)
        node.name = name
    return list(nodes)


def _refuse_interface(
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Constant],
) -> None:
    made = {name for node in nodes for name in node.output} | {value.name for value in inputs} | set(constants)
    if not inputs or not outputs or not nodes:
        raise ImportRefused(
            f"the file has {plural(len(inputs), 'input')}, {plural(len(outputs), 'output')} "
            f"and {plural(len(nodes), 'node')} between them",
            hint="give the file of a network",
        )
    for value in inputs:
        kind = value.type.tensor_type.elem_type
        if not value.type.HasField("tensor_type") or kind not in _FLOATS:
            name = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else str(kind)
            cure = "give the fp32 file that it was made from" if kind == TensorProto.FLOAT16 else "export it in fp32"
            raise ImportRefused(f"the input {value.name[:80]!r} is {name}, FLOAT or whole numbers are wanted", hint=cure)
    for value in outputs:
        if value.name not in made:
            raise ImportRefused(f"no node makes the output {value.name[:80]!r}", hint="the file is damaged: export it again")
    for name, array in constants.items():
        if array.dtype.kind == "f" and array.dtype.itemsize == 2:
            raise ImportRefused(
                f"the file is in half precision (the constant {name[:80]!r})", hint="give the fp32 file that it was made from"
            )


def _fixed_batch(inputs: Sequence[ValueInfoProto]) -> int:
    """The first dimension that all inputs of two or more dimensions are fixed to; 0 where one is open."""
    first = {dims[0] for value in inputs if len(dims := dims_of(value)) > 1}
    return first.pop() if len(first) == 1 and -1 not in first else 0


def parsed(data: bytes) -> ModelProto:
    """A model from bytes.

    Raises:
        ImportRefused: they are none.
    """
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's exceptions share no base class
        raise ImportRefused("the network's graph is damaged", hint="copy the file again") from error
