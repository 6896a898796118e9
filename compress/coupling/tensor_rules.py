"""What operations without parameters of their own do to channels: they move them, join them, or pass them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only

from compress.coupling import aten_ops, channel_chunks
from compress.coupling.aten_ops import INDEXING, REORDERINGS, UNCHANGED, VIEWS
from compress.coupling.channel_labels import Ledger, Weight, varying
from compress.coupling.layer_rules import unknown
from compress.surgery import MOMENTS, reduced_dims


def tensors_of(tree: Any) -> list[Tensor]:
    """Every tensor in arguments or results."""
    return [t for t in tree_flatten(tree)[0] if isinstance(t, Tensor)]


def plain(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments that mean the same for labels."""
    return {k: v for k, v in kwargs.items() if k not in ("dtype", "layout", "device", "pin_memory")}


def constant(ledger: Ledger, out: Any) -> None:
    """No channel is in it."""
    for tensor in tensors_of(out):
        ledger.track(tensor, ledger.nobody(tensor.shape))


def shape(ledger: Ledger, func: Any, name: str, args: Any, kwargs: Any, out: Any) -> None:
    """The operation itself, on labels. Parameters concatenated with activations cannot be told apart: frozen."""
    tensors = tensors_of((args, kwargs))
    active = [t for t in tensors if t in ledger.activations]
    if any(t in ledger.weights or t in ledger.derived for t in tensors):
        return unknown(ledger, f"{name} of parameters and activations", active, out)
    places = tensors[1:] if name in INDEXING else []
    if any(bool(ledger.labels(t).any()) for t in places):
        return unknown(ledger, "indexing by what was computed", active, out)
    constant = {id(t) for t in places}
    if name in UNCHANGED and not ledger.writable:
        return ledger.track(out, ledger.labels(active[0]))
    if name == "cat":
        channel_chunks.note(ledger, name, args, out)
        return _concatenated(ledger, args[0], args[1] if len(args) > 1 else kwargs.get("dim", 0), out)
    swapped = tree_map_only(Tensor, lambda t: t if id(t) in constant else ledger.labels(t), args)
    try:
        labels = func(*swapped, **plain(kwargs))
    except RuntimeError:  # labels lie in memory in another order than a channels-last activation, and cannot be viewed so
        if "view" not in name:
            raise
        labels = swapped[0].reshape(out.shape)
    channel_chunks.note(ledger, name, args, out)
    for tensor, label in zip(tensors_of(out), tensors_of(labels), strict=True):
        ledger.track(tensor, label.clone() if name in ("clone", "_to_copy") else label)
        for before in active:
            if _by_number(name, ledger.labels(before), label):
                ledger.number(ledger.labels(before), name)


def _by_number(name: str, before: Tensor, after: Tensor) -> bool:
    """Whether an operation picks channels by their number: takes some, changes their order, or makes groups of them."""
    if name in REORDERINGS:
        return before.shape != after.shape or not torch.equal(before, after)
    before, after = varying(before)[0], varying(after)[0]
    if name in VIEWS:
        along = [sum(_differ_along(x, d) for d in range(x.dim()) if x.shape[d] > 1) for x in (before, after)]
        return along[1] > along[0]
    return name not in UNCHANGED and bool(torch.isin(before.reshape(-1), after.reshape(-1), invert=True).any())


def _concatenated(ledger: Ledger, tensors: Sequence[Tensor], dim: int, out: Tensor) -> None:
    joined = [t for t in tensors if t.dim() == out.dim()]  # torch lets an empty vector stand for nothing
    labels = [ledger.labels(t) for t in joined]
    for d in range(out.dim()):
        if d != dim % out.dim() and all(x.stride(d) == 0 for x in labels):
            labels = [x.narrow(d, 0, min(1, x.shape[d])) for x in labels]
    ledger.track(out, ledger.own(torch.cat(labels, dim), out.shape))


def shape_in_place(ledger: Ledger, func: Any, args: Any) -> None:
    """``transpose_`` and its like: the same tensor in another shape."""
    labels = ledger.labels(args[0])
    labels = ledger.own(labels, labels.shape)
    func(labels, *args[1:])
    ledger.track(args[0], labels)


def restride(ledger: Ledger, args: Any) -> None:
    """``as_strided_`` to the shape it has, row by row: global average pooling of channels-last images ends so."""
    tensor, size, stride = args[0], tuple(args[1]), args[2]
    rows = torch.empty(size, device="meta").stride()
    if size != tuple(tensor.shape) or any(n > 1 and a != b for n, a, b in zip(size, stride, rows, strict=True)):
        unknown(ledger, "as_strided_", [tensor], tensor)


def write(ledger: Ledger, name: str, args: Any) -> None:
    """Something else stands in the tensor, or in the part that a view shows: as many channels as stood there before."""
    source = args[1] if name == "copy_" else None
    if isinstance(source, Tensor):
        before = ledger.labels(args[0])
        ledger.channels.unite_pairs(before, ledger.labels(source).expand(before.shape))
    buffer = ledger.weight(args[0])
    if buffer is not None and isinstance(source, Tensor) and source in ledger.activations:  # statistics that the code keeps
        _per_entry(ledger, buffer, ledger.labels(source).expand(args[0].shape))
    ledger.write(args[0], ledger.labels(source) if isinstance(source, Tensor) else torch.zeros((), dtype=torch.int64))


def pad(ledger: Ledger, args: Any, out: Tensor) -> None:
    """Zero channels added along the channel dimension are channels to be; spatial padding is nobody."""
    x, amounts = args[0], args[1]
    labels = ledger.labels(x)
    for dim in range(x.dim()):
        i = 2 * (x.dim() - 1 - dim)
        if not any(amounts[i : i + 2]) and labels.stride(dim) == 0:
            labels = labels.narrow(dim, 0, min(1, labels.shape[dim]))
    labels = torch.constant_pad_nd(labels, amounts, 0)
    for i in range(0, len(amounts), 2):
        dim = x.dim() - 1 - i // 2
        before, after = amounts[i], amounts[i + 1]
        if (before > 0 or after > 0) and _differ_along(ledger.labels(x), dim):
            for where in [*range(before), *range(out.shape[dim] - after, out.shape[dim])]:
                labels.select(dim, where).fill_(int(ledger.channels.fresh(1)))
    ledger.track(out, ledger.own(labels, out.shape))


def _differ_along(labels: Tensor, dim: int) -> bool:
    (labels,) = varying(labels)
    if labels.numel() == 0:
        return False
    return bool((labels != labels.narrow(dim, 0, 1)).any())


def pool(ledger: Ledger, x: Tensor, out: Any) -> None:
    """Every channel by itself."""
    dim = 1 if x.dim() > 2 else 0
    channel = ledger.per_channel(ledger.labels(x), dim)
    for tensor in tensors_of(out):
        ledger.spread(channel, tensor, dim)


def glu(ledger: Ledger, args: Any, out: Tensor) -> None:
    """One half gates the other: they go in pairs."""
    labels = ledger.labels(args[0])
    one, two = labels.chunk(2, args[1] if len(args) > 1 else -1)
    ledger.channels.unite_pairs(one, two)
    ledger.track(out, torch.where(one == 0, two, one))


def reduce(ledger: Ledger, name: str, args: Any, kwargs: Any, x: Tensor, out: Any) -> None:
    """Moments over channels hold none of them; other things that are computed over several channels go together.

    A reduction is a moment where all of its results are taken over the same channels. Where each is taken over others
    (``y.view(n, 2, c // 2).sum(1)``), what it is taken over becomes one class.
    """
    labels = ledger.labels(x)
    reduced = reduced_dims(name, args, kwargs, x.dim())
    rest = [d for d in range(x.dim()) if d not in reduced]
    if labels.numel() == 0:  # no detections, for one
        return constant(ledger, out)
    (labels,) = varying(labels)
    rows = labels.permute(*rest, *reduced).reshape(*[labels.shape[d] for d in rest], -1)
    first = rows.max(dim=-1).values
    if name in (*MOMENTS, *aten_ops.SOFTMAX) and _alike(rows) and bool((rows != first.unsqueeze(-1)).any()):
        return _moment(ledger, name, x, tensors_of(out))
    ledger.channels.unite_pairs(first.unsqueeze(-1).expand_as(rows), rows)
    kept = first.reshape([1 if d in reduced else labels.shape[d] for d in range(x.dim())])
    flat = first.expand([x.shape[d] for d in rest])
    for tensor in tensors_of(out):
        ledger.track(tensor, ledger.own(kept if tensor.dim() == x.dim() else flat.reshape(tensor.shape), tensor.shape))


def _alike(rows: Tensor) -> bool:
    """Whether the same channels stand in every row, several of them."""
    rows = rows.reshape(-1, rows.shape[-1])
    return bool((rows == rows[0]).all())


def _moment(ledger: Ledger, name: str, x: Tensor, results: Sequence[Tensor]) -> None:
    labels = ledger.labels(x)
    ledger.moments(labels)
    for tensor in results:
        ledger.track(tensor, ledger.own(labels, x.shape) if name in aten_ops.SOFTMAX else ledger.nobody(tensor.shape))
    if name in ("max", "min") and len(results) > 1:
        ledger.indices[results[1]] = labels


def pointwise(ledger: Ledger, name: str, tensors: Sequence[Tensor], out: Any) -> None:
    """What is combined entry by entry is one channel; parameters among it belong to it."""
    results = tensors_of(out)
    size = results[0].shape
    found = [ledger.labels(t).expand(size) for t in tensors if t in ledger.activations and t.dim() <= len(size)]
    found = _without_broadcast(ledger, found) if len(found) > 1 else found
    merged = torch.zeros((), dtype=torch.int64)
    for other in varying(*found) if found else ():
        ledger.channels.unite_pairs(merged.expand_as(other), other)
        merged = torch.where(merged == 0, other, merged)
    merged = merged.expand(size)
    for tensor in tensors:
        if tensor.numel() > 1 and tensor in ledger.weights:
            _per_entry(ledger, ledger.weights[tensor], merged)
        elif tensor.numel() > 1 and tensor in ledger.derived:
            ledger.freeze(merged, f"it is combined with what is computed from {ledger.derived[tensor][0]}")
        elif tensor.numel() > 1 and tensor not in ledger.random and not _holds(ledger, tensor) and _aligned(tensor, merged):
            ledger.number(merged, f"{name} with a constant for each channel")
    for tensor in results:
        if name.endswith("_") and tensor in ledger.activations:
            ledger.write(tensor, merged)
        else:
            ledger.track(tensor, ledger.own(merged, tensor.shape))


def _without_broadcast(ledger: Ledger, found: Sequence[Tensor]) -> list[Tensor]:
    """One channel over several others (a map of attention) stays, and need not be one with them."""
    single = [_one_channel(labels, written=ledger.writable) for labels in found]
    if all(single) or not any(single):
        return list(found)
    several = [x for x, alone in zip(found, single, strict=True) if not alone]
    classes = {ledger.channels.root(label) for x in several for label in torch.unique(varying(x)[0]).tolist()}
    for labels in (x for x, alone in zip(found, single, strict=True) if alone):
        if ledger.channels.root(int(labels.flatten()[0])) in classes - {0}:
            several.append(labels)
        else:
            ledger.freeze(labels, "its one channel is combined with several")
    return several


def _one_channel(labels: Tensor, *, written: bool) -> bool:
    (labels,) = varying(labels)
    return labels.numel() == 1 or (written and labels.numel() > 0 and bool((labels == labels.flatten()[0]).all()))


def _holds(ledger: Ledger, tensor: Tensor) -> bool:
    """Whether there are channels in it."""
    return bool(varying(ledger.labels(tensor))[0].any())


def _aligned(constant: Tensor, labels: Tensor) -> bool:
    """Whether a constant has an entry of its own for every channel."""
    first = labels.dim() - constant.dim()
    return any(n > 1 and first + d >= 0 and _differ_along(labels, first + d) for d, n in enumerate(constant.shape))


def _per_entry(ledger: Ledger, weight: Weight, labels: Tensor) -> None:
    """A parameter used element-wise: the dimension whose indices decide the channel belongs to the channels."""
    entries, labels = varying(weight.index.expand(labels.shape), labels)
    index, flat = entries.flatten(), labels.flatten()
    coordinates = np.unravel_index(index.numpy(), weight.shape)
    if flat.numel() == 0 or bool((flat == flat[0]).all()):
        return
    for dim, size in enumerate(weight.shape):
        where = torch.from_numpy(coordinates[dim])
        owner = torch.zeros(size, dtype=torch.int64)
        owner[where] = flat
        if size > 1 and bool((owner[where] == flat).all()):
            return ledger.slot(weight.key, dim, owner)
    ledger.freeze(labels, f"{weight.key} is combined with it element by element")
