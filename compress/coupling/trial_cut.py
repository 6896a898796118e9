"""The trial cut: every group is cut at random on a copy, and the guard has the last word over what tracing believed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compress.core import GroupId, Topology
from compress.errors import CompressError, GuardError
from compress.surgery import cut, random_plan, verify

_RATIOS = (0.3, 0.55)


def probe(network: nn.Module, topology: Topology, examples: Sequence[Tensor]) -> Topology:
    """Cuts at random, for real, and compares; whatever fails is frozen. Python constants show themselves here.

    Args:
        network: in eval mode; copied.
        topology: what tracing found.
        examples: its inputs; only their shapes and dtypes matter.
    """
    rng = np.random.default_rng(0)
    inputs = [torch.from_numpy(rng.standard_normal((3, *x.shape[1:]))).to(x.dtype) for x in examples]
    trained = shaken(network, inputs).double()  # once, and not for every trial
    suspects = [g.id for g in topology.groups]
    failed: dict[GroupId, str] = {}
    while more := _failing(trained, topology, inputs, [g for g in suspects if g not in failed], rng):
        failed.update(more)
    if not failed:
        return topology
    frozen = dict(topology.frozen)
    frozen.update({layer.name: reason for g, reason in failed.items() for layer in topology.writers(g)})
    groups = tuple(g for g in topology.groups if g.id not in failed)
    return replace(topology, groups=groups, frozen=frozen)


def _failing(
    network: nn.Module, topology: Topology, inputs: Sequence[Tensor], suspects: list[GroupId], rng: np.random.Generator
) -> dict[GroupId, str]:
    """The groups that cannot be cut, found by halving: a trial for every node of a binary tree that holds a failure."""
    if not suspects:
        return {}
    try:
        for ratio in _RATIOS:
            plan = random_plan(topology, ratio, rng, suspects)
            verify(network, topology, plan, cut(network, topology, plan), inputs)
        return {}
    except CompressError as error:
        if len(suspects) == 1:
            constant = "a constant in the code depends on its width; " if "does not run" in error.message else ""
            return {suspects[0]: f"{constant}a trial cut failed: {error.message}"}
        if not isinstance(error, GuardError):
            raise
    half = len(suspects) // 2
    found = _failing(network, topology, inputs, suspects[:half], rng)
    found.update(_failing(network, topology, inputs, suspects[half:], rng))
    if not found:  # each half is fine alone, not both together
        return dict.fromkeys(suspects, "cut together with others, a trial cut failed")
    return found


def shaken(network: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """A copy whose per-channel parameters are random and whose batch norms hold the statistics of these inputs.

    An untrained or constant norm hides what it is fed, and then any cut would look right.
    """
    generator = torch.Generator().manual_seed(0)
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in copied.parameters():
            if tensor.dim() and tensor.numel() == max(tensor.shape):
                spread = tensor.abs().mean().clamp(min=1e-2)
                tensor.add_((torch.rand(tensor.shape, generator=generator) - 0.3) * spread)
        norms = [m for m in copied.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        copied(*inputs)
    return copied.eval()
