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
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import Plan, Role, Topology, check, plural
from compress.errors import TrainError
from compress.recovery.schedule import Schedule, learning_rate, steps_per_epoch
from compress.recovery.training import GradientRewrite, LabelledImages, fit
from compress.recovery.training_events import TrainingEvent
from compress.surgery import is_channel_map

LEAST_EXPONENT = 15.0
"""A deviation that shrank by exp(-15) is below the resolution of float32 beside the weights."""
PAPER_EPS = 3e-3
"""The CVPR paper's, on CIFAR-10 with 600 epochs."""
VECTORS = 0.1
"""Share of eps on tensors of one dimension."""
BIASES = 2.0
"""Factor of the biases' learning rate."""
EQUAL = 1e-3
"""A larger deviation inside clusters, of a tensor's norm, is a training that did not draw them together."""
_CALM = 0.05
"""Below this share of the critical rate, momentum SGD decays as its closed form says."""


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


# ---- is a schedule long enough? --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Strength:
    """How far a schedule draws clusters together: a deviation shrinks by exp(-exponent).

    Attributes:
        eps: the pull on tensors of two or more dimensions.
        vector_eps: on batch-norm scales, shifts and biases.
        kernels: exponent of tensors of two or more dimensions.
        vectors: of the others.
        raised: whether the pulls were raised for this.
    """

    eps: float
    vector_eps: float
    kernels: float
    vectors: float
    raised: bool = False

    @property
    def enough(self) -> bool:
        """Whether both make slices equal."""
        return min(self.kernels, self.vectors) >= LEAST_EXPONENT


def rates(schedule: Schedule, steps: int) -> list[float]:
    """The learning rate of every step; ``steps`` is an epoch's."""
    return [learning_rate(schedule, epoch + step / steps) for epoch in range(schedule.epochs) for step in range(steps)]


def exponent(learning: list[float], pull: float, momentum: float) -> float:
    """-log of what a training leaves of a deviation inside a cluster, at the most.

    Inside a cluster the loss has no say: a deviation d follows SGD on pull/2 d², and shrinks by exp(-sum(lr) pull / (1 -
    momentum)) while lr pull is far below the critical ((1 - momentum) / (1 + momentum))². Above, it swings, momentum limits
    how fast it can shrink, and too strong a pull makes it grow; so the recursion itself is run (Nesterov's, as torch has it).
    Where in its swing the falling rate catches it is luck, which is not counted on: from there on it starts at its amplitude.

    Args:
        learning: the learning rate of every step.
        pull: weight decay + eps.
        momentum: of SGD.
    """
    critical = ((1 - momentum) / (1 + momentum)) ** 2
    if max(learning, default=0.0) * pull < _CALM * critical:
        return sum(learning) * pull / (1 - momentum)
    caught = max((i for i, lr in enumerate(learning) if lr * pull > critical), default=-1)
    distance, velocity, done = 1.0, 0.0, 0.0
    for i, lr in enumerate(learning):
        velocity = momentum * velocity + pull * distance
        distance -= lr * (pull * distance + momentum * velocity)
        if i == caught:
            distance = math.hypot(distance, velocity * math.sqrt(lr / pull))
            velocity = pull * distance / (1 - momentum)
        size = abs(distance) + abs(velocity) / pull
        if not 1e-9 < size < 1e9:  # rescaled: thousands of steps would leave the range of floats
            if size == 0.0:
                return math.inf
            done -= math.log(size)
            distance, velocity = distance / size, velocity / size
    return done - math.log(max(abs(distance), 1e-300))


def strength(schedule: Schedule, steps: int, eps: float | None = None) -> Strength:
    """The pull of a schedule: as given, the papers', or the weakest that suffices.

    Where the papers' would be too weak and ``eps`` is None, kernels and vectors each get the weakest pull that makes them
    equal: the longer filters may differ, the less is lost on the way. (In a short training the papers' ratio of 10 would make
    the kernels equal at once.)

    Args:
        schedule: how to train.
        steps: of an epoch.
        eps: as given, vectors with a tenth of it; None chooses.

    Raises:
        TrainError: the schedule cannot make filters equal; the hint names the eps, or the number of epochs, that would.
    """
    found = _reached(schedule, steps, PAPER_EPS if eps is None else eps)
    if found.enough:
        return found
    better = _weakest(schedule, steps)
    if better is not None and eps is None:
        return better
    if better is not None:
        paired = _round_up(max(better.eps, better.vector_eps / VECTORS))
        hint = f"eps {paired:.2g} would do, or leave it out" if _reached(schedule, steps, paired).enough else "leave eps out"
    else:
        epochs = _epochs_that_do(schedule, steps)
        fits = eps is None or _reached(replace(schedule, epochs=epochs), steps, eps).enough
        hint = f"train for at least {plural(epochs, 'epoch')}{'' if fits else ' and leave eps out'}, or in smaller batches"
    raise TrainError(
        f"eps {found.eps:.2g} over {plural(schedule.epochs, 'epoch')} of {plural(steps, 'step')} cannot make filters equal: "
        f"a deviation inside a cluster shrinks by exp(-{found.kernels:.1f}) in kernels, exp(-{found.vectors:.1f}) in vectors, "
        f"exp(-{LEAST_EXPONENT:g}) is wanted",
        hint=hint,
    )


def _reached(schedule: Schedule, steps: int, eps: float) -> Strength:
    learning = rates(schedule, steps)
    kernels, vectors = _of_kernels(learning, schedule, eps), _of_vectors(learning, schedule, VECTORS * eps)
    return Strength(eps=eps, vector_eps=VECTORS * eps, kernels=kernels, vectors=vectors)


def _of_kernels(learning: list[float], schedule: Schedule, eps: float) -> float:
    return exponent(learning, eps + schedule.weight_decay, schedule.momentum)


def _of_vectors(learning: list[float], schedule: Schedule, eps: float) -> float:
    """Scales and shifts, or biases, which learn faster and hence may be the first to diverge."""
    return min(exponent([factor * lr for lr in learning], eps, schedule.momentum) for factor in (1.0, BIASES))


def _weakest(schedule: Schedule, steps: int) -> Strength | None:
    """The weakest sufficient pulls, but none below the papers'; None where momentum is too slow for any."""
    learning = rates(schedule, steps)
    closed = LEAST_EXPONENT * (1 - schedule.momentum) / max(sum(learning), 1e-30)
    found: list[tuple[float, float]] = []
    for of, least in ((_of_kernels, PAPER_EPS), (_of_vectors, VECTORS * PAPER_EPS)):
        trial = max(least, 0.8 * closed)  # the closed form says where to begin; the recursion decides
        while (reached := of(learning, schedule, trial)) < LEAST_EXPONENT:
            trial *= 1.03
            if trial * schedule.lr > 2:
                return None
        found.append((trial, reached))
    (eps, kernels), (vector_eps, vectors) = found
    return Strength(eps=eps, vector_eps=vector_eps, kernels=kernels, vectors=vectors, raised=True)


def _round_up(value: float) -> float:
    unit: float = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit


def _epochs_that_do(schedule: Schedule, steps: int) -> int:
    epochs = schedule.epochs + 1
    while _weakest(replace(schedule, epochs=epochs), max(steps, 1)) is None:
        epochs = math.ceil(1.2 * epochs)
    return epochs


# ---- drawing together, and averaging -----------------------------------------------------------------------------------


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
