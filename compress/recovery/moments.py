"""Second moments of what the dense layers read and compute: all that least squares needs to know of the images.

For a layer with unfolded inputs ``u`` (one row per position: ``C_in * kernel`` numbers) and pre-activations ``y``, the sums
over rows are ``A = U^T U`` and ``B = U^T Y``, both about the mean, since an intercept absorbs it. Large maps are sampled, so
that collecting costs about as much as a forward pass. Depthwise layers are no readers: their channels are passed through.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import Layer, LayerName, Topology
from compress.errors import DataError
from compress.recovery.unfolding import ODD, map_size, plain, unfold, unsupported, width
from compress.surgery import own_tensors

ROWS = 1 << 14
"""Rows that a layer's moments are taken from, at most so many ``POSITIONS`` of an image."""
POSITIONS = 64
ROWS_PER_COLUMN = 4
"""More of both where the columns would outnumber the rows."""
WIDEST = 4608
"""Columns (512 channels of 3x3) beyond which a layer is thinned: its matrix would need gigabytes."""


@dataclass(frozen=True, slots=True)
class Gram:
    """Second moments of one layer's inputs.

    Attributes:
        covariance: of the unfolded inputs, (cardinality, columns, columns); block-diagonal for conv-groups.
        mean: of the unfolded inputs, (cardinality, columns).
        columns: which columns of the flattened weight (input channel, then kernel position) these are.
        rows: how many positions were seen.
        note: what was left out, empty when nothing was.
    """

    covariance: Tensor
    mean: Tensor
    columns: Tensor
    rows: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Moments:
    """What the calibration images told about every dense reader.

    Attributes:
        layers: layer -> second moments of its inputs.
        skipped: layer -> why it has none.
        images: how many were seen.
    """

    layers: Mapping[LayerName, Gram]
    skipped: Mapping[LayerName, str] = field(default_factory=dict)
    images: int = 0


def _silent(images: int) -> None:
    """Listens to nothing."""


def collect(
    model: nn.Module,
    topology: Topology,
    batches: Sequence[Tensor],
    *,
    widest: int = WIDEST,
    seed: int = 0,
    only: Collection[LayerName] | None = None,
    after: Callable[[int], None] = _silent,
) -> Moments:
    """One pass over unlabelled images, the moments of every dense reader's inputs.

    Args:
        model: the traced network; it and its mode are left as they are.
        topology: its topology.
        batches: normalised images, (n, c, h, w) each.
        widest: a layer with more columns than this is represented by so many of them, evenly spread.
        seed: of the positions that are sampled.
        only: the readers that are wanted; None takes all of them.
        after: is told after every batch how many images it had.

    Raises:
        DataError: there are no images.
    """
    images = sum(len(b) for b in batches)
    if images == 0:
        raise DataError("no image to take moments of", hint="give calibration images")
    readers = {n: x for n, x in moment_readers(topology).items() if only is None or n in only}
    network = own_tensors(model).eval()
    modules = dict(network.named_modules())
    skipped = {n: why for n, x in readers.items() if (why := unsupported(modules.get(n), x))}
    sums: dict[LayerName, Sums] = {}
    calls: dict[LayerName, int] = {}

    def watch(name: LayerName) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if name not in calls and not plain(module, args[0], output):
                skipped[name] = ODD
            if name in skipped:
                return
            columns = width(module)
            chosen = thin(columns, widest, seed)
            count = positions_per_image(len(chosen), images, map_size(module, output))
            at = sample(name, calls.get(name, 0), count, map_size(module, output), seed)
            calls[name] = calls.get(name, 0) + 1
            rows = unfold(module, args[0], output, at)
            rows = rows if len(chosen) == columns else rows[..., chosen.to(rows.device)]
            if name not in sums:
                sums[name] = Sums(torch.float64 if len(chosen) <= 1024 else torch.float32)
            sums[name].add(rows)

        return hook

    for name in readers:
        if name not in skipped:
            modules[name].register_forward_hook(watch(name))
    with torch.no_grad():
        for batch in batches:
            network(batch)
            after(len(batch))
    found = {}
    for name, total in sums.items():
        columns = width(modules[name])
        chosen = thin(columns, widest, seed)
        note = "" if len(chosen) == columns else f"{len(chosen)} of {columns} columns, evenly spread"
        found[name] = Gram(
            covariance=total.covariance().cpu(), mean=total.mean().cpu(), columns=chosen, rows=total.rows, note=note
        )
    skipped |= {n: "it did not run" for n in readers if n not in found and n not in skipped}
    return Moments(found, skipped, images)


def moment_readers(topology: Topology) -> dict[LayerName, Layer]:
    """The layers whose moments are wanted: all that read channels of a group."""
    return {x.name: x for g in topology.groups for x in topology.readers(g.id)}


def moment_columns(topology: Topology, layer: Layer, widest: int = WIDEST) -> int:
    """Columns of a layer's moments: what one filter of it reads at one position, thinned where there are too many."""
    shape = topology.tensors[layer.weight].shape
    return min(widest, math.prod(shape) // shape[layer.write_dim])


def moment_rows(columns: int) -> int:
    """About as many rows as moments of so many columns are taken from."""
    return max(ROWS, ROWS_PER_COLUMN * columns)


class Sums:
    """Running sums of rows, and of targets beside them, about the first batch's means, so that nothing cancels.

    Args:
        dtype: what they are kept in; the products of a batch are in the activations' own.
    """

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype
        self.rows = 0
        self.columns = 0
        self.shift: Tensor
        self.first: Tensor
        self.second: Tensor
        self.squares: Tensor

    def add(self, rows: Tensor, targets: Tensor | None = None) -> None:
        """Rows (cardinality, n, columns), targets (cardinality, n, outputs)."""
        joint = rows if targets is None else torch.cat([rows, targets], dim=2)
        if self.rows == 0:
            self.columns = rows.shape[2]
            self.shift = joint.mean(1, keepdim=True)
            self.first = torch.zeros_like(self.shift[:, 0], dtype=self.dtype)
            self.squares = self.first.clone()
            size = (len(joint), self.columns, joint.shape[2])
            self.second = torch.zeros(size, dtype=self.dtype, device=joint.device)
        joint = joint - self.shift
        self.rows += joint.shape[1]
        self.first += joint.sum(1)
        self.squares += joint.square().sum(1)
        self.second += joint[:, :, : self.columns].transpose(1, 2) @ joint

    def mean(self) -> Tensor:
        """Of rows and targets, (cardinality, columns + outputs)."""
        return self.shift[:, 0] + self.first / self.rows

    def covariance(self) -> Tensor:
        """Of rows with rows and targets, (cardinality, columns, columns + outputs)."""
        first = self.first / self.rows
        return self.second / self.rows - first[:, : self.columns, None] * first[:, None, :]

    def variance(self) -> Tensor:
        """Of rows and targets, (cardinality, columns + outputs)."""
        return (self.squares / self.rows - (self.first / self.rows).square()).clamp(min=0)


def thin(columns: int, most: int, seed: int) -> Tensor:
    """At most so many columns, at equal distances, so that no channel is forgotten."""
    if columns <= most:
        return torch.arange(columns)
    start = np.random.default_rng((seed, columns)).random()
    return torch.from_numpy(((np.arange(most) + start) * (columns / most)).astype(np.int64))


def positions_per_image(columns: int, images: int, available: int, rows: int = ROWS) -> int:
    """Enough positions for the rows to outnumber the columns, where the map has them."""
    return min(available, max(min(POSITIONS, -(-rows // images)), -(-ROWS_PER_COLUMN * columns // images)))


def sample(name: str, call: int, count: int, available: int, seed: int) -> Tensor:
    """Positions of a map, without replacement, ascending; others for every batch, the same in every run."""
    if count >= available:
        return torch.arange(available)
    rng = np.random.default_rng((seed, zlib.crc32(name.encode()), call))
    return torch.from_numpy(np.sort(rng.choice(available, count, replace=False)))
