"""What a cut costs once its readers have adapted: readers re-solved from second moments that were taken once.

Ridge least squares pulled towards the old weights, as in ``recovery.reconstruction``, but for every candidate of a search: the
moments are those of the unpruned network, so nothing runs, and a layer's solution depends only on which of its inputs stay.
With the covariance ``A`` of a reader's inputs, its old weights ``W``, the kept columns ``K`` and the removed ones ``S``,
``W_K' = W_K + (A_KK + rI)^-1 A_KS W_S``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.core import Layer, LayerName, Plan, Topology, kept_positions
from compress.recovery.moments import Gram, Moments
from compress.recovery.unfolding import filters

RIDGE = 1e-3
"""Pull towards the old weights, relative to the mean variance of a layer's inputs."""
MOST_COLUMNS = 2304
"""Columns (256 channels of 3x3) beyond which solving a layer would cost more than running it on the search's images."""
_FEW_REMEMBERED, _MANY_REMEMBERED = 256 << 20, 1 << 30
_REMEMBERED_TIMES = 16
"""Times the weights: the readers of a stage's population, about, which all come before the first one comes again."""


def remembered_bytes(weights: int) -> int:
    """Bytes of solutions that are kept at the most: evolution recombines whole layers, so the same inputs come again.

    Args:
        weights: bytes of the network's.
    """
    return min(_MANY_REMEMBERED, max(_FEW_REMEMBERED, _REMEMBERED_TIMES * weights))


class Compensation:
    """Re-solves the readers of candidates.

    Args:
        state: the unpruned network's tensors.
        topology: its topology.
        moments: of the unpruned network.
        ridge: pull towards the old weights.
        most_columns: readers with more columns keep their weights.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        topology: Topology,
        moments: Moments,
        *,
        ridge: float = RIDGE,
        most_columns: int = MOST_COLUMNS,
    ) -> None:
        self.state = state
        self.topology = topology
        self.ridge = ridge
        shared = {info.same_as for info in topology.tensors.values() if info.same_as}
        self.grams: dict[LayerName, Gram] = {}
        for name, gram in moments.layers.items():
            layer = topology.by_layer[name]
            weight = layer.weight
            if _columns(state[weight], layer) == len(gram.columns) <= most_columns and weight not in shared:
                self.grams[name] = gram
        self.most = remembered_bytes(_size(state.values()))
        self.bytes = 0
        self._known: OrderedDict[tuple[LayerName, bytes], tuple[Tensor, Tensor]] = OrderedDict()

    def __call__(self, plan: Plan, keys: Collection[str] | None = None, /) -> dict[str, Tensor]:
        """The tensors that change, still at their full size: cutting them by the plan gives the compensated network.

        Only weights among ``keys`` are looked at, where these are given. Layers whose removed inputs are folded into others
        are left alone: folding is a compensation of its own.
        """
        folded = {(m.key, m.dim) for g, cut in plan.cuts.items() if cut.fold for m in self.topology.by_id[g].members}
        table = kept_positions(self.topology, plan)
        changed: dict[str, Tensor] = {}
        for name, gram in self.grams.items():
            layer = self.topology.by_layer[name]
            slot = (layer.weight, layer.read_dim)
            kept = table.get(slot)
            if kept is None or slot in folded or (keys is not None and layer.weight not in keys):
                continue
            weight, shift = self._solution(layer, gram, np.sort(kept))
            changed[layer.weight] = weight
            bias = f"{layer.weight.rpartition('.')[0]}.bias"
            if bias in self.state:
                changed[bias] = self.state[bias] + shift
        return changed

    def _solution(self, layer: Layer, gram: Gram, kept: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """What :func:`solve` finds; of what was found before, the columns that stay were kept."""
        key, weight, stays = (layer.name, kept.tobytes()), self.state[layer.weight], torch.from_numpy(kept)
        if key in self._known:
            self._known.move_to_end(key)
            columns, shift = self._known[key]
            rows = filters(weight, layer)
            whole = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device).copy_(rows)
            whole[:, stays] = columns
            return _laid(filters(whole, layer), weight), shift
        solved, shift = solve(weight, layer, gram, kept, self.ridge)
        self._known[key] = filters(solved, layer)[:, stays], shift
        self.bytes += _size(self._known[key])
        while self.bytes > self.most and len(self._known) > 1:
            self.bytes -= _size(self._known.popitem(last=False)[1])
        return solved, shift


def solve(weight: Tensor, layer: Layer, gram: Gram, kept: NDArray[np.int64], ridge: float) -> tuple[Tensor, Tensor]:
    """A reader's weights for the inputs that stay, and what its bias has to make up for.

    Args:
        weight: of the unpruned layer, convolution or linear.
        layer: which one it is.
        gram: second moments of its inputs.
        kept: indices of its reading dimension that stay, ascending.
        ridge: pull towards the old weights.

    Returns:
        The weight in its old shape, of which the removed columns mean nothing any more, and the shift of the outputs' mean,
        shape (outputs,).
    """
    rows = filters(weight, layer)
    taps = rows[0, 0].numel()
    stays = torch.zeros(rows[0].numel() // taps, dtype=torch.bool)
    stays[torch.from_numpy(kept)] = True
    stays = stays.repeat_interleave(taps)
    kept_columns, gone = stays.nonzero()[:, 0], (~stays).nonzero()[:, 0]
    old = rows.detach().double().cpu().reshape(layer.cardinality, -1, len(stays)).transpose(1, 2)  # (g, columns, outputs)
    A = gram.covariance
    level = A.diagonal(dim1=1, dim2=2).double().mean(1)
    mine = A.index_select(1, kept_columns)  # narrow first: of wide layers everything in double is most of the work
    inner, across = (mine.index_select(2, columns).double() for columns in (kept_columns, gone))
    inner.diagonal(dim1=1, dim2=2).add_((ridge * level).clamp(min=torch.finfo(torch.float64).tiny)[:, None])
    factor, failed = torch.linalg.cholesky_ex(inner)
    new = old.clone()
    if not bool(failed.any()):
        new[:, stays] += torch.cholesky_solve(across @ old[:, gone], factor)
    mean = gram.mean.double()[:, :, None]
    shift = (old * mean).sum(1) - (new * mean)[:, stays].sum(1)
    return _laid(filters(new.transpose(1, 2).reshape(rows.shape), layer), weight), shift.flatten().to(weight)


def _laid(solved: Tensor, weight: Tensor) -> Tensor:
    """In the weight's type and layout: in another one torch would round otherwise."""
    solved = solved.to(weight).contiguous()
    if weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        solved = solved.contiguous(memory_format=torch.channels_last)
    return solved


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _columns(weight: Tensor, layer: Layer) -> int:
    return filters(weight, layer)[0].numel()
