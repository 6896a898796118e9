"""Constants that several nodes read: one for a layer that is used several times, one each where equal numbers were merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import NodeProto

from compress.importing.graph import Constant

_LAYERS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU"})


def separated(nodes: Sequence[NodeProto], constants: Mapping[str, Constant]) -> tuple[list[NodeProto], dict[str, Constant]]:
    """The nodes, with names of their own for floating-point constants that they only happen to share.

    Exporters merge initialisers that are equal, such as the zero biases of many layers, and these are cut differently. A layer
    that is really used several times has all of its constants in common, and weights that are not all the same number.
    """
    owners: dict[str, tuple[object, ...]] = {}
    renamed: dict[tuple[object, ...], str] = {}
    found = dict(constants)
    for node in nodes:
        whole = _layer(node, constants)
        for place, name in enumerate(node.input):
            array = constants.get(name)
            if array is None or array.dtype.kind != "f" or array.size < 2:
                continue
            owner = (whole, place) if whole is not None else (node.name, place)
            if owners.setdefault(name, owner) != owner:
                own = renamed.get((name, owner), f"{node.name}.{place}")
                while own in found and (name, owner) not in renamed:
                    own += "_"
                node.input[place], found[own] = own, array
                renamed[name, owner] = own  # other uses of this layer find it again
    return list(nodes), found


def _layer(node: NodeProto, constants: Mapping[str, Constant]) -> object | None:
    """What all uses of a layer have in common; None for what is no layer with weights of its own."""
    if node.op_type not in _LAYERS or len(node.input) < 2:
        return None
    weight = constants.get(node.input[1])
    if weight is None or weight.ndim < 2 or weight.size < 2:
        return None
    emptied = all(step == 0 or n == 1 for step, n in zip(weight.strides, weight.shape, strict=True))
    if not emptied and bool((weight == weight.flat[0]).all()):
        return None
    attributes = tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute))
    return (node.op_type, tuple(name if name in constants else "" for name in node.input), attributes)
