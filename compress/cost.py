"""What a plan costs, counted from integers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from compress.plan import Plan
from compress.topology import Topology

_EMPTY = Plan()


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one image through a network.

    Attributes:
        macs: multiply-accumulates of convolutions and linear layers; FLOPs = 2 * macs.
        params: learned numbers.
    """

    macs: int
    params: int

    def share_of(self, whole: Cost) -> Share:
        """This cost as fractions of another."""
        return Share(self.macs / max(whole.macs, 1), self.params / max(whole.params, 1))


@dataclass(frozen=True, slots=True)
class Share:
    """Fractions of the original that are kept, in (0, 1]."""

    macs: float
    params: float


def sizes_after(topology: Topology, plan: Plan) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that the plan changes.

    Counting never lists positions: a channel's share of a dimension is a number (``Topology.occupancy``), so this costs
    a few dot products and serves a search.
    """
    shapes: dict[str, list[int]] = {}
    for group_id, cut in plan.cuts.items():
        for key, dim, taken in topology.occupancy[group_id]:
            shape = shapes.setdefault(key, list(topology.tensors[key].shape))
            shape[dim] -= int(taken.sum()) - int(taken[list(cut.keep)].sum())
    for name, reads in plan.inputs.items():
        layer = topology.by_layer[name]
        shape = shapes.setdefault(layer.weight, list(topology.tensors[layer.weight].shape))
        shape[layer.read_dim] = _still_read(topology, plan, layer.weight, layer.read_dim, reads)
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


def count(topology: Topology, plan: Plan = _EMPTY) -> Cost:
    """MACs and parameters of the network after a plan.

    Args:
        topology: the traced network.
        plan: what is removed; nothing by default.
    """
    macs, params = topology.whole
    for key, shape in sizes_after(topology, plan).items():
        info = topology.tensors[key]
        lost = math.prod(info.shape) - math.prod(shape)
        macs -= info.sites * lost
        params -= lost if info.parameter else 0
    return Cost(macs, params)
