"""What layers do to channels: convolutions and linear layers read those that arrive and make new ones; norms belong to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from compress.core import Layer, LayerName
from compress.coupling.channel_labels import Ledger, Weight, varying


def unknown(ledger: Ledger, what: str, active: Iterable[Tensor], out: Any) -> None:
    """An operation that may do anything: what enters and what leaves stays as it is."""
    where = f" (in {ledger.here[-1]})" if ledger.here and ledger.here[-1] else ""
    reason = f"{what} may mix channels{where}"
    for tensor in active:
        ledger.freeze(ledger.labels(tensor), reason)
    for tensor in tree_flatten(out)[0]:
        if isinstance(tensor, Tensor):
            ledger.track(tensor, ledger.opaque(tensor.shape, reason))


def convolution(ledger: Ledger, args: Any, out: Tensor) -> None:
    """Dense, grouped, depthwise and transposed, of any dimension."""
    x, weight, bias, transposed, cardinality = args[0], args[1], args[2], args[6], args[8]
    known = _whole(ledger, weight)
    spatial = (x if transposed else out).shape[2:].numel()
    if known is None or x not in ledger.activations:
        ledger.result.fixed_macs += spatial * weight.numel()
        return unknown(ledger, "a convolution with a computed weight", _active(ledger, x, weight), out)
    key, arriving = known.key, ledger.per_channel(ledger.labels(x))
    kind = "conv_transpose" if transposed else "conv"
    depthwise = cardinality > 1 and arriving.numel() == cardinality
    if known.rows_only:
        ledger.freeze(arriving, "a standardised weight reads it")
    if depthwise:
        multiplier = out.shape[1] // cardinality
        leaving = arriving.repeat_interleave(multiplier)
        ledger.slot(key, 0, arriving if transposed else leaving)
    else:
        leaving = _dense(ledger, key, arriving, cardinality, out.shape[1], transposed=transposed)
    _layer(ledger, key, kind, cardinality, depthwise, spatial, known)
    _bias(ledger, bias, leaving)
    ledger.spread(leaving, out)


def linear(ledger: Ledger, bias: Any, x: Tensor, weight: Tensor, out: Tensor) -> None:
    """A matrix product of rows of activations with a transposed parameter."""
    known = _whole(ledger, weight, transposed=True)
    if known is None or x not in ledger.activations:
        ledger.result.fixed_macs += len(x) * weight.numel()
        computed = ledger.weight(weight) is not None or weight in ledger.derived
        what = "a product with a matrix that is no linear layer's" if computed else "a matrix product of activations"
        return unknown(ledger, what, _active(ledger, x, weight), out)
    arriving = ledger.per_channel(ledger.labels(x))
    if known.rows_only:
        ledger.freeze(arriving, "a standardised weight reads it")
    leaving = _dense(ledger, known.key, arriving, 1, out.shape[1], transposed=False)
    _layer(ledger, known.key, "linear", 1, False, x.shape[0], known)
    _bias(ledger, bias, leaving)
    ledger.spread(leaving, out)


def _active(ledger: Ledger, *tensors: Tensor) -> list[Tensor]:
    return [t for t in tensors if t in ledger.activations]


def _whole(ledger: Ledger, tensor: Any, *, transposed: bool = False) -> Weight | None:
    """The parameter behind a layer's weight, if the layer uses all of it as it is."""
    weight = ledger.weight(tensor)
    return weight if weight is not None and weight.whole(transposed=transposed) else None


def _layer(ledger: Ledger, key: str, kind: str, cardinality: int, depthwise: bool, sites: int, weight: Weight) -> None:
    stem, _, last = key.rpartition(".")
    name = LayerName(stem if last == "weight" and stem else key)
    ledger.result.layers.setdefault(
        key,
        Layer(name=name, kind=kind, weight=key, cardinality=cardinality, depthwise=depthwise, standardised=weight.rows_only),
    )
    for scale in weight.per_row:
        ledger.slot(scale, 0, torch.from_numpy(ledger.result.labels[key, 0]))
    ledger.result.sites[key] = ledger.result.sites.get(key, 0) + sites


def _dense(ledger: Ledger, key: str, arriving: Tensor, cardinality: int, channels: int, *, transposed: bool) -> Tensor:
    """Reads what arrives, makes new channels; in a grouped convolution equal local indices are one channel."""
    read_dim, write_dim = (0, 1) if transposed else (1, 0)
    local_in, local_out = arriving.numel() // cardinality, channels // cardinality
    table = arriving.view(cardinality, local_in)
    for g in range(1, cardinality):
        ledger.channels.unite_pairs(table[0], table[g])
    ledger.slot(key, read_dim, arriving if transposed else table[0], reads=True)
    made = local_out if transposed else channels
    fresh = ledger.channels.fresh(local_out)
    ledger.slot(key, write_dim, fresh if made == local_out else fresh.repeat(cardinality))
    return fresh.repeat(cardinality)


def _bias(ledger: Ledger, bias: Any, leaving: Tensor) -> None:
    if isinstance(bias, Tensor):
        known = _whole(ledger, bias)
        if known is None:
            ledger.freeze(leaving, "its bias is computed")
        else:
            ledger.slot(known.key, 0, leaving)


def batch_norm(ledger: Ledger, args: Any, out: Any) -> None:
    """Batch norm, and instance norm, which runs as one over images times channels."""
    labels = ledger.labels(args[0])
    _affine(ledger, args[1:5], ledger.per_channel(labels))
    ledger.track(out[0] if isinstance(out, tuple | list) else out, ledger.own(labels, labels.shape))


def _affine(ledger: Ledger, tensors: Iterable[Any], channel: Tensor) -> None:
    """Per-channel parameters; a repeated one (instance norm) belongs to all it is repeated over."""
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            continue
        weight = ledger.weight(tensor)
        if weight is None:
            if tensor in ledger.derived or tensor in ledger.activations:
                ledger.freeze(channel, "the scale or shift of its norm is computed")
            continue
        entries = weight.index.flatten()
        owner = torch.zeros(int(entries.max()) + 1, dtype=torch.int64)
        for start in range(0, entries.numel(), owner.numel()):
            place = entries[start : start + owner.numel()]
            ledger.channels.unite_pairs(owner[place], channel[start : start + owner.numel()])
            owner[place] = torch.where(owner[place] == 0, channel[start : start + owner.numel()], owner[place])
        ledger.slot(weight.key, 0, owner)


def layer_norm(ledger: Ledger, args: Any, out: Tensor) -> None:
    """Takes moments over the last dimension, and scales it."""
    x, shape, weight, bias = args[0], args[1], args[2], args[3]
    labels = ledger.labels(x)
    (different,) = varying(labels)
    if labels.numel() > 0 and bool((different != different[..., :1]).any()):
        if len(shape) != 1:
            ledger.freeze(labels, "a layer norm over several dimensions takes moments over it")
        else:
            channel = ledger.per_channel(labels, labels.dim() - 1)
            _affine(ledger, (weight, bias), channel)
            ledger.moments(channel)
    ledger.track(out, ledger.own(labels, labels.shape))


def group_norm(ledger: Ledger, args: Any, out: Tensor) -> None:
    """Takes moments within each of its groups: equal local indices are one channel."""
    x, weight, bias, groups = args[0], args[1], args[2], args[6]
    labels = ledger.labels(x)
    channel = ledger.per_channel(labels)
    table = channel.view(groups, -1)
    if table.shape[1] > 1:
        ledger.moments(channel)
        for g in range(1, groups):
            ledger.channels.unite_pairs(table[0], table[g])
    _affine(ledger, (weight, bias), channel)
    ledger.track(out, ledger.own(labels, labels.shape))
