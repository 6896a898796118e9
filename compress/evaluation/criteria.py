"""How important each channel of a group is: extension point 2.

A criterion is a function ``(inputs, topology, group) -> importance``, shape (channels,), higher stays. Scores are averaged
over the layers that make a channel, each normalised by its own mean, so that large layers do not shout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import Bits, ChannelGroup, Floats, GroupId, Indices, Layer, Member, Role, Topology, derive
from compress.evaluation.obs_elimination import EliminationReader, eliminate
from compress.networks import seeded
from compress.recovery import Gram, Moments, filters
from compress.tasks import Classification, Task

DAMPING = 1e-3
_NORM_EPS = 1e-5
"""torch's default: the value itself is not among a network's tensors."""


@dataclass(frozen=True)
class CriterionInputs:
    """What a criterion may look at.

    Attributes:
        weights: state_dict key -> tensor.
        gradients: the same keys -> gradient of the loss, where images were there.
        seed: for ``random``.
        moments: second moments of what each reader reads, for ``obs``.
    """

    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0
    moments: Moments | None = None


Criterion = Callable[[CriterionInputs, Topology, ChannelGroup], Floats]


def gather(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    seed: int = 0,
    task: Task = Classification(),  # noqa: B008  # frozen
) -> CriterionInputs:
    """Weights, and gradients of what the task says (``Task.gradient_target``): targets are not needed.

    Args:
        model: in eval mode for the pass; left as it is.
        batches: normalised images; empty for weights alone.
        seed: kept for ``random``, and of the task's draws.
        task: what the network is for.
    """
    from compress.surgery import own_tensors

    network: nn.Module | None = None
    total: dict[str, Tensor] = {}
    for number, images in enumerate(batches):
        network = own_tensors(model).eval().requires_grad_(True) if network is None else network
        network.zero_grad(set_to_none=True)
        with seeded(derive(seed, "gradient target", number)):
            task.gradient_target(network(images)).backward()  # type: ignore[no-untyped-call]
        for key, parameter in network.named_parameters():
            if parameter.grad is not None:
                total[key] = total.get(key, torch.zeros_like(parameter.grad)) + parameter.grad
    return CriterionInputs({k: v.detach() for k, v in model.state_dict().items()}, total, seed)


def _makers(topology: Topology, group: ChannelGroup) -> list[int]:
    """Places, among the group's members, of the kernels that make its channels."""
    writers = {(x.weight, x.write_dim) for x in topology.writers(group.id)}
    return [i for i, m in enumerate(group.members) if m.role is Role.WRITES and (m.key, m.dim) in writers]


def _kernels(inputs: CriterionInputs, topology: Topology, group: ChannelGroup) -> list[tuple[Bits, Floats]]:
    """For each layer that makes the channels: which channels it makes, and their flattened kernels (channels, features)."""
    makers = [group.members[i] for i in _makers(topology, group)]
    return [_rows(inputs.weights[m.key], m.dim, m.positions) for m in makers]


def _rows(tensor: Tensor, dim: int, positions: tuple[tuple[int, ...], ...]) -> tuple[Bits, Floats]:
    """Rows of a tensor per channel; where a channel has several indices (conv-groups) they are concatenated."""
    present = np.array([bool(p) for p in positions])
    flat = tensor.movedim(dim, 0).reshape(tensor.shape[dim], -1).double().cpu().numpy()
    width = max((len(p) for p in positions), default=1) * flat.shape[1]
    rows = np.zeros((len(positions), width))
    for channel, places in enumerate(positions):
        if places:
            rows[channel, : len(places) * flat.shape[1]] = flat[list(places)].reshape(-1)
    return present, rows


def _average(parts: list[tuple[Bits, Floats]], size: int) -> Floats:
    """Mean over layers of scores normalised by each layer's mean, over the channels that the layer has."""
    total, seen = np.zeros(size), np.zeros(size)
    for present, score in parts:
        mean = float(score[present].mean()) if present.any() else 0.0
        total[present] += score[present] / (mean if mean > 0 else 1.0)
        seen += present
    return total / np.maximum(seen, 1)


def l1(inputs: CriterionInputs, topology: Topology, group: ChannelGroup) -> Floats:
    """Sum of absolute weights of the filters (Li et al., ICLR 2017)."""
    return _average([(p, np.abs(k).sum(1)) for p, k in _kernels(inputs, topology, group)], group.size)


def l2(inputs: CriterionInputs, topology: Topology, group: ChannelGroup) -> Floats:
    """Euclidean norm of the filters."""
    return _average([(p, np.sqrt((k**2).sum(1))) for p, k in _kernels(inputs, topology, group)], group.size)


def fpgm(inputs: CriterionInputs, topology: Topology, group: ChannelGroup) -> Floats:
    """Sum of distances to the layer's other filters: what sits near the median can be replaced (He et al., CVPR 2019)."""
    parts = []
    for present, rows in _kernels(inputs, topology, group):
        squares = (rows**2).sum(1)
        distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0.0))
        parts.append((present, distances[:, present].sum(1)))
    return _average(parts, group.size)


def bn_scale(inputs: CriterionInputs, topology: Topology, group: ChannelGroup) -> Floats:
    """Absolute batch-norm scale (Liu et al., ICCV 2017); l1 where no norm follows."""
    kernels = {x.weight for x in topology.layers}
    parts = []
    for m in group.members:
        tensor = inputs.weights[m.key]
        if m.role is Role.WRITES and m.key.endswith("weight") and m.key not in kernels and tensor.dim() == 1:
            present, rows = _rows(tensor, 0, m.positions)
            parts.append((present, np.abs(rows).sum(1)))
    return _average(parts, group.size) if parts else l1(inputs, topology, group)


def taylor(inputs: CriterionInputs, topology: Topology, group: ChannelGroup) -> Floats:
    """First-order change of the loss when the filter goes, |sum of weight * gradient| (Molchanov et al., CVPR 2019).

    Without gradients it is l1.
    """
    parts = []
    for m in [group.members[i] for i in _makers(topology, group)]:
        if m.key in inputs.gradients:
            present, rows = _rows(inputs.weights[m.key] * inputs.gradients[m.key], m.dim, m.positions)
            parts.append((present, np.abs(rows.sum(1))))
    return _average(parts, group.size) if parts else l1(inputs, topology, group)


def random(inputs: CriterionInputs, topology: Topology, group: ChannelGroup) -> Floats:
    """Chance, the baseline nobody should lose to; the same for the same seed and group."""
    names = list(topology.by_id)
    return np.random.default_rng((inputs.seed, names.index(group.id))).random(group.size)


def obs_curve(
    inputs: CriterionInputs, topology: Topology, group: ChannelGroup, *, damping: float = DAMPING
) -> tuple[Indices, Floats]:
    """The order in which compensated elimination takes a group's channels, and what each further removal costs.

    Every reader of the group that has moments counts equally: its squared error over its pre-activations' variance.
    Depthwise layers pass the channels on to their dense reader; each conv-group is a reader of its own.

    Args:
        inputs: with moments.
        topology: of the network that the moments are of.
        group: the group.
        damping: added to the inputs' second moments, relative to their mean: what re-solving is pulled back by.

    Returns:
        Channels, first removed first, and the errors after 0, 1, ... ``size`` removals; all zero where no reader of the
        group has moments, the order then being that of ``l1``.
    """
    readers: list[EliminationReader] = []
    slots = {(m.key, m.dim): m for m in group.members if m.role is Role.READS}
    for layer in topology.readers(group.id):
        gram = inputs.moments.layers.get(layer.name) if inputs.moments else None
        if gram is not None:
            readers += _readers(inputs.weights[layer.weight], layer, gram, slots[layer.weight, layer.read_dim], damping)
    if not readers:
        return np.argsort(l1(inputs, topology, group), kind="stable"), np.zeros(group.size + 1)
    return eliminate(readers)


def _readers(weight: Tensor, layer: Layer, gram: Gram, member: Member, damping: float) -> list[EliminationReader]:
    """The layer's conv-groups, each with the columns that it has of every channel."""
    weight = filters(weight, layer)
    taps = weight[0, 0].numel()
    flat = weight.detach().cpu().double().flatten(1)
    flat = flat.reshape(layer.cardinality, -1, flat.shape[1])[:, :, gram.columns]  # (cardinality, outputs, columns)
    column_of = {int(c): i for i, c in enumerate(gram.columns)}
    wanted = [[i * taps + t for i in places for t in range(taps)] for places in member.positions]
    places = [[column_of[c] for c in columns if c in column_of] for columns in wanted]
    blocks = gram.covariance.double()
    spread = sum(float(((w @ c) * w).sum()) for w, c in zip(flat, blocks, strict=True))
    readers = []
    for rows, block in zip(flat, blocks, strict=True):
        level = max(damping * float(block.diagonal().mean()), 1e-12)
        damped = block + level * torch.eye(len(block), dtype=torch.float64)
        readers.append(EliminationReader(damped, rows.T, places, max(spread, 1e-30)))
    return readers


def obs(inputs: CriterionInputs, topology: Topology, group: ChannelGroup) -> Floats:
    """How late compensated elimination takes a channel, in (0, 1] (optimal brain surgeon on what the readers compute).

    Without moments it is l1.
    """
    if inputs.moments is None:
        return l1(inputs, topology, group)
    return _lateness(obs_curve(inputs, topology, group)[0])


def _lateness(order: Indices) -> Floats:
    importance = np.empty(len(order))
    importance[order] = np.arange(1, len(order) + 1) / len(order)
    return importance


def obs_and_curves(
    inputs: CriterionInputs, topology: Topology, groups: Iterable[GroupId]
) -> tuple[dict[GroupId, Floats], dict[GroupId, Floats]]:
    """:func:`elimination_importance` of every group."""
    found = {g: elimination_importance(*obs_curve(inputs, topology, topology.by_id[g])) for g in groups}
    return {g: importance for g, (importance, _) in found.items()}, {g: curve for g, (_, curve) in found.items()}


def elimination_importance(order: Indices, errors: Floats) -> tuple[Floats, Floats]:
    """For ``Space``: the ``obs`` importance of a group's channels, and what removing each of them adds.

    Args:
        order: from :func:`obs_curve`.
        errors: the same.
    """
    curve = np.empty(len(order))
    curve[order] = np.diff(errors)
    return _lateness(order), curve


CRITERIA: Mapping[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "fpgm": fpgm,
    "bn-scale": bn_scale,
    "taylor": taylor,
    "random": random,
    "obs": obs,
}


def importance(
    inputs: CriterionInputs, topology: Topology, groups: Iterable[GroupId], names: Sequence[str] = tuple(CRITERIA)
) -> dict[str, dict[GroupId, Floats]]:
    """These criteria, by default every one, for every group."""
    wanted = list(groups)
    return {name: {g: CRITERIA[name](inputs, topology, topology.by_id[g]) for g in wanted} for name in names}


def kernels(inputs: CriterionInputs, topology: Topology, group: ChannelGroup, *, folded: bool = False) -> Floats:
    """The group's filters, flattened and concatenated over the layers that make them, shape (channels, features).

    Args:
        inputs: weights.
        topology: the network.
        group: the group.
        folded: each filter times the factor of the batch norm that follows its layer, as if that were folded into it.
    """
    parts = [rows for _, rows in _kernels(inputs, topology, group)]
    if folded:
        parts = [rows * factor[:, None] for rows, factor in zip(parts, _norm_factors(inputs, topology, group), strict=True)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((group.size, 1))


def _norm_factors(inputs: CriterionInputs, topology: Topology, group: ChannelGroup) -> list[Floats]:
    """Per layer that makes the channels: scale over deviation of the batch norm between it and the next; 1 where none is."""
    makers = _makers(topology, group)
    factors = []
    for maker, following in zip(makers, [*makers[1:], len(group.members)], strict=True):
        factor: Floats = np.ones(group.size)
        for m in reversed(group.members[maker + 1 : following]):  # the first one decides
            variance = inputs.weights.get(f"{m.key.removesuffix('weight')}running_var")
            if m.key.endswith(".weight") and variance is not None:
                scale = inputs.weights[m.key].double() / (variance.double() + _NORM_EPS).sqrt()
                factor = scale.cpu().numpy()[[places[0] if places else 0 for places in m.positions]]
        factors.append(factor)
    return factors
