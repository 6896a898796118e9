"""The trial of branches: they are left out of a copy for real, and the guard has the last word over what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from compress.core import Branch, BranchId, Plan, Topology, without_nested
from compress.coupling.branch_search import find_branches
from compress.coupling.trial_cut import TrialNetworks, random_images
from compress.surgery import cut, verify


def with_branches(trials: TrialNetworks, topology: Topology, examples: Sequence[Tensor]) -> Topology:
    """The topology with the branches that can be left out, and why others cannot.

    Args:
        trials: of the network, in evaluation mode.
        topology: of it.
        examples: its inputs, one image each.
    """
    found = find_branches(trials.network, examples, topology)
    whole = replace(topology, branches=found.branches, kept_branches=dict(found.kept))
    if not found.branches:
        return whole
    trained, inputs = trials.on(random_images(examples, np.random.default_rng(0)))
    failed: dict[BranchId, str] = {}
    left = list(found.branches)
    while left:  # those inside others are tried where the others stay
        now = without_nested(left)
        failed |= _failing(trained, whole, now, inputs)
        left = [b for b in left if b not in now]
    return replace(
        whole,
        branches=tuple(b for b in found.branches if b.name not in failed),
        kept_branches={**found.kept, **failed},
    )


def _failing(
    network: nn.Module, topology: Topology, branches: Sequence[Branch], inputs: Sequence[Tensor]
) -> dict[BranchId, str]:
    """The branches that cannot be left out, with the reason, by halving."""
    if not branches:
        return {}
    plan = Plan(branches=tuple(b.name for b in branches))
    try:
        verify(network, topology, plan, cut(network, topology, plan), inputs)
    except Exception as error:  # whatever the user's own code raises when modules are gone
        if len(branches) == 1:
            return {branches[0].name: f"a trial without it failed: {getattr(error, 'message', error)}"}
    else:
        return {}
    half = len(branches) // 2
    found = _failing(network, topology, branches[:half], inputs) | _failing(network, topology, branches[half:], inputs)
    return found or {b.name: "left out together with others, a trial failed" for b in branches}
