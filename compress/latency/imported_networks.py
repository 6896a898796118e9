"""A network that came from an ONNX file, at any widths: its own nodes with smaller weights, on ONNX Runtime."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import nn

from compress.core import Plan, Topology
from compress.errors import ModelError
from compress.importing import ImportedNetwork, written
from compress.latency.profiling import profile
from compress.latency.table_networks import by_layer
from compress.runtime import OrtRuntime
from compress.signature import bare
from compress.surgery import cut


@dataclass(frozen=True, slots=True)
class ImportedNetworks:
    """ONNX files of one imported network at any widths.

    Attributes:
        model: unpruned.
        topology: its topology.
        runtime: what runs them.
    """

    model: nn.Module
    topology: Topology
    runtime: OrtRuntime
    suffix: str = ".onnx"

    def write(self, plan: Plan, path: Path) -> None:
        """The file of the network cut by a plan; weights are called by their modules, so that kernels lead back to them."""
        model = bare(cut(self.model, self.topology, plan) if plan else self.model)
        if not isinstance(model, ImportedNetwork):
            raise ModelError(f"{type(model).__name__} did not come from an ONNX file", hint="measure its exported file")
        # Sizes that the file leaves open are told in it.
        sizes = [{"name": name, "shape": list(shape[1:])} for name, shape in model.axes.sizes.items()]
        onnx.save(_by_module(written(model, {"inputs": json.dumps(sizes)}), model), path)

    def layers(self, path: Path, seconds: float) -> tuple[float, ...]:
        """Seconds of each layer in a profiled session."""
        return by_layer(profile(path, runtime=self.runtime, seconds=seconds, least_runs=8, most_runs=60), self.topology)

    def forget(self, path: Path) -> None:
        """Deletes a file."""
        path.unlink()


def _by_module(proto: onnx.ModelProto, network: ImportedNetwork) -> onnx.ModelProto:
    """Every layer's weight under its module's name; one that several layers share is each one's own."""
    initial = {tensor.name: tensor for tensor in proto.graph.initializer}
    steps = {network.graph.nodes[step.node].name: step for step in network.steps}
    for node in proto.graph.node:
        step = steps.get(node.name)
        for held in step.made.held if step is not None else ():
            name = node.input[held.place]
            if step is not None and held.key == "weight" and name in initial:
                own = proto.graph.initializer.add()
                own.CopyFrom(initial[name])
                own.name = node.input[held.place] = f"{step.name}.weight"
    read = {name for node in proto.graph.node for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return proto
