"""The network that an ONNX file becomes: one module a node, run in the file's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.importing.graph import Graph, dims_of
from compress.importing.node import Made
from compress.importing.sizes import as_tensor, is_sizes


@dataclass(frozen=True, eq=False)
class NodeStep:
    """One node's turn.

    Attributes:
        node: which node of the graph it is.
        name: of its module.
        inputs: names of the values that the module is called with.
        outputs: names of what it returns.
        done: values that nothing reads afterwards.
        made: how the module stands for the node.
    """

    node: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    done: tuple[str, ...]
    made: Made

    def __deepcopy__(self, memo: Any) -> NodeStep:
        return self


@dataclass(frozen=True)
class Axes:
    """Which dimension of each input and output counts examples; None for none.

    Attributes:
        inputs: name -> dimension.
        outputs: name -> dimension.
        sizes: name of an input -> its shape in the run that found them, the batch among it as 1.
    """

    inputs: Mapping[str, int | None]
    outputs: Mapping[str, int | None]
    sizes: Mapping[str, tuple[int, ...]]


class ImportedNetwork(nn.Module):
    """Computes what the file computes. Its tensors may be trained and cut like any network's.

    Attributes:
        graph: the file's, the weights left out.
        steps: in order.
        axes: of its inputs and outputs.
    """

    graph: Graph
    steps: Sequence[NodeStep]
    axes: Axes

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.steps = ()

    @property
    def leaves_sizes_open(self) -> bool:
        """Whether the file takes inputs of other sizes than it was imported at, the batch apart."""
        return any(-1 in dims_of(value)[1:] for value in self.graph.inputs)

    def run(self, given: Sequence[Any]) -> Any:
        """Its one output, or a dict of them by name."""
        values: dict[str, Any] = dict(zip(self.graph.input_names, given, strict=True))
        for step in self.steps:
            found = self.get_submodule(step.name)(*[values[name] for name in step.inputs])
            if not isinstance(found, tuple | list):
                found = (found,)
            values.update(zip(step.outputs, found, strict=False))
            for name in step.done:
                values.pop(name, None)  # a second output that no module makes, as the mask of a dropout
        outputs = {name: as_tensor(x) if is_sizes(x := values[name]) else x for name in self.graph.output_names}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def forward(self, *inputs: Tensor) -> Any:
        """One tensor for each input of the file."""
        return self.run(inputs)


class ImportedOfOne(ImportedNetwork):
    """With a single input."""

    def forward(self, input: Tensor) -> Any:  # type: ignore[override]
        """One batch."""
        return self.run((input,))


def example_of(network: ImportedNetwork, count: int = 1, seed: int = 0) -> tuple[Tensor, ...]:
    """Random inputs of the sizes that the network was imported at, with so many examples."""
    from compress.importing.random_inputs import random_of

    generator = torch.Generator().manual_seed(seed)
    return random_of(network, count, "normal", generator)
