"""A network at any widths, on torch: what a latency table of torch's own runtimes is measured with."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from compress.core import Plan, Topology
from compress.latency.table_networks import by_layer
from compress.latency.torch_profiling import profile_modules
from compress.runtime import TorchRuntime
from compress.surgery import cut


@dataclass(frozen=True, slots=True)
class ModuleNetworks:
    """One network at any widths; paths are names in memory, no file is written.

    Attributes:
        model: unpruned.
        topology: its topology.
        modules: what stands for which path; the runtime opens copies of them.
        runtime: what runs them.
    """

    model: nn.Module
    topology: Topology
    modules: MutableMapping[Path, nn.Module]
    runtime: TorchRuntime
    suffix: str = ""

    def write(self, plan: Plan, path: Path) -> None:
        """The network cut by a plan."""
        self.modules[path] = cut(self.model, self.topology, plan) if plan else self.model

    def layers(self, path: Path, seconds: float) -> tuple[float, ...]:
        """Seconds of each layer; batch norms, activations and sums count to the layer that runs next."""
        times = profile_modules(path, runtime=self.runtime, seconds=seconds, least_runs=8, most_runs=60, launches=False)
        return by_layer(times[0], self.topology)

    def forget(self, path: Path) -> None:
        """Lets a network go."""
        del self.modules[path]
