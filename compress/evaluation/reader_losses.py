"""From second moments and weights to what each reader loses per channel (``compress.search.reader_loss`` says what that is)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import Bits, Floats, GroupId, Layer, LayerName, Role, Topology
from compress.evaluation.criteria import DAMPING, CriterionInputs
from compress.evaluation.output_error import output_error, outputs_of
from compress.recovery import RIDGE, Gram, filters, solve
from compress.search import ReaderLoss
from compress.surgery import own_tensors

_MOST_IMAGES, _FEWEST_IMAGES = 64, 8
_PART = 20
"""One in so many of a budget's image-forwards measures what a layer's error is at the outputs."""


def closed_form(
    model: nn.Module, inputs: CriterionInputs, topology: Topology, groups: Collection[GroupId], images: Tensor, budget: int
) -> tuple[Mapping[LayerName, ReaderLoss], int]:
    """Readings with their errors measured at the outputs, and the image-forwards that took.

    Args:
        model: the network, eval mode.
        inputs: with moments.
        topology: of the network.
        groups: whose channels may go.
        images: normalised, (n, c, h, w), at least two.
        budget: image-forwards that there are for the whole search; about a twentieth is taken.
    """
    found = reader_losses(inputs, topology, groups)
    shares = (0.25, 0.5, 0.75) if budget >= _PART * 3 * _FEWEST_IMAGES * len(found) else (0.5,)
    affordable = budget // _PART // max(len(shares) * len(found), 1)
    count = min(_MOST_IMAGES, max(_FEWEST_IMAGES, affordable), len(images))
    return calibrated(model, inputs, topology, found, images[:count], shares=shares), count * len(shares) * len(found)


def reader_losses(
    inputs: CriterionInputs,
    topology: Topology,
    groups: Collection[GroupId],
    *,
    damping: float = DAMPING,
) -> Mapping[LayerName, ReaderLoss]:
    """Every reader of these groups that has moments.

    Args:
        inputs: with moments.
        topology: of the network that the moments are of.
        groups: whose channels may go; all other inputs of a layer stay, and help.
        damping: added to the inputs' second moments, relative to their mean.
    """
    found = {}
    for layer in topology.layers:
        gram = inputs.moments.layers.get(layer.name) if inputs.moments is not None else None
        slot = (layer.weight, layer.read_dim)
        entries = [
            (group, channel, member.positions[channel])
            for group, member in topology.slots.get(slot, ())
            if group in groups and member.role is Role.READS
            for channel in range(len(member.positions))
            if member.positions[channel]
        ]
        if gram is None or not entries or layer.depthwise:
            continue
        weight = filters(inputs.weights[layer.weight], layer)
        owner = _owners(weight, [p for _, _, p in entries], gram.columns)
        plain, compensated = _matrices(weight, layer, gram, owner, len(entries), damping)
        found[layer.name] = ReaderLoss(
            layer=layer.name, sources=tuple((g, c) for g, c, _ in entries), plain=plain, compensated=compensated
        )
    return found


def _owners(weight: Tensor, places: list[tuple[int, ...]], columns: Tensor) -> Tensor:
    """Column of the moments -> the entry it belongs to; columns of channels that stay belong to one more."""
    owner = torch.full((weight.shape[1],), len(places), dtype=torch.int64)
    for entry, positions in enumerate(places):
        owner[list(positions)] = entry
    return owner[columns // weight[0, 0].numel()]


def _matrices(weight: Tensor, layer: Layer, gram: Gram, owner: Tensor, entries: int, damping: float) -> tuple[Floats, Floats]:
    """Q and S over the variance, summed over conv-groups, (entries, entries)."""
    flat = weight.detach().cpu().double().flatten(1)
    flat = flat.reshape(layer.cardinality, -1, flat.shape[1])[:, :, gram.columns].transpose(1, 2)  # (g, columns, outputs)
    plain, compensated = (torch.zeros(entries + 1, entries + 1, dtype=torch.float64) for _ in range(2))
    for w, block in zip(flat, gram.covariance.double(), strict=True):
        plain += _by_entry(block * (w @ w.T), owner, entries + 1)
        level = max(damping * float(block.diagonal().mean()), 1e-12)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(block + level * torch.eye(len(block), dtype=torch.float64)))
        x = torch.zeros_like(w)
        for entry in range(entries):
            mine = (owner == entry).nonzero()[:, 0]
            if len(mine):  # a thinned layer may have seen nothing of a channel
                x[mine] = torch.linalg.solve(inverse[mine][:, mine], w[mine])
        compensated += _by_entry(inverse * (x @ x.T), owner, entries + 1)
    scale = max(float(plain.sum()), 1e-30)
    inside = slice(0, entries)  # the last entry is what stays
    return (plain / scale).numpy()[inside, inside].copy(), (compensated / scale).numpy()[inside, inside].copy()


def _by_entry(matrix: Tensor, owner: Tensor, entries: int) -> Tensor:
    rows = torch.zeros(entries, len(matrix), dtype=torch.float64).index_add_(0, owner, matrix)
    return torch.zeros(entries, entries, dtype=torch.float64).index_add_(1, owner, rows)


def calibrated(
    model: nn.Module,
    inputs: CriterionInputs,
    topology: Topology,
    found: Mapping[LayerName, ReaderLoss],
    images: Tensor,
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75),
) -> Mapping[LayerName, ReaderLoss]:
    """The same losses, their errors at the outputs measured: each layer alone ignores its cheapest channels, re-solved.

    Runs the network ``len(shares)`` times per reader. A layer whose moments were thinned gets the others' median slope.

    Args:
        model: the network, eval mode; left as it is.
        inputs: with the moments that the losses are from.
        topology: of the network.
        found: from :func:`reader_losses`.
        images: normalised, (n, c, h, w).
        shares: of its channels that a layer ignores.
    """
    assert inputs.moments is not None
    network = own_tensors(model).eval()
    wanted = outputs_of(network, images)
    knots = {}
    for name, reader_loss in found.items():
        layer, gram = topology.by_layer[name], inputs.moments.layers[name]
        module: Any = network.get_submodule(name)
        if not gram.note:
            old = module.weight.detach().clone()
            order = np.argsort(reader_loss.compensated.diagonal(), kind="stable")
            points = [(0.0, 0.0)]
            for share in shares:
                removed = np.zeros(len(order), dtype=bool)
                removed[order[: max(1, round(share * len(order)))]] = True
                kept = np.flatnonzero(~_lost(topology, layer, reader_loss, removed))
                weight, shift = solve(old, layer, gram, kept, RIDGE)
                with torch.no_grad():
                    module.weight.zero_()
                    filters(module.weight, layer)[:, kept] = filters(weight, layer)[:, kept]
                hook = module.register_forward_hook(_shifted(shift))
                point = (reader_loss.given(removed, "compensated").gone, output_error(wanted, outputs_of(network, images)))
                hook.remove()
                if point[0] > points[-1][0] * (1 + 1e-6) and point[1] >= points[-1][1]:
                    points.append(point)
            with torch.no_grad():
                module.weight.copy_(old)
            if len(points) > 1:
                knots[name] = tuple(points)
    slopes = [y / x for points in knots.values() for x, y in points[len(points) // 2 : len(points) // 2 + 1]]
    typical = ((0.0, 0.0), (1.0, float(np.median(slopes)) if slopes else 1.0))
    return {name: replace(reader_loss, knots=knots.get(name, typical)) for name, reader_loss in found.items()}


def _lost(topology: Topology, layer: Layer, reader_loss: ReaderLoss, removed: Bits) -> Bits:
    """The indices of the layer's reading dimension that belong to removed entries."""
    lost = np.zeros(topology.tensors[layer.weight].shape[layer.read_dim], dtype=bool)
    places = {(g, c): p for g, m in topology.slots[layer.weight, layer.read_dim] for c, p in enumerate(m.positions)}
    for source, gone in zip(reader_loss.sources, removed, strict=True):
        if gone:
            lost[list(places[source])] = True
    return lost


def _shifted(shift: Tensor) -> Callable[..., Tensor]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        channel = output.dim() - 1 if isinstance(module, nn.Linear) else 1
        return output + shift.view(*[-1 if d == channel else 1 for d in range(output.dim())])

    return hook
