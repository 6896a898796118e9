"""Closed-form recovery: after a cut, every reader is re-solved so that it computes again what it computed before.

Front to back, a layer that lost inputs gets the weights of the ridge regression from what it reads in the cut network, whose
earlier layers are already restored, to what it computed in the unpruned one: ``min ||U W - Y||^2 + r ||W - W0||^2``, solved
for the change, ``(A + rI) dW = U^T (Y - U W0)``, so that a layer that lost nothing keeps its weights exactly. No labels and
no training. Batch norms on the way get new statistics before anything behind them is solved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.core import LayerName, Plan, Topology, kept_positions, plural
from compress.errors import DataError
from compress.recovery.batch_norm import tracked_norms
from compress.recovery.least_squares import from_rows, from_sums
from compress.recovery.moments import WIDEST, Sums, positions_per_image, sample
from compress.recovery.paired_runs import Seen, module_by_module
from compress.recovery.ridge_choice import ImageRows, few, held_out_ridge
from compress.recovery.unfolding import ODD, flat_output, map_size, matrix, plain, shaped, unfold, unsupported, width
from compress.surgery import own_tensors

MEMORY = 6 << 30
"""Bytes of activations that may be held; a network that needs more is run anew for every layer instead."""
ROWS = 1 << 16
"""Rows that a layer is solved from where there are so many: an answer needs more of them than an order of channels."""
ROUNDING = 1e-10
"""Squared relative error below which a layer that lost nothing is as it was."""


@dataclass(frozen=True, slots=True)
class ReconstructionSettings:
    """How layers are solved again.

    Attributes:
        ridge: pull towards the old weights, relative to the mean variance of a layer's inputs; a layer that is seen at few
            positions is pulled more where that is better on images that were held out.
        every: solve every dense layer: those that lost nothing make up for what the lossy ones before them could not. If
            false, only the layers that lost inputs.
        widest: a layer with more columns is solved from at most so many rows, in the dual form.
        memory: bytes of activations that may be held at once.
        seed: of the positions that are sampled.
    """

    ridge: float = 1e-3
    every: bool = True
    widest: int = WIDEST
    memory: int = MEMORY
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Restored:
    """One layer that was solved again.

    Attributes:
        name: the layer.
        before: squared error of its pre-activations on the calibration images over their variance, with the cut weights.
        after: the same with the new weights.
        ridge: the pull towards the old weights, in units of the inputs' variance.
    """

    name: LayerName
    before: float
    after: float
    ridge: float


@dataclass(frozen=True, slots=True)
class Reconstructed:
    """A cut network whose readers were solved again.

    Attributes:
        model: the network.
        layers: what was solved, front to back.
        skipped: layer that lost inputs -> why it was not.
    """

    model: nn.Module
    layers: tuple[Restored, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)


_SETTINGS = ReconstructionSettings()


def reconstruct(
    original: nn.Module,
    small: nn.Module,
    topology: Topology,
    plan: Plan,
    batches: Sequence[Tensor],
    *,
    settings: ReconstructionSettings = _SETTINGS,
    listen: Callable[[Restored], None] = lambda _: None,
) -> Reconstructed:
    """Restores a cut network on unlabelled images; its batch norms are re-estimated too.

    Args:
        original: the network before the cut; left as it is.
        small: the cut network; left as it is.
        topology: of the original.
        plan: what was cut.
        batches: normalised images, (n, c, h, w) each.
        settings: how layers are solved.
        listen: told of every layer.

    Raises:
        DataError: there are too few images.
    """
    images = sum(len(b) for b in batches)
    if images < 2:
        raise DataError(
            f"{plural(images, 'image')} to restore the network on, at least 2 are needed", hint="give calibration images"
        )
    result = own_tensors(small)
    modes = {m: m.training for m in result.modules()}
    work = RestoringWork(
        whole=own_tensors(original).eval(),
        small=result.eval(),
        topology=topology,
        plan=plan,
        images=images,
        settings=settings,
        listen=listen,
    )
    work.choose()
    if plan:
        with torch.no_grad():
            module_by_module(work, batches)
    for module, training in modes.items():
        module.training = training
    return Reconstructed(result, tuple(work.restored), work.skipped)


@dataclass
class RestoringWork:
    """What is to be done at a module, wherever its inputs come from."""

    whole: nn.Module
    small: nn.Module
    topology: Topology
    plan: Plan
    images: int
    settings: ReconstructionSettings
    listen: Callable[[Restored], None]
    restored: list[Restored] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    norms: set[str] = field(default_factory=set)
    before_norm: set[str] = field(default_factory=set)
    calls: dict[str, int] = field(default_factory=dict)

    def choose(self) -> None:
        """The layers to solve and the batch norms to settle."""
        self.table = kept_positions(self.topology, self.plan)
        self.modules = dict(self.small.named_modules())
        self.norms = set(tracked_norms(self.small))
        self.lossy = {x.name for x in self.topology.layers if (x.weight, x.read_dim) in self.table and not x.depthwise}
        left: set[str] = {
            x.name for x in self.topology.layers if not x.depthwise and x.name in self.modules
        }  # some went with branches
        self.wanted = left if self.settings.every else set(self.lossy)
        shared = Counter(id(p) for m in self.modules.values() for p in m._parameters.values())
        for name in sorted(self.wanted):
            module = self.modules.get(name)
            why = unsupported(module, self.topology.by_layer[LayerName(name)])
            if not why and module is not None and shared[id(module.weight)] > 1:
                why = "its weight is another layer's too"
            if why:
                self._skip(name, why)

    def ran(self, calls: Mapping[str, int], apart: Callable[[str], bool]) -> None:
        """Leaves alone what does not run, and what reads what it made itself: its inputs are not known before it is restored.

        Args:
            calls: how often each module runs.
            apart: whether none of a module's runs reads what comes of another one.
        """
        self.calls = dict(calls)
        repeated = {n for n in self.wanted | self.norms if calls.get(n, 0) > 1 and not apart(n)}
        for name in sorted(self.wanted):
            if calls.get(name, 0) == 0 or name in repeated:
                self._skip(
                    name, f"it runs {calls[name]} times, on what it made itself" if name in repeated else "it does not run"
                )
        self.norms = {n for n in self.norms if calls.get(n, 0) > 0} - repeated

    def _skip(self, name: str, why: str) -> None:
        """Leaves a layer as it is; what lost nothing need not be mentioned."""
        self.wanted.discard(name)
        if name in self.lossy:
            self.skipped[name] = why

    def do(self, name: str, seen: Iterator[Seen]) -> None:
        """Restores one module of the cut network in place."""
        if name in self.norms:
            self._settle(name, seen)
        else:
            self._solve(name, seen)

    def _kept(self, key: str, dim: int) -> Tensor | None:
        found = self.table.get((key, dim))
        return None if found is None else torch.from_numpy(found)

    def _settle(self, name: str, seen: Iterator[Seen]) -> None:
        """Moves a batch norm's statistics by as much as its inputs' moved between the two networks.

        A difference on the same images is far less noisy than their statistics, and nothing moves where nothing changed. Of a
        norm that runs several times each run counts alike, as it does when torch gathers statistics.
        """
        norm = self.modules[name]
        assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
        kept = self._kept(f"{name}.running_mean", 0)
        runs = self.calls[name]
        before, after = ([_Spread() for _ in range(runs)] for _ in range(2))
        for call, batch in enumerate(seen):
            before[call % runs].add(_rows(batch.whole_input, kept))
            after[call % runs].add(_rows(batch.input, None))
        old, new = (torch.stack([s.variance() for s in run]).mean(0) for run in (before, after))
        ratio = torch.where(old > norm.eps, new / old.clamp(min=norm.eps), 1.0)
        moved = torch.stack([b.mean() - a.mean() for a, b in zip(before, after, strict=True)]).mean(0)
        norm.running_mean += moved.to(norm.running_mean.dtype)
        norm.running_var *= ratio.to(norm.running_var.dtype)

    def _solve(self, name: str, seen: Iterator[Seen]) -> None:
        """Re-solves one reader."""
        module: Any = self.modules[name]
        layer = self.topology.by_layer[LayerName(name)]
        columns, cardinality = width(module), getattr(module, "groups", 1)
        kept = self._kept(layer.weight, layer.write_dim)
        old = matrix(module)  # (g, columns, outputs)
        dual = columns > self.settings.widest
        sums, spread = Sums(), _Spread()
        store: list[tuple[Tensor, Tensor]] = []
        parts: list[ImageRows] = []
        for call, batch in enumerate(seen):
            if call == 0 and not plain(module, batch.input[:2], module(batch.input[:2])):
                return self._skip(name, ODD)
            available = map_size(module, batch.whole_output)
            count = positions_per_image(columns, self.images, available, ROWS)
            if dual:
                count = min(available, max(1, self.settings.widest // self.images))
            seldom = few(count * self.images * self.calls[name], columns)
            at = sample(name, call, count, available, self.settings.seed)
            u = unfold(module, batch.input, batch.whole_output, at)
            y = flat_output(module, batch.whole_output, at)
            y = y if kept is None else y.index_select(1, kept.to(y.device))
            spread.add(y)
            y = y if module.bias is None else y - module.bias
            residual = y.view(len(y), cardinality, -1).transpose(0, 1) - u @ old  # (g, rows, outputs)
            if not dual:
                sums.add(u, residual)
            elif sum(len(r[0]) for _, r in store) < self.settings.widest:
                store.append((u, residual))
            if seldom:
                parts += zip(*(t.unflatten(1, (len(batch.input), -1)).unbind(1) for t in (u, residual)), strict=True)
        free = name in self.before_norm  # the batch norm takes any constant away
        centred = free or module.bias is not None
        ridge = held_out_ridge(parts, self.settings.ridge, centred) if parts else self.settings.ridge
        if dual:
            u, residual = (torch.cat(rows, dim=1)[:, : self.settings.widest] for rows in zip(*store, strict=True))
            found = from_rows(u, residual, ridge, centred)
        else:
            found = from_sums(sums, ridge, centred)
        if not bool(torch.isfinite(found.change).all()):
            return self._skip(name, "its activations are not finite")
        before = (found.variance if free else found.variance + found.mean.square()).sum()
        scale = max(float(spread.variance().sum()), 1e-30)
        if name not in self.lossy and float(before) <= ROUNDING * scale:
            return
        module.weight += shaped(found.change, module).to(module.weight.dtype)
        if module.bias is not None:
            module.bias += found.intercept.flatten().to(module.bias.dtype)
        restored = Restored(LayerName(name), float(before) / scale, float(found.left) / scale, ridge)
        self.restored.append(restored)
        self.listen(restored)


class _Spread:
    """Mean and variance of each column of rows that come in batches."""

    def __init__(self) -> None:
        self.rows = 0
        self.shift: Tensor
        self.first: Tensor
        self.second: Tensor

    def add(self, rows: Tensor) -> None:
        if self.rows == 0:
            self.shift = rows.mean(0)
            self.first = torch.zeros_like(self.shift, dtype=torch.float64)
            self.second = self.first.clone()
        rows = rows - self.shift
        self.rows += len(rows)
        self.first += rows.sum(0)
        self.second += rows.square().sum(0)

    def mean(self) -> Tensor:
        return self.shift + self.first / self.rows

    def variance(self) -> Tensor:
        return (self.second / self.rows - (self.first / self.rows).square()).clamp(min=0)


def _rows(x: Tensor, kept: Tensor | None) -> Tensor:
    x = x if kept is None else x.index_select(1, kept.to(x.device))
    return x.transpose(0, 1).flatten(1).T
