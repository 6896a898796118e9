"""What a plan costs, counted from integers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from compress.core.latency_table import LatencyTable
from compress.core.plan import Plan, canonical, gone_keys
from compress.core.topology import Topology

_EMPTY = Plan()


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one image through a network.

    Attributes:
        macs: multiply-accumulates of convolutions and linear layers; FLOPs = 2 * macs.
        params: learned numbers.
        latency: time over the unpruned network's, predicted from a table; None without one.
    """

    macs: int
    params: int
    latency: float | None = None

    def share_of(self, whole: Cost) -> Share:
        """This cost as fractions of another."""
        latency = None if self.latency is None else self.latency / (whole.latency or 1.0)
        return Share(self.macs / max(whole.macs, 1), self.params / max(whole.params, 1), latency)


@dataclass(frozen=True, slots=True)
class Share:
    """Fractions of the original that are kept, in (0, 1]; latency may exceed 1, and is None where no table predicts it."""

    macs: float
    params: float
    latency: float | None = None


def sizes_after(topology: Topology, plan: Plan) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that the plan changes; nothing but zeros for those that go with their branch.

    Counting never lists positions: a channel's share of a dimension is a number (``Topology.occupancy``), so this costs
    a few dot products and serves a search.
    """
    shapes: dict[str, list[int]] = {}
    plan = canonical(topology, plan)
    for group_id, cut in plan.cuts.items():
        kept, size = np.array(cut.keep), topology.by_id[group_id].size
        for (key, dim, taken), each in zip(topology.occupancy[group_id], topology.each[group_id], strict=True):
            shape = shapes.setdefault(key, list(topology.tensors[key].shape))
            shape[dim] -= each * (size - len(kept)) if each >= 0 else int(taken.sum()) - int(taken[kept].sum())
    for name, reads in plan.inputs.items():
        layer = topology.by_layer[name]
        shape = shapes.setdefault(layer.weight, list(topology.tensors[layer.weight].shape))
        shape[layer.read_dim] = _still_read(topology, plan, layer.weight, layer.read_dim, reads)
    for key in gone_keys(topology, plan.branches):
        shapes[key] = [0] * len(topology.tensors[key].shape)
    return {key: tuple(shape) for key, shape in shapes.items()}


def _still_read(topology: Topology, plan: Plan, key: str, dim: int, reads: tuple[int, ...]) -> int:
    wanted = np.zeros(topology.tensors[key].shape[dim], dtype=bool)
    wanted[list(reads)] = True
    for group_id, member in topology.slots.get((key, dim), ()):
        cut = plan.cuts.get(group_id)
        if cut is not None:
            indices, owners = topology.flat[group_id, (key, dim)]
            gone = np.ones(len(member.positions), dtype=bool)
            gone[list(cut.keep)] = False
            wanted[indices[gone[owners]]] = False
    return int(wanted.sum())


def count(topology: Topology, plan: Plan = _EMPTY, *, table: LatencyTable | None = None) -> Cost:
    """MACs and parameters of the network after a plan, and its latency where a table is given.

    Args:
        topology: the traced network.
        plan: what is removed; nothing by default.
        table: measured for this network on the machine that matters.

    Raises:
        ConfigError: the table is of another network.
    """
    macs, params = topology.whole
    shapes = sizes_after(topology, plan)
    for key, shape in shapes.items():
        info = topology.tensors[key]
        lost = math.prod(info.shape) - (math.prod(shape) if shape else 0)
        macs -= info.sites * lost
        params -= lost if info.parameter else 0
    latency = None if table is None else table.predict(topology, shapes, frozenset(plan.inputs))
    return Cost(macs, params, latency)
