"""Centripetal SGD: training that makes the filters of a cluster equal, so that all but one of them can go without a loss.

Ding, Ding, Guo, Han: Centripetal SGD for Pruning Very Deep Convolutional Networks with Complicated Structure, CVPR 2019.
Hao, Ding, Han, Guo, Ding: Manipulating Identical Filter Redundancy for Efficient Pruning on Deep and Complicated CNN, TNNLS.

The papers': for filter j of cluster H, ``F_j <- F_j - lr [mean_H(dL/dF) + wd F_j + eps (F_j - mean_H(F))]``; batch-norm scale
and shift and biases the same with 0.1 eps and without weight decay; biases learn twice as fast; the trim keeps one filter of a
cluster and sums the input columns of the cluster in every layer that reads it; no fine-tuning afterwards.

Ours: whatever belongs to a channel is treated, read off the topology (all writers of a residual stream, the batch norms on a
concatenation, depthwise followers); a schedule that cannot make filters equal is refused before it starts; the clusters are
averaged exactly before the trim, running statistics included.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import Plan, Role, Topology, check, plural
from compress.errors import TrainError
from compress.recovery.pull_strength import BIASES, VECTORS, Strength, strength
from compress.recovery.schedule import Schedule, steps_per_epoch
from compress.recovery.training import GradientRewrite, LabelledImages, fit
from compress.recovery.training_events import TrainingEvent
from compress.surgery import is_channel_map

EQUAL = 1e-3
"""A larger deviation inside clusters, of a tensor's norm, is a training that did not draw them together."""


@dataclass(frozen=True)
class Tied:
    """One dimension of one tensor, its slices divided into clusters.

    Attributes:
        key: state_dict key.
        dim: the dimension.
        owner: slice -> its cluster, int64, shape (slices,).
        sizes: slices of each cluster, float32, shape (clusters,).
        learned: whether it is a parameter (running statistics are not).
    """

    key: str
    dim: int
    owner: Tensor
    sizes: Tensor
    learned: bool

    def mean(self, tensor: Tensor) -> Tensor:
        """Every slice replaced by the mean of its cluster."""
        result = tensor.clone(memory_format=torch.contiguous_format)
        self.pull(result, torch.zeros_like(result), 0.0)
        return result

    def pull(self, grad: Tensor, weight: Tensor, eps: float) -> None:
        """In place, grad becomes P(grad - eps W) + eps W, with P the average over clusters; O(size)."""
        slopes, slices = _rows(grad, weight, self.dim)
        own = slopes.data_ptr() == grad.data_ptr()
        owner, sizes = self.owner.to(grad.device), self.sizes.to(grad.device, grad.dtype)
        slopes.sub_(slices, alpha=eps)
        sums = slopes.new_zeros(len(sizes), slopes.shape[1]).index_add_(0, owner, slopes)
        torch.index_select(sums.div_(sizes[:, None]), 0, owner, out=slopes)
        slopes.add_(slices, alpha=eps)
        if not own:
            front = grad.movedim(self.dim, 0)
            front.copy_(slopes.view(front.shape))


def _rows(grad: Tensor, weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Both as (slices, everything else) in the same order; of the gradient a view where its memory allows, else a copy.

    A row in the order of its memory is several times faster to add than a strided one.
    """
    first, second = grad.movedim(dim, 0), weight.movedim(dim, 0)
    if first.dim() == 4 and all(t.is_contiguous(memory_format=torch.channels_last) for t in (first, second)):
        first, second = first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)
    rows = first.reshape(len(first), -1)
    return rows if rows.is_contiguous() else rows.contiguous(), second.reshape(len(second), -1)


def tied_slices(topology: Topology, plan: Plan) -> tuple[Tied, ...]:
    """Everything that must become equal for a plan's folds to be exact: all that belongs to the channels, per tensor.

    Raises:
        PlanError: the plan does not fit.
        TrainError: a channel goes without being folded, or moments are taken over channels that should become one.
    """
    check(topology, plan)
    owners: dict[tuple[str, int], list[int]] = {}
    for group_id, cut in plan.cuts.items():
        group = topology.by_id[group_id]
        lost = set(range(group.size)) - set(cut.keep) - set(cut.fold)
        if lost or plan.inputs:
            raise TrainError(
                f"group {group_id}: {plural(len(lost), 'channel')} without a cluster"
                if lost
                else f"{next(iter(plan.inputs))} selects inputs, which Centripetal SGD cannot realise",
                hint="realise this plan with --realise cut",
            )
        if cut.fold and not topology.foldable(group_id):
            raise TrainError(
                f"group {group_id} runs through a layer or group norm: its channels cannot become one exactly",
                hint=f'leave it alone with --ignore "{group_id}", or use --realise cut',
            )
        for member in group.members:
            if member.role is not Role.WRITES or is_channel_map(member.key, topology):
                continue
            info = topology.tensors[member.key]
            slot = (info.same_as or member.key, member.dim)
            owner = owners.setdefault(slot, list(range(info.shape[member.dim])))
            for removed, heir in cut.fold.items():
                for place, its in zip(member.positions[removed], member.positions[heir], strict=True):
                    owner[place] = its
    found = []
    for (key, dim), firsts in owners.items():
        _, owner_of, sizes = np.unique(np.array(firsts), return_inverse=True, return_counts=True)
        if sizes.max() > 1:
            tied = Tied(
                key=key,
                dim=dim,
                owner=torch.from_numpy(owner_of.astype(np.int64)),
                sizes=torch.from_numpy(sizes.astype(np.float32)),
                learned=topology.tensors[key].parameter,
            )
            found.append(tied)
    return tuple(found)


class Pull:
    """The gradient rewrite, between backward and step; the decay ``wd W`` is the optimiser's own.

    ``P(grad) + eps (W - P(W))``, with P the average over clusters, is computed as ``P(grad - eps W) + eps W``: one pass. The
    optimiser adds ``wd W`` to tensors of two or more dimensions only, which is what the papers want. A constant factor on a
    gradient is the same factor on the learning rate.

    Args:
        tied: from :func:`tied_slices`.
        eps: strength of the pull on tensors of two or more dimensions.
        vector_eps: on all others; a tenth by default.
    """

    def __init__(self, tied: tuple[Tied, ...], eps: float, vector_eps: float | None = None) -> None:
        self.tied = tuple(t for t in tied if t.learned)
        self.eps = eps
        self.vector_eps = VECTORS * eps if vector_eps is None else vector_eps
        self._placed: tuple[torch.device, tuple[Tied, ...]] | None = None

    @property
    def identity(self) -> str:
        """Names the clusters and the strength: a saved training goes on under the same ones only."""
        text = "|".join(f"{t.key} {t.dim} {t.owner.tolist()}" for t in self.tied)
        return hashlib.sha256(f"centripetal {self.eps!r} {self.vector_eps!r} {text}".encode()).hexdigest()[:16]

    def __call__(self, model: nn.Module, lr: float) -> None:
        """Changes the gradients in place."""
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for tied in self._on(next(iter(parameters.values())).device):
                weight = parameters[tied.key]
                if weight.grad is not None:
                    tied.pull(weight.grad, weight, self.eps if weight.dim() > 1 else self.vector_eps)
            for key, weight in parameters.items():
                if weight.grad is not None and key.endswith("bias") and weight.dim() == 1:
                    weight.grad.mul_(BIASES)

    def _on(self, device: torch.device) -> tuple[Tied, ...]:
        if self._placed is None or self._placed[0] != device:
            placed = (
                Tied(key=t.key, dim=t.dim, owner=t.owner.to(device), sizes=t.sizes.to(device), learned=True) for t in self.tied
            )
            self._placed = (device, tuple(placed))
        return self._placed[1]


@dataclass(frozen=True)
class CentripetalResult:
    """A network whose clusters are equal.

    Attributes:
        trained: as training left it.
        averaged: every cluster replaced by its mean, exactly; running statistics too. This is what may be trimmed.
        strength: of the training.
        before: the largest relative deviation inside clusters before the training, over tensors.
        after: the same after it: what the averaging had to do.
    """

    trained: nn.Module
    averaged: nn.Module
    strength: Strength
    before: float
    after: float


def deviation(model: nn.Module, tied: tuple[Tied, ...], *, learned: bool = True) -> dict[str, float]:
    """State_dict key -> distance of the slices from their clusters' means, relative to the tensor's norm."""
    state = model.state_dict()
    result: dict[str, float] = {}
    for t in tied:
        if t.learned or not learned:
            tensor = state[t.key].detach().double()
            norm = float((tensor - t.mean(tensor)).norm()) / max(float(tensor.norm()), 1e-30)
            result[t.key] = max(norm, result.get(t.key, 0.0))
    return result


def averaged(model: nn.Module, tied: tuple[Tied, ...]) -> nn.Module:
    """A copy in which the slices of every cluster are exactly equal: to their mean."""
    result = copy.deepcopy(model)
    state = result.state_dict()
    with torch.no_grad():
        for t in tied:
            state[t.key].copy_(t.mean(state[t.key].double()))
    return result


def train_centripetal(
    model: nn.Module,
    tied: tuple[Tied, ...],
    train: LabelledImages,
    schedule: Schedule,
    *,
    eps: float | None = None,
    teacher: nn.Module | None = None,
    state_dir: Path | None = None,
    listen: Callable[[TrainingEvent], object] = lambda event: None,
) -> CentripetalResult:
    """Trains a network until the filters of every cluster are equal, and averages them.

    Args:
        model: the unpruned network; left as it is.
        tied: from :func:`tied_slices`: what must become equal.
        train: images and labels.
        schedule: how to train.
        eps: strength of the pull; None takes the papers', or the weakest that suffices where the schedule is short.
        teacher: the network whose outputs are imitated, as in ``train.fit``.
        state_dir: where an interrupted training is kept.
        listen: hears of progress.

    Raises:
        TrainError: the schedule is too weak, or a tensor is not trained.
    """

    def ours(rewrite: GradientRewrite) -> nn.Module:
        return fit(model, train, schedule, teacher=teacher, state_dir=state_dir, listen=listen, rewrite=rewrite)

    return train_equal(model, tied, strength(schedule, steps_per_epoch(len(train), schedule), eps), ours)


def train_equal(
    model: nn.Module, tied: tuple[Tied, ...], found: Strength, train: Callable[[GradientRewrite], nn.Module]
) -> CentripetalResult:
    """The same by any training that has its gradients rewritten.

    Args:
        model: the unpruned network; left as it is.
        tied: from :func:`tied_slices`: what must become equal.
        found: the strength of the pull, from :func:`strength`.
        train: trains a copy of the network, its gradients rewritten before each step.

    Raises:
        TrainError: a tensor is not trained, or the filters of a cluster did not become equal.
    """
    parameters = dict(model.named_parameters())
    still = next((t.key for t in tied if t.learned and not parameters[t.key].requires_grad), None)
    if still is not None:
        raise TrainError(
            f"{still} requires no gradient, so its filters cannot be drawn together", hint="unfreeze it, or --ignore its layer"
        )
    pull = Pull(tied, found.eps, found.vector_eps)
    trained = train(GradientRewrite(pull, pull.identity)).eval()
    before, after = (max(deviation(m, tied).values(), default=0.0) for m in (model, trained))
    if not after <= EQUAL:
        raise TrainError(
            f"the filters of a cluster did not become equal: the largest deviation is {after:.2g} of its tensor, it was "
            f"{before:.2g}; at most {EQUAL:g} is wanted, so that nothing is lost by the trim",
            hint="a loop of your own: call hooks.gradients(optimizer) once, and step with SGD at the budget's learning rate, "
            "momentum 0.9 and weight decay 5e-4",
        )
    return CentripetalResult(trained=trained, averaged=averaged(trained, tied), strength=found, before=before, after=after)
