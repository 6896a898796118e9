"""Kernel mode: every filter drops input channels of its own. A dense weight keeps its shape: no MACs and no time are saved.

The literal reading of Bi-CNN-Pruning's lower level (Louati et al. 2024): per kept filter, the fewest input channels. For one
with weights ``w`` over unfolded inputs of covariance ``A``, dropping the kernels ``S`` and re-solving the rest ``K`` costs

    E(S) = w_S^T (A_SS - A_SK A_KK^-1 A_KS) w_S,      w_K' = w_K + A_KK^-1 A_KS w_S

The kernels go in the order of what each costs alone, as many as ``E(S) <= delta * w^T A w`` allows. What is left is reported as
effective parameters, never as MACs or latency.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import Topology
from compress.recovery.batch_norm import reestimate
from compress.recovery.compensation import RIDGE
from compress.recovery.moments import Gram, collect
from compress.recovery.training import GradientRewrite
from compress.surgery import own_tensors

SOLVED = 1152
"""Columns (128 channels of 3x3) beyond which the kernels that stay keep their weights: every filter has a system of its own."""


@dataclass(frozen=True)
class Zeroed:
    """A network in which filters ignore kernels.

    Attributes:
        model: as it was, with zeros.
        kept: state_dict key of a weight -> which kernels it keeps, bool, (filters, inputs).
    """

    model: nn.Module
    kept: Mapping[str, Tensor]

    @property
    def kernels(self) -> tuple[int, int]:
        """Kernels kept, and kernels that there are, in the layers that were looked at."""
        return sum(int(k.sum()) for k in self.kept.values()), sum(k.numel() for k in self.kept.values())


def zero_kernels(model: nn.Module, topology: Topology, batches: Sequence[Tensor], delta: float) -> Zeroed:
    """Zeros as many kernels of every filter as its output can spare; batch norms are re-estimated afterwards.

    Args:
        model: a network, eval mode; left as it is.
        topology: its own (after a cut: ``restrict``).
        batches: normalised calibration images; labels are not needed.
        delta: share of the variance of a filter's output that may be lost.
    """
    result = own_tensors(model)
    state = result.state_dict()
    kept: dict[str, Tensor] = {}
    for name, gram in collect(model, topology, batches).layers.items():
        layer = topology.by_layer[name]
        weight = state[layer.weight]
        if (
            layer.cardinality > 1
            or layer.kind == "conv_transpose"
            or layer.weight in kept
            or weight[0].numel() != len(gram.columns)
        ):
            continue
        new, shift, stays = _sparse(weight, gram, delta)
        weight.copy_(new)
        kept[layer.weight] = stays
        bias = f"{layer.weight.rpartition('.')[0]}.bias"
        if bias in state:
            state[bias].add_(shift.to(state[bias]))
    return Zeroed(reestimate(result, batches).train(model.training), kept)


def _sparse(weight: Tensor, gram: Gram, delta: float) -> tuple[Tensor, Tensor, Tensor]:
    """The weight with its zeros, how much its outputs' means fell, (filters,), and the kernels kept, (filters, inputs)."""
    filters, inputs = weight.shape[:2]
    taps = weight[0, 0].numel()
    rows = weight.detach().double().reshape(filters, -1)
    A = gram.covariance[0].double()
    A = A + max(RIDGE * float(A.diagonal().mean()), torch.finfo(torch.float64).tiny) * torch.eye(len(A), dtype=A.dtype)
    solves = len(A) <= SOLVED
    alone = _alone(rows, A, taps, solves)
    new, stays = rows.clone(), torch.ones(filters, inputs, dtype=torch.bool)
    for f, (w, order) in enumerate(zip(rows, alone.argsort(dim=1, stable=True), strict=True)):
        allowed = delta * float(w @ A @ w)
        low, high = 0, inputs - 1  # the longest prefix that may go; one kernel stays
        best = w
        while low < high:
            middle = (low + high + 1) // 2
            left = torch.ones(inputs, dtype=torch.bool)
            left[order[:middle]] = False
            solved, error = _without(w, A, left.repeat_interleave(taps), solves)
            if error <= allowed:
                low, best = middle, solved
            else:
                high = middle - 1
        new[f] = best
        stays[f, order[:low]] = False
    shift = (rows - new) @ gram.mean[0].double()
    return new.reshape(weight.shape).to(weight), shift, stays


def _alone(rows: Tensor, A: Tensor, taps: int, solves: bool) -> Tensor:
    """What dropping each kernel alone costs, all others re-solved or left as they are, (filters, inputs)."""
    kernels = rows.reshape(len(rows), -1, taps).transpose(0, 1)  # (inputs, filters, taps)
    matrix = torch.cholesky_inverse(torch.linalg.cholesky(A)) if solves else A
    blocks = matrix.unfold(0, taps, taps).unfold(1, taps, taps).diagonal(dim1=0, dim2=1).permute(2, 0, 1)  # (inputs, t, t)
    weighted = torch.linalg.solve(blocks, kernels.mT).mT if solves else kernels @ blocks
    return (weighted * kernels).sum(2).T


def _without(w: Tensor, A: Tensor, left: Tensor, solves: bool) -> tuple[Tensor, float]:
    """A filter that reads only these columns, and its error E(S)."""
    gone = w[~left]
    across = A[left][:, ~left] @ gone
    result = torch.where(left, w, 0.0)
    if not solves:
        return result, float(gone @ A[~left][:, ~left] @ gone)
    change = torch.cholesky_solve(across[:, None], torch.linalg.cholesky(A[left][:, left]))[:, 0]
    result[left] += change
    return result, float(gone @ A[~left][:, ~left] @ gone - across @ change)


def held(kept: Mapping[str, Tensor]) -> GradientRewrite:
    """Keeps the zeros in a training: their gradients are none, so SGD with decay and momentum leaves them where they are."""

    def change(model: nn.Module, lr: float) -> None:
        for key, parameter in model.named_parameters():
            if key in kept and parameter.grad is not None:
                mask = kept[key].to(parameter.device)
                parameter.grad.mul_(mask.reshape(*mask.shape, *[1] * (parameter.dim() - 2)))

    return GradientRewrite(change, _identity(kept))


def _identity(kept: Mapping[str, Tensor]) -> str:
    """Names the zeros, so that an interrupted training goes on under the same ones only."""
    digest = hashlib.sha256()
    for key in sorted(kept):
        digest.update(key.encode() + np.packbits(kept[key].numpy()).tobytes())
    return f"kernels {digest.hexdigest()[:16]}"


def effective_params(model: nn.Module) -> int:
    """Learned numbers that are not zero."""
    return sum(int((p != 0).sum()) for p in {id(p): p for p in model.parameters()}.values())
