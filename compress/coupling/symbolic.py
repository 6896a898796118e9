"""A network's Python code as a graph of its layers, where that can be had (torch.fx)."""

from __future__ import annotations

from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from compress.errors import CompressError
from compress.surgery import Skipped


class NotTraceable(CompressError):
    """The network's Python code cannot be turned into a graph; whole forwards serve instead."""


def symbolic_graph(model: nn.Module) -> fx.Graph:
    """The network's graph of leaf modules and functions.

    Raises:
        NotTraceable: its forward depends on values.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # fx raises whatever the user's code makes of a proxy
        raise NotTraceable(f"no stage-wise search on {type(model).__name__}: {type(error).__name__}: {error}") from error
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        raise NotTraceable(f"no stage-wise search on {type(model).__name__}: its forward takes more than images")
    return graph


class _Tracer(fx.Tracer):
    """Layers stay modules, whoever wrote their class; so do channel maps, whose table a cut rewrites, and what is skipped."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        layer = isinstance(m, _ConvNd | nn.Linear | _NormBase | nn.LayerNorm | nn.GroupNorm | Skipped)
        return layer or bool(getattr(m, "is_channel_map", False)) or super().is_leaf_module(m, module_qualified_name)
