"""The trial cut: groups are cut at random on a copy, and the guard has the last word over what tracing believed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compress.core import GroupId, Plan, Topology
from compress.errors import CompressError, GuardError
from compress.surgery import cut, deep_copy, random_plan, verify, verify_training

_RATIOS = (0.3, 0.55)


@dataclass(frozen=True)
class TrialOutcome:
    """What was left to cut after trying, and how many networks were cut for it."""

    topology: Topology
    trials: int


class TrialNetworks:
    """A network, and what it is tried on: a :func:`shaken` copy in float64, kept for the next trial on the same images.

    Attributes:
        network: in eval mode; left as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._ready: tuple[nn.Module, Sequence[Tensor]] | None = None

    def on(self, images: Sequence[Tensor]) -> tuple[nn.Module, Sequence[Tensor]]:
        """The copy for these images, and the images. Nobody may write into either."""
        if self._ready is None or not _same(self._ready[1], images):
            self._ready = None  # two copies at once are one too many
            self._ready = shaken(self.network, images).double(), images
        return self._ready


def _same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True))


def random_images(examples: Sequence[Tensor], rng: np.random.Generator) -> list[Tensor]:
    """Three for each of a network's inputs, of the example's shape and dtype."""
    return [torch.from_numpy(rng.standard_normal((3, *x.shape[1:]))).to(x.dtype) for x in examples]


def probe(
    networks: TrialNetworks,
    topology: Topology,
    examples: Sequence[Tensor],
    *,
    confirmed: Collection[GroupId] = (),
    small: Sequence[Tensor] | None = None,
    training: bool = False,
) -> TrialOutcome:
    """Cuts at random, for real, and compares; whatever fails is frozen. Python constants show themselves here.

    All groups are cut together once, those that nobody confirmed once more at another ratio; where that fails, nobody is
    spared, and the groups that fail are found by halving.

    Args:
        networks: of the network, in eval mode.
        topology: what tracing found.
        examples: its inputs; only their shapes and dtypes matter.
        confirmed: groups that a second witness has exactly as the topology has them.
        small: smaller inputs on which the network does the very same. What passes on them is believed; what fails on them
            is tried again on inputs of the examples' size before anything is frozen.
        training: compare in training mode, too: the network does something else there.
    """
    trials = _Trials(networks, topology, training)
    if small is not None and trials.pass_on(small, confirmed):
        return TrialOutcome(topology, trials.count)
    failed = trials.failing_on(examples, confirmed if small is None else ())
    if not failed:
        return TrialOutcome(topology, trials.count)
    frozen = dict(topology.frozen)
    frozen.update({layer.name: reason for g, reason in failed.items() for layer in topology.writers(g)})
    groups = tuple(g for g in topology.groups if g.id not in failed)
    return TrialOutcome(replace(topology, groups=groups, frozen=frozen), trials.count)


class _Trials:
    def __init__(self, networks: TrialNetworks, topology: Topology, training: bool) -> None:
        self.networks, self.topology, self.training, self.count = networks, topology, training, 0

    def pass_on(self, examples: Sequence[Tensor], spared: Collection[GroupId]) -> bool:
        """Whether everything can be cut on these inputs, as far as one can tell on them."""
        self._start(examples)
        try:
            self._cut([g.id for g in self.topology.groups], spared)
        except Exception:  # small inputs can be too small in any way; the examples themselves decide
            return False
        return True

    def failing_on(self, examples: Sequence[Tensor], spared: Collection[GroupId]) -> dict[GroupId, str]:
        """The groups that cannot be cut, with the reason."""
        self._start(examples)
        failed: dict[GroupId, str] = {}
        while more := self._failing([g.id for g in self.topology.groups if g.id not in failed], () if failed else spared):
            failed.update(more)
        return failed

    def _start(self, examples: Sequence[Tensor]) -> None:
        self.rng = np.random.default_rng(0)
        self.trained, self.inputs = self.networks.on(random_images(examples, self.rng))  # once, and not for every trial

    def _cut(self, suspects: list[GroupId], spared: Collection[GroupId]) -> None:
        for ratio, left_out in zip(_RATIOS, ((), spared), strict=True):
            if all(group in left_out for group in suspects):
                continue
            drawn = random_plan(self.topology, ratio, self.rng, suspects)  # of all: who is spared changes nobody's channels
            plan = Plan({group: kept for group, kept in drawn.cuts.items() if group not in left_out})
            if plan:
                self.count += 1
                cut_copy = cut(self.trained, self.topology, plan)
                verify(self.trained, self.topology, plan, cut_copy, self.inputs)
                if self.training:
                    verify_training(self.trained, self.topology, plan, cut_copy, self.inputs)

    def _failing(self, suspects: list[GroupId], spared: Collection[GroupId]) -> dict[GroupId, str]:
        """The groups that cannot be cut, by halving: a trial for every node of a binary tree that holds a failure."""
        if not suspects:
            return {}
        try:
            self._cut(suspects, spared)
            return {}
        except CompressError as error:
            if len(suspects) == 1:
                constant = "a constant in the code depends on its width; " if "does not run" in error.message else ""
                return {suspects[0]: f"{constant}a trial cut failed: {error.message}"}
            if not isinstance(error, GuardError):
                raise
        half = len(suspects) // 2
        found = self._failing(suspects[:half], ())
        found.update(self._failing(suspects[half:], ()))
        if not found:  # each half is fine alone, not both together
            return dict.fromkeys(suspects, "cut together with others, a trial cut failed")
        return found


def shaken(network: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """A copy whose per-channel parameters are random and whose batch norms hold the statistics of these inputs.

    An untrained or constant norm hides what it is fed, and then any cut would look right.
    """
    generator = torch.Generator().manual_seed(0)
    copied = deep_copy(network)
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
