"""A network's ONNX file at any widths, on ONNX Runtime: what a latency table is measured with.

Each network is the unpruned one's file with a plan applied to it (``export.cutting_onnx``), so that twenty of them cost one
export. Layers are timed by ONNX Runtime's profiling.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from compress.core import Plan, Topology
from compress.export import Resizable, write_resized
from compress.latency.profiling import profile
from compress.latency.table_networks import by_layer
from compress.runtime import OrtRuntime


@dataclass(frozen=True, slots=True)
class OnnxNetworks:
    """ONNX files of one network at any widths.

    Attributes:
        source: the unpruned network's file.
        runtime: what runs them.
    """

    source: Resizable
    runtime: OrtRuntime
    suffix: str = ".onnx"

    @property
    def topology(self) -> Topology:
        """Of the unpruned network."""
        return self.source.topology

    def write(self, plan: Plan, path: Path) -> None:
        """The file with a plan applied."""
        if plan:
            write_resized(self.source, plan, path)
        else:
            onnx.save(self.source.model, path)

    def layers(self, path: Path, seconds: float) -> tuple[float, ...]:
        """Seconds of each layer in a profiled session."""
        return by_layer(profile(path, runtime=self.runtime, seconds=seconds, least_runs=8, most_runs=60), self.topology)

    def forget(self, path: Path) -> None:
        """Deletes a file."""
        path.unlink()


def block_of(runtime: OrtRuntime) -> int:
    """Output channels that this machine's convolutions are padded to: 16 with AVX-512, 8 with AVX2, 1 where nothing is."""
    width, least = 17, 4  # 17 channels become 32 in blocks of 16, and 24 in blocks of 8
    weight = helper.make_tensor("c.weight", 1, [width, least, 1, 1], np.ones(width * least, dtype=np.float32).tolist())
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "c.weight"], ["y"], name="c")],
        "block",
        [helper.make_tensor_value_info("x", 1, ["batch", least, 8, 8])],
        [helper.make_tensor_value_info("y", 1, ["batch", width, 8, 8])],
        [weight],
    )
    with tempfile.TemporaryDirectory(prefix="compress-block-") as folder:
        path = Path(folder) / "block.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        made = next(k for k in profile(path, runtime=runtime, seconds=1e-3, least_runs=2).kernels if k.macs)
    return {32: 16, 24: 8}.get(made.output[1], 1)
