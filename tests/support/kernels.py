"""Which kernels ONNX Runtime really chose for a file: whether widths suit it, without timing anything."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from compress.runtime import OrtRuntime

_BLOCKED = "com.microsoft.nchwc"
_CONVOLUTIONS = frozenset({"Conv", "FusedConv"})


@dataclass(frozen=True, slots=True)
class Kernels:
    """The convolutions of ONNX Runtime's optimised graph.

    Attributes:
        fast: in its blocked layout (``nchwc``).
        slow: in the plain one.
        reorders: conversions between the two.
        counts: every operator, with its domain where that is not ONNX's own.
    """

    fast: int
    slow: int
    reorders: int
    counts: Mapping[str, int]


def kernels(path: Path, runtime: OrtRuntime | None = None) -> Kernels:
    """Counts the kernels of an ONNX file.

    Args:
        path: an ONNX file.
        runtime: whose optimiser; the CPU's by default.

    Raises:
        ModelError: the file cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="compress-kernels-") as folder:
        written = Path(folder) / "optimised.onnx"
        with replace(runtime or OrtRuntime(), optimised_to=str(written)).load(path):
            graph = onnx.load(str(written), load_external_data=False).graph
    counts = Counter(f"{'nchwc:' if n.domain == _BLOCKED else ''}{n.op_type}" for n in graph.node)
    fast = sum(1 for n in graph.node if n.domain == _BLOCKED and n.op_type == "Conv")
    slow = sum(1 for n in graph.node if n.domain != _BLOCKED and n.op_type in _CONVOLUTIONS)
    return Kernels(fast, slow, sum(v for k, v in counts.items() if "Reorder" in k), dict(counts))
