"""The ledger of one run: a label for every channel beside every activation, and which labels have become one.

Label 0 is "no channel": constants and spatial padding.

Labels are the same at every pixel nearly everywhere, so they are kept as expanded views of one entry a channel (stride 0) and
computed with at that size (:func:`varying`). Such labels cannot be written into: where the network writes into a part of an
activation, :class:`WrittenInto` is raised, and the run is followed again with labels of their own memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from compress.core import Layer, Slot


@dataclass(frozen=True, slots=True)
class CountHolder:
    """An attribute of a running module that holds the sizes of pieces.

    Attributes:
        module: its name.
        name: the attribute's.
        values: its numbers.
        pieces: per number, which piece it counts.
    """

    module: str
    name: str
    values: tuple[int, ...]
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where the code divides channels by count.

    Attributes:
        pieces: the channel class at each index, piece by piece.
        where: the module whose code does it, for people.
        counted: the pieces are equally long, and must stay so.
        options: which attributes the code may take the sizes from, likeliest first; empty where it must be from the width.
    """

    pieces: tuple[NDArray[np.int64], ...]
    where: str = ""
    counted: bool = True
    options: tuple[tuple[CountHolder, ...], ...] = ()

    @property
    def trivial(self) -> bool:
        """Whether any cut is right: the same channels stand in every piece, or each piece is one channel and goes whole."""
        return self.counted and (self.repeated or all((piece == piece[0]).all() for piece in self.pieces))

    @property
    def repeated(self) -> bool:
        """Whether the same channels stand in every piece."""
        return self.counted and all((piece == self.pieces[0]).all() for piece in self.pieces)

    @property
    def distinct(self) -> bool:
        """Whether no channel stands in it twice."""
        return len(np.unique(np.concatenate(self.pieces))) == sum(map(len, self.pieces))


@dataclass
class Provenance:
    """What one run told.

    Attributes:
        labels: slot -> the channel class of each of its indices (0: none).
        reads: slots in which a layer consumes channels.
        layers: dense and depthwise layers in forward order.
        sites: weight key -> positions it is applied at, per image.
        frozen: channel class -> why it cannot be cut.
        moments: channel classes over which the code takes moments: means, variances, norms, maxima.
        attention: the module that computes attention, if one does.
        fixed_macs: of layers whose weight is computed.
        chunks: where the code divides channels by count.
        operations: what ran, by its name in the dispatcher, in order.
        by_number: channel class -> the operation that picks or tells channels by their number. Other channels stand at those
            numbers after a cut, so that index maps which are right now prove less.
        asked: lines of the network's code that ask for a value which depends on the input.
        outputs: shapes of the network's outputs.
    """

    labels: dict[Slot, NDArray[np.int64]] = field(default_factory=dict)
    reads: set[Slot] = field(default_factory=set)
    layers: dict[str, Layer] = field(default_factory=dict)
    sites: dict[str, int] = field(default_factory=dict)
    frozen: dict[int, str] = field(default_factory=dict)
    moments: frozenset[int] = frozenset()
    attention: str | None = None
    fixed_macs: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    by_number: dict[int, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    outputs: list[tuple[int, ...]] = field(default_factory=list)


class WrittenInto(Exception):
    """Other labels would have to be written into shared ones: follow the run again, with labels that own their memory."""


def varying(*tensors: Tensor, keep: int | None = None) -> tuple[Tensor, ...]:
    """The same tensors, one entry long in each dimension along which all of them only repeat themselves.

    Args:
        tensors: of one shape.
        keep: a dimension that is left alone.
    """
    for dim in range(tensors[0].dim()):
        if dim != keep and all(t.shape[dim] > 1 and t.stride(dim) == 0 for t in tensors):
            tensors = tuple(t.narrow(dim, 0, 1) for t in tensors)
    return tensors


class Channels:
    """Union-find over labels; what is frozen stays frozen when united."""

    def __init__(self) -> None:
        self.parent = [0]
        self.frozen: dict[int, str] = {}

    def fresh(self, count: int) -> Tensor:
        """New channels."""
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def root(self, label: int) -> int:
        """The class of a label."""
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def unite(self, a: int, b: int) -> None:
        """They go together from now on."""
        low, high = sorted((self.root(a), self.root(b)))
        if low == high:
            return
        self.parent[high] = low
        if high in self.frozen:
            self.frozen.setdefault(low, self.frozen.pop(high))

    def unite_pairs(self, a: Tensor, b: Tensor) -> None:
        """Unites where both, of one shape, are channels and differ."""
        a, b = varying(a, b)
        differ = (a != b) & (a != 0) & (b != 0)
        if bool(differ.any()):
            for x, y in torch.unique(torch.stack([a[differ], b[differ]]), dim=1).T.tolist():
                self.unite(x, y)

    def freeze(self, labels: Tensor, reason: str) -> None:
        """They stay; the first reason is kept."""
        for label in torch.unique(varying(labels)[0]).tolist():
            if label:
                self.frozen.setdefault(self.root(label), reason)


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter, or a view or element-wise function of one: where its entries come from.

    Attributes:
        key: state_dict key.
        shape: of the parameter.
        view: flat index into the parameter, in the shape of the view; None: the parameter as it is.
        flipped: it is the transpose of that, as a linear layer wants it.
        rows_only: a row depends on everything it reads (weight standardisation), so nothing it reads may go.
        per_row: keys of the parameters that scale or shift its rows.
    """

    key: str
    shape: tuple[int, ...]
    view: Tensor | None = None
    flipped: bool = False
    rows_only: bool = False
    per_row: tuple[str, ...] = ()

    @property
    def index(self) -> Tensor:
        """The view, written out: eight bytes an entry, so only where it is needed."""
        if self.view is not None:
            return self.view
        whole = torch.arange(math.prod(self.shape)).reshape(self.shape)
        return whole.T if self.flipped else whole

    def whole(self, *, transposed: bool = False) -> bool:
        """Whether it is all of the parameter, in order."""
        if self.view is None:
            return self.flipped == transposed
        index = self.view.T if transposed else self.view
        return index.shape == self.shape and bool((index.flatten() == torch.arange(index.numel())).all())


class Ledger:
    """What is known of every tensor while the network runs.

    Attributes:
        activations: tensor -> its labels, in its shape.
        weights: tensor -> the parameter it is or views.
        derived: tensor -> the parameters it was computed from, where no entry of it is an entry of theirs.
        random: tensors that hold random numbers: other ones in the next run, so that no channel has its own.
        indices: tensors that hold numbers of channels -> the labels of those.
        scores: products of activations and what became of them: a softmax over them is attention.
        here: names of the modules that are running, outermost first.
        modules: name -> module, where attributes are looked up that hold sizes.
        writable: labels own their memory, so that what is written into a view shows in what it views.
        spoiled: :class:`WrittenInto` was raised; the network's own code may have caught it.
    """

    def __init__(self, *, writable: bool) -> None:
        self.writable, self.spoiled = writable, False
        self.channels = Channels()
        self.result = Provenance()
        self.activations: Any = WeakTensorKeyDictionary()
        self.weights: Any = WeakTensorKeyDictionary()
        self.derived: Any = WeakTensorKeyDictionary()
        self.indices: Any = WeakTensorKeyDictionary()
        self.scores: Any = WeakTensorKeyDictionary()
        self.random: Any = WeakTensorKeyDictionary()
        self.here: list[str] = []
        self.modules: Mapping[str, nn.Module] = {}
        self._fixed: dict[str, str] = {}
        self._numbered: dict[int, str] = {}
        self._moments: set[int] = set()

    def track(self, tensor: Tensor, labels: Tensor) -> None:
        """The tensor has these labels."""
        self.activations[tensor] = labels

    def labels(self, tensor: Tensor) -> Tensor:
        """Its labels; zeros where it holds no channel."""
        found: Tensor | None = self.activations.get(tensor)
        return self.nobody(tensor.shape) if found is None else found

    def nobody(self, shape: torch.Size) -> Tensor:
        """Labels of what holds no channel."""
        return self.own(torch.zeros((), dtype=torch.int64), shape)

    def own(self, labels: Tensor, shape: torch.Size) -> Tensor:
        """The labels in this shape, to be tracked beside a new tensor."""
        expanded = labels.expand(shape)
        return expanded.clone() if self.writable else expanded

    def write(self, tensor: Tensor, labels: Tensor) -> None:
        """These labels stand in the tensor from now on, and in whatever it is a view of.

        Raises:
            WrittenInto: they are others than before, and labels share their memory.
        """
        before = self.labels(tensor)
        if self.writable:
            before.copy_(labels)
        elif bool(torch.ne(*varying(before, labels.expand(before.shape))).any()):
            self.spoiled = True
            raise WrittenInto
        self.track(tensor, before)

    def freeze(self, labels: Tensor, reason: str) -> None:
        """These channels stay."""
        self.channels.freeze(labels, reason)

    def opaque(self, shape: torch.Size, reason: str) -> Tensor:
        """Labels of something that may not change."""
        label = self.channels.fresh(1)
        self.channels.freeze(label, reason)
        return self.own(label[0], shape)

    def fix(self, key: str, reason: str) -> None:
        """Nothing of this parameter may go."""
        self._fixed.setdefault(key, reason)

    def number(self, labels: Tensor, what: str) -> None:
        """An operation picks or tells these channels by their number."""
        where = f" (in {self.here[-1]})" if self.here and self.here[-1] else ""
        for label in torch.unique(varying(labels)[0]).tolist():
            if label:
                self._numbered.setdefault(label, what + where)

    def moments(self, labels: Tensor) -> None:
        """Something is taken over these channels that holds none of them."""
        self._moments.update(torch.unique(varying(labels)[0]).tolist())

    def numbers_used(self, tensors: Iterable[Tensor], what: str) -> None:
        """Channels whose numbers are used, and not only made beside a maximum, stay."""
        for tensor in tensors:
            if tensor in self.indices:
                self.freeze(self.indices[tensor], f"the numbers of its channels go into {what}")

    def weight(self, tensor: Any) -> Weight | None:
        """The parameter that a tensor is or views."""
        found: Weight | None = self.weights.get(tensor) if isinstance(tensor, Tensor) else None
        return found

    def slot(self, key: str, dim: int, labels: Tensor, *, reads: bool = False) -> None:
        """These indices of this dimension belong to these channels."""
        slot = (key, dim)
        new = labels.numpy().astype(np.int64)
        if slot in self.result.labels:
            old = self.result.labels[slot]
            self.channels.unite_pairs(torch.from_numpy(old), torch.from_numpy(new))
            self.result.labels[slot] = np.where(old == 0, new, old)
        else:
            self.result.labels[slot] = new.copy()
        if reads:
            self.result.reads.add(slot)

    def per_channel(self, labels: Tensor, dim: int = 1) -> Tensor:
        """One label per channel; whatever shares a channel's kernel column is one class."""
        if labels.numel() == 0:
            return torch.zeros(labels.shape[dim], dtype=torch.int64)
        (labels,) = varying(labels, keep=dim % labels.dim())
        rows = labels.movedim(dim, 0).reshape(labels.shape[dim], -1)
        first = rows[:, 0].clone()
        if bool((rows == first[:, None]).all()):
            return first
        first = rows.max(dim=1).values
        self.channels.unite_pairs(first[:, None].expand_as(rows), rows)
        return first

    def spread(self, channel_labels: Tensor, out: Tensor, dim: int = 1) -> None:
        """The tensor has these labels along one dimension."""
        shape = [1] * out.dim()
        shape[dim] = -1
        self.track(out, self.own(channel_labels.view(shape), out.shape))

    def finish(self) -> Provenance:
        """Every label replaced by its class."""
        for (key, _), values in self.result.labels.items():
            if key in self._fixed:
                self.freeze(torch.from_numpy(values), self._fixed[key])
        roots = np.array([self.channels.root(i) for i in range(len(self.channels.parent))])
        self.result.labels = {slot: roots[values] for slot, values in self.result.labels.items()}
        self.result.frozen = self.channels.frozen
        self.result.chunks = [replace(c, pieces=tuple(roots[p] for p in c.pieces)) for c in self.result.chunks]
        self.result.moments = frozenset(int(roots[label]) for label in self._moments if label)
        for label, what in self._numbered.items():
            self.result.by_number.setdefault(int(roots[label]), what)
        return self.result
