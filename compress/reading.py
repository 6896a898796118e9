"""From second moments and weights to what each reader loses per channel (``compress.search.reading`` says what that is)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from compress.criteria import DAMPING, Evidence
from compress.moments import Gram
from compress.search.reading import Array, Reading
from compress.topology import GroupId, Layer, LayerName, Role, Topology


def readings(
    evidence: Evidence, topology: Topology, groups: Collection[GroupId], *, damping: float = DAMPING
) -> Mapping[LayerName, Reading]:
    """Every reader of these groups that has moments.

    Args:
        evidence: with moments.
        topology: of the network that the moments are of.
        groups: whose channels may go; all other inputs of a layer stay, and help.
        damping: added to the inputs' second moments, relative to their mean.
    """
    found = {}
    for layer in topology.layers:
        gram = evidence.moments.layers.get(layer.name) if evidence.moments is not None else None
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
        owner = _owners(evidence.weights[layer.weight], [p for _, _, p in entries], gram.columns)
        weight = evidence.weights[layer.weight]
        plain, compensated = _matrices(weight, layer, gram, owner, len(entries), damping)
        found[layer.name] = Reading(layer.name, tuple((g, c) for g, c, _ in entries), plain, compensated)
    return found


def _owners(weight: Tensor, places: list[tuple[int, ...]], columns: Tensor) -> Tensor:
    """Column of the moments -> the entry it belongs to; columns of channels that stay belong to one more."""
    owner = torch.full((weight.shape[1],), len(places), dtype=torch.int64)
    for entry, positions in enumerate(places):
        owner[list(positions)] = entry
    return owner[columns // weight[0, 0].numel()]


def _matrices(weight: Tensor, layer: Layer, gram: Gram, owner: Tensor, entries: int, damping: float) -> tuple[Array, Array]:
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
