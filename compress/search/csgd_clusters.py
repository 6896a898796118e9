"""Clusters of filters for Centripetal SGD: which filters shall become equal, so that all but one of each cluster can go.

Ding, Ding, Guo, Han: Centripetal SGD for Pruning Very Deep Convolutional Networks with Complicated Structure, CVPR 2019.
Hao, Ding, Han, Guo, Ding: Manipulating Identical Filter Redundancy for Efficient Pruning on Deep and Complicated CNN, TNNLS.

The papers': every layer is divided once, before training, into as many clusters as filters shall remain: by k-means on the
flattened kernels (the default), evenly by position, or into one big cluster and singletons. Layers whose outputs are added
share one division.

Ours: k-means sees the concatenated kernels of all layers that write a group (the papers let one of them decide), each set of
interchangeable channels is divided by itself, and the widths are the largest uniform share that meets the target, aligned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from compress.core import Cut, Floats, GroupId, Indices, Plan, Topology
from compress.errors import SearchError
from compress.search.base import Search, scored
from compress.search.cluster import clustered
from compress.search.front import thinned
from compress.search.space import Space
from compress.search.widths import Widths, even_widths, orbits, scaled

Division = Literal["kmeans", "even", "imbalanced"]


@dataclass(frozen=True, slots=True)
class Clusters:
    """Uniform widths, and clusters of as many filters as must become one.

    Attributes:
        clusters: ``kmeans`` on the filters; ``even``: consecutive chunks; ``imbalanced``: one big cluster and singletons.
            Cost: a clustering per group for ``kmeans``.
        squeeze: divide every width by this instead of looking for the widths that meet the target: a network that was trained
            1.5 times as wide goes back to its original widths with 1.5. None turns it off. Cost: none.
        restarts: starts of k-means, of which the best clustering is taken. Cost: the clusterings' time in proportion.
        points: for a target of accuracy, how many budgets between 0.1 and 0.95 are tried. Cost: a clustering and all judged
            images for each.
        images: images for each plan's score, which is that of the untrained network; 0 leaves it to the evaluator. Cost:
            image-forwards in proportion.
    """

    clusters: Division = "kmeans"
    squeeze: Annotated[float, Field(gt=1, lt=100)] | None = None
    restarts: PositiveInt = 3
    points: PositiveInt = 18
    images: NonNegativeInt = 0

    @property
    def criteria(self) -> tuple[str, ...]:
        """What it looks at besides the run's ranking."""
        return ()

    def search(self, space: Space, rng: np.random.Generator) -> Search:
        """One plan per budget, all scored at full fidelity as they are before any training."""
        plans = [self.plan(space, b) for b in self._budgets(space)]
        plans = list(dict.fromkeys(p for p in plans if p))
        affordable = max(1, space.budget // max(2 * self.images or space.full_images, 1))
        plans = list(thinned(plans, min(len(plans), affordable)))
        if not plans:
            raise SearchError(
                "no filters need to become equal: the target keeps every width",
                hint="a smaller target, or a smaller --round-to",
            )
        return (yield from scored(space, plans, self.images))

    def plan(self, space: Space, budget: float) -> Plan:
        """The clusters at the largest uniform widths within a budget, or at the squeezed widths."""
        widths = even_widths(space, budget) if self.squeeze is None else scaled(space, 1 / self.squeeze)
        return clusters_at(space.topology, space.statistics.kernels, widths, self.clusters, self.restarts)

    def _budgets(self, space: Space) -> Sequence[float]:
        if self.squeeze is None and space.target.kind == "max_drop":
            budgets: list[float] = np.linspace(0.1, 0.95, self.points).tolist()
            return budgets
        return [space.target.value]


def clusters_at(
    topology: Topology, kernels: Mapping[GroupId, Floats], widths: Widths, division: Division = "kmeans", restarts: int = 3
) -> Plan:
    """The plan that makes so many clusters of every orbit; the first of a cluster stays, the others are folded into it.

    Args:
        topology: the network.
        kernels: group -> its filters, flattened, shape (channels, features); only k-means looks at them.
        widths: group -> clusters per orbit; a group that is not named, or stays whole, is left out.
        division: how filters are put together.
        restarts: of k-means.
    """
    cuts = {}
    for group_id, counts in widths.items():
        group = topology.by_id[group_id]
        keep: list[int] = []
        fold: dict[int, int] = {}
        for orbit, count in zip(orbits(group), counts, strict=True):
            channels = np.array(orbit)
            known = kernels[group_id][channels] if division == "kmeans" else np.zeros((len(orbit), 1))
            labels = divided(known, count, division, restarts)
            for label in range(count):
                first, *others = channels[labels == label].tolist()
                keep.append(first)
                fold |= dict.fromkeys(others, first)
        if fold:
            cuts[group_id] = Cut(tuple(sorted(keep)), fold)
    return Plan(cuts)


def divided(kernels: Floats, count: int, division: Division, restarts: int) -> Indices:
    """The cluster of each filter, 0 to count - 1, none of them empty."""
    size = len(kernels)
    if count >= size:
        return np.arange(size)
    if division == "even":
        return np.arange(size) * count // size
    if division == "imbalanced":
        return np.maximum(np.arange(size) - (size - count), 0)
    labels = clustered(kernels, count, restarts)
    _, labels = np.unique(labels, return_inverse=True)
    for fresh in range(int(labels.max()) + 1, count):  # filters coincide: k-means cannot tell them apart
        largest = int(np.argmax(np.bincount(labels)))
        labels[np.flatnonzero(labels == largest)[-1]] = fresh
    return labels.astype(np.int64)
