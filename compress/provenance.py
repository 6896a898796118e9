"""Channel provenance by execution: which places in the parameters belong to one channel, read off the network's own run.

One forward pass is run under a dispatch mode. Beside every activation goes a tensor of channel labels of the same shape;
shape operations (chunk, slice, pad, view, concatenation, flatten, permute) are applied to the labels themselves, whatever
arguments the network's code passed, and element-wise operations unite what they combine. A convolution or linear layer
reads the labels that arrive and makes new ones. The result is exact index maps from the network's own computation.

Label 0 is "no channel": constants and spatial padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from compress.topology import Layer, LayerName, Slot, TensorInfo

_SHAPE_OPS = frozenset(
    "view _unsafe_view reshape permute transpose t slice select expand unsqueeze squeeze split split_with_sizes chunk unbind "
    "alias detach clone contiguous _to_copy lift_fresh flip roll index_select index repeat pixel_shuffle pixel_unshuffle "
    "channel_shuffle "
    "native_channel_shuffle narrow unfold movedim stack cat tile swapaxes expand_copy view_copy slice_scatter select_scatter "
    "_reshape_alias unsafe_split unsafe_chunk to flatten".split()
)
_INDEXING = frozenset("index index_select".split())
_POOLS = frozenset(
    "max_pool2d_with_indices max_pool3d_with_indices max_pool1d_with_indices avg_pool1d avg_pool2d avg_pool3d "
    "_adaptive_avg_pool2d "
    "_adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d adaptive_avg_pool1d upsample_nearest1d "
    "upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d upsample_linear1d upsample_trilinear3d "
    "_upsample_bilinear2d_aa _upsample_nearest_exact2d reflection_pad1d reflection_pad2d replication_pad1d "
    "replication_pad2d".split()
)
_REDUCTIONS = frozenset("mean sum amax amin max min var std var_mean linalg_vector_norm norm prod logsumexp any all".split())
_ALONG = frozenset("_softmax _log_softmax cumsum cumprod sort topk".split())
_BATCH_NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm "
    "_batch_norm_with_update _batch_norm_no_update batch_norm_with_update".split()
)
_WRITE_OPS = frozenset("copy_ fill_ zero_ masked_fill_ normal_ uniform_ bernoulli_ random_".split())
_FACTORIES = frozenset(
    "empty_like zeros_like ones_like full_like rand_like randn_like new_zeros new_empty new_ones new_full bernoulli".split()
)
_ELEMENTWISE = frozenset("native_dropout dropout rrelu_with_noise _prelu_kernel as_strided_ hardswish_ hardtanh_".split())
ATTENTION_OPS = frozenset(
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention "
    "_scaled_dot_product_attention_math _native_multi_head_attention _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_fused_attention_overrideable _transformer_encoder_layer_fwd".split()
)


@dataclass
class Provenance:
    """What one run told.

    Attributes:
        labels: slot -> the channel class of each of its indices (0: none).
        reads: slots in which a layer consumes channels.
        layers: dense and depthwise layers in forward order.
        sites: weight key -> positions it is applied at, per image.
        frozen: channel class -> why it cannot be cut.
        moment_norms: modules that take moments over channels.
        attention: whether the run contained attention.
        fixed_macs: of layers whose weight is computed.
    """

    labels: dict[Slot, NDArray[np.int64]] = field(default_factory=dict)
    reads: set[Slot] = field(default_factory=set)
    layers: dict[str, Layer] = field(default_factory=dict)
    sites: dict[str, int] = field(default_factory=dict)
    frozen: dict[int, str] = field(default_factory=dict)
    moment_norms: list[LayerName] = field(default_factory=list)
    attention: bool = False
    fixed_macs: int = 0


def follow(model: nn.Module, example: Tensor, keys: Mapping[int, str]) -> Provenance:
    """Runs the model once and follows its channels.

    Args:
        model: in the mode it should run in; not changed except for what a forward pass changes.
        example: (1, c, h, w).
        keys: ``id`` of each parameter and buffer -> its state_dict key.
    """
    run = _Run(model, keys)
    maps = [m for m in model.modules() if getattr(m, "is_channel_map", False)]
    hooks = [m.register_forward_hook(run.channel_map) for m in maps]
    try:
        with torch.no_grad(), run:
            run.track(example, run.opaque(example.shape, "it is the network's input"))
            output = model(example)
    finally:
        for hook in hooks:
            hook.remove()
    for tensor in tree_flatten(output)[0]:
        if isinstance(tensor, Tensor):
            run.freeze(run.label_of(tensor), "it makes the network's output")
    return run.finish()


class _Channels:
    """Union-find over labels; what is frozen stays frozen when united."""

    def __init__(self) -> None:
        self.parent = [0]
        self.frozen: dict[int, str] = {}

    def fresh(self, count: int) -> Tensor:
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def root(self, label: int) -> int:
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def unite(self, a: int, b: int) -> None:
        low, high = sorted((self.root(a), self.root(b)))
        if low == high:
            return
        self.parent[high] = low
        if high in self.frozen:
            self.frozen.setdefault(low, self.frozen.pop(high))

    def unite_pairs(self, a: Tensor, b: Tensor) -> None:
        """Unites where both are channels and differ."""
        differ = (a != b) & (a != 0) & (b != 0)
        if bool(differ.any()):
            for x, y in torch.unique(torch.stack([a[differ], b[differ]]), dim=1).T.tolist():
                self.unite(x, y)

    def freeze(self, labels: Tensor, reason: str) -> None:
        for label in torch.unique(labels).tolist():
            if label:
                self.frozen.setdefault(self.root(label), reason)


@dataclass(frozen=True, slots=True)
class _Weight:
    """A parameter, or a view or element-wise function of one: where its entries come from.

    Attributes:
        key: state_dict key.
        index: flat index into the parameter, in the shape of the view.
        rows_only: a row depends on everything it reads (weight standardisation), so nothing it reads may go.
        per_row: keys of the parameters that scale or shift its rows.
    """

    key: str
    index: Tensor
    rows_only: bool = False
    per_row: tuple[str, ...] = ()


class _Run(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, model: nn.Module, keys: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.channels = _Channels()
        self.result = Provenance()
        self.activations: Any = WeakTensorKeyDictionary()
        self.weights: Any = WeakTensorKeyDictionary()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.norm_modules = {n: m for n, m in model.named_modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)}
        self.names = {id(m): n for n, m in model.named_modules()}
        for tensor in [*model.parameters(), *model.buffers()]:
            if id(tensor) in keys:
                key = keys[id(tensor)]
                self.shapes[key] = tuple(tensor.shape)
                self.weights[tensor] = _Weight(key, torch.arange(tensor.numel()).reshape(tensor.shape))

    # ---- bookkeeping -------------------------------------------------------------------------------------------------

    def track(self, tensor: Tensor, labels: Tensor) -> None:
        self.activations[tensor] = labels

    def label_of(self, tensor: Tensor) -> Tensor:
        found: Tensor | None = self.activations.get(tensor)
        return torch.zeros(tensor.shape, dtype=torch.int64) if found is None else found

    def freeze(self, labels: Tensor, reason: str) -> None:
        self.channels.freeze(labels, reason)

    def opaque(self, shape: torch.Size, reason: str) -> Tensor:
        """Labels of something that may not change."""
        label = self.channels.fresh(1)
        self.channels.freeze(label, reason)
        return label[0].expand(shape).clone()

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

    def finish(self) -> Provenance:
        """Every label replaced by its class."""
        roots = np.array([self.channels.root(i) for i in range(len(self.channels.parent))])
        self.result.labels = {slot: roots[values] for slot, values in self.result.labels.items()}
        self.result.frozen = self.channels.frozen
        return self.result

    def channel_map(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        """A module that says itself which input channel each output channel copies (``sources``, -1 for zero)."""
        sources: Tensor = module.sources  # type: ignore[assignment]
        key = self.names[id(module)] + ".sources"
        arriving = self._per_channel(self.label_of(args[0]))
        leaving = torch.where(sources >= 0, arriving[sources.clamp(min=0)], 0)
        empty = leaving == 0
        leaving[empty] = self.channels.fresh(int(empty.sum()))  # a zero channel waits for the one it is added to
        self.slot(key, 0, leaving)
        self.slot(key, 1, arriving)
        self.shapes[key] = (len(sources), len(arriving))
        self.track(output, leaving.view(1, -1, *[1] * (output.dim() - 2)).expand(output.shape).clone())

    # ---- the dispatch ------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        with torch.utils._python_dispatch._disable_current_modes():
            self._follow(func, name, args, kwargs, out)
        return out

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any, out: Any) -> None:
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        active = [t for t in tensors if t in self.activations]
        parameters = [t for t in tensors if t in self.weights]
        if name in ATTENTION_OPS:
            self.result.attention = True
        if not active and parameters:
            self._of_parameters(func, name, args, kwargs, out, parameters)
        elif not active:
            self._each(out, lambda t: self.track(t, torch.zeros(t.shape, dtype=torch.int64)))
        elif name == "convolution":
            self._convolution(args, out)
        elif name in ("addmm", "mm"):
            self._linear(args if name == "addmm" else (None, *args), out)
        elif name in _BATCH_NORMS:
            self._batch_norm(args, out)
        elif name == "native_layer_norm":
            self._layer_norm(args, out[0])
        elif name == "native_group_norm":
            self._group_norm(args, out[0])
        elif name == "constant_pad_nd":
            self._pad(args, out)
        elif name in _SHAPE_OPS:
            self._shape(func, args, kwargs, out)
        elif name in _WRITE_OPS:
            source = args[1] if name == "copy_" else None
            labels = self.label_of(args[0])
            labels.copy_(self.label_of(source) if isinstance(source, Tensor) else torch.zeros(()))
            self.track(args[0], labels)
        elif name in _POOLS:
            self._pool(active[0], out)
        elif name in _REDUCTIONS or name in _ALONG:
            self._reduce(name, args, kwargs, active[0], out)
        elif name in _FACTORIES:
            self._each(out, lambda t: self.track(t, torch.zeros(t.shape, dtype=torch.int64)))
        elif torch.Tag.pointwise in func.tags or name in _ELEMENTWISE:
            self._pointwise(name, tensors, out)
        else:
            self._unknown(name, active, out)

    def _each(self, out: Any, do: Callable[[Tensor], None]) -> None:
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, Tensor):
                do(tensor)

    def _unknown(self, name: str, active: Iterable[Tensor], out: Any) -> None:
        reason = f"{name} may mix channels"
        for tensor in active:
            self.freeze(self.label_of(tensor), reason)
        self._each(out, lambda t: self.track(t, self.opaque(t.shape, reason)))

    def _of_parameters(self, func: Any, name: str, args: Any, kwargs: Any, out: Any, parameters: Sequence[Tensor]) -> None:
        """Views and element-wise functions of parameters stay parameters; anything else becomes opaque."""
        big = [t for t in parameters if t.numel() > 1]
        known = [self.weights[t] for t in big]
        if name in _SHAPE_OPS and len(parameters) == 1:
            weight = self.weights[parameters[0]]
            index = func(*tree_map_only(Tensor, lambda t: weight.index if t is parameters[0] else t, args), **_plain(kwargs))
            pairs = zip(tree_flatten(out)[0], tree_flatten(index)[0], strict=True)
            for tensor, entries in pairs:
                self.weights[tensor] = replace(weight, index=entries)
        elif torch.Tag.pointwise in func.tags and len(big) == 1 and isinstance(out, Tensor) and out.shape == big[0].shape:
            self.weights[out] = known[0]
        elif name in _BATCH_NORMS and isinstance(args[0], Tensor) and args[0] in self.weights:
            gains = [self.weights[t].key for t in args[1:3] if isinstance(t, Tensor) and t in self.weights]
            self.weights[out[0]] = replace(self.weights[args[0]], rows_only=True, per_row=tuple(gains))
        else:
            reason = f"it is computed from parameters by {name}"
            self._each(out, lambda t: self.track(t, self.opaque(t.shape, reason)) if t.numel() > 1 or big else None)

    # ---- operations --------------------------------------------------------------------------------------------------

    def _per_channel(self, labels: Tensor, dim: int = 1) -> Tensor:
        """One label per channel; whatever shares a channel's kernel column is one class."""
        rows = labels.movedim(dim, 0).reshape(labels.shape[dim], -1)
        first = rows[:, 0].clone()
        if bool((rows == first[:, None]).all()):
            return first
        first = rows.max(dim=1).values
        self.channels.unite_pairs(first[:, None].expand_as(rows), rows)
        return first

    def _spread(self, channel_labels: Tensor, out: Tensor, dim: int = 1) -> None:
        shape = [1] * out.dim()
        shape[dim] = -1
        self.track(out, channel_labels.view(shape).expand(out.shape).clone())

    def _whole_weight(self, tensor: Any, *, transposed: bool = False) -> _Weight | None:
        """The parameter behind a layer's weight, if the layer uses all of it as it is."""
        if not isinstance(tensor, Tensor) or tensor not in self.weights:
            return None
        weight: _Weight = self.weights[tensor]
        index = weight.index.T if transposed else weight.index
        whole = index.shape == self.shapes[weight.key] and bool((index.flatten() == torch.arange(index.numel())).all())
        return weight if whole else None

    def _layer(self, key: str, kind: str, cardinality: int, depthwise: bool, sites: int, weight: _Weight) -> None:
        stem, _, last = key.rpartition(".")
        name = LayerName(stem if last == "weight" and stem else key)
        self.result.layers.setdefault(key, Layer(name, kind, key, cardinality, depthwise, weight.rows_only))
        for scale in weight.per_row:
            self.slot(scale, 0, torch.from_numpy(self.result.labels[key, 0]))
        self.result.sites[key] = self.result.sites.get(key, 0) + sites

    def _convolution(self, args: Any, out: Tensor) -> None:
        x, weight, bias, transposed, cardinality = args[0], args[1], args[2], args[6], args[8]
        known = self._whole_weight(weight)
        if known is None or x not in self.activations:
            self.result.fixed_macs += (x if transposed else out).shape[2:].numel() * weight.numel()
            return self._unknown("convolution with a computed weight", [t for t in (x, weight) if t in self.activations], out)
        key, arriving = known.key, self._per_channel(self.label_of(x))
        spatial = (x if transposed else out).shape[2:].numel()
        kind = "conv_transpose" if transposed else "conv"
        depthwise = cardinality > 1 and arriving.numel() == cardinality
        if known.rows_only:
            self.freeze(arriving, "a standardised weight reads it")
        if depthwise:
            multiplier = out.shape[1] // cardinality
            leaving = arriving.repeat_interleave(multiplier)
            self.slot(key, 0, arriving if transposed else leaving)
        else:
            leaving = self._dense(key, arriving, cardinality, out.shape[1], transposed=transposed)
        self._layer(key, kind, cardinality, depthwise, spatial, known)
        self._bias(bias, leaving)
        self._spread(leaving, out)

    def _dense(self, key: str, arriving: Tensor, cardinality: int, channels: int, *, transposed: bool) -> Tensor:
        """Reads what arrives, makes new channels; in a grouped convolution equal local indices are one channel."""
        read_dim, write_dim = (0, 1) if transposed else (1, 0)
        local_in, local_out = arriving.numel() // cardinality, channels // cardinality
        table = arriving.view(cardinality, local_in)
        for g in range(1, cardinality):
            self.channels.unite_pairs(table[0], table[g])
        self.slot(key, read_dim, arriving if transposed else table[0], reads=True)
        made = local_out if transposed else channels
        fresh = self.channels.fresh(local_out)
        self.slot(key, write_dim, fresh if made == local_out else fresh.repeat(cardinality))
        return fresh.repeat(cardinality)

    def _bias(self, bias: Any, leaving: Tensor) -> None:
        if isinstance(bias, Tensor):
            known = self._whole_weight(bias)
            if known is None:
                self.freeze(leaving, "its bias is computed")
            else:
                self.slot(known.key, 0, leaving)

    def _linear(self, args: Any, out: Tensor) -> None:
        bias, x, weight = args[:3]
        known = self._whole_weight(weight, transposed=True)
        if known is None or x not in self.activations:
            self.result.fixed_macs += len(x) * weight.numel()
            return self._unknown("matrix product of activations", [t for t in (x, weight) if t in self.activations], out)
        arriving = self._per_channel(self.label_of(x))
        if known.rows_only:
            self.freeze(arriving, "a standardised weight reads it")
        leaving = self._dense(known.key, arriving, 1, out.shape[1], transposed=False)
        self._layer(known.key, "linear", 1, False, x.shape[0], known)
        self._bias(bias, leaving)
        self._spread(leaving, out)

    def _batch_norm(self, args: Any, out: Any) -> None:
        x = args[0]
        labels = self.label_of(x)
        channel = self._per_channel(labels)
        for tensor in args[1:5]:
            if isinstance(tensor, Tensor) and tensor in self.weights:
                self._affine(tensor, channel)
        self.track(out[0] if isinstance(out, tuple | list) else out, labels.clone())

    def _affine(self, tensor: Tensor, channel: Tensor) -> None:
        """A per-channel parameter; a repeated one (instance norm) belongs to all it is repeated over."""
        weight: _Weight = self.weights[tensor]
        entries = weight.index.flatten()
        owner = torch.zeros(int(entries.max()) + 1, dtype=torch.int64)
        for start in range(0, entries.numel(), owner.numel()):
            place = entries[start : start + owner.numel()]
            self.channels.unite_pairs(owner[place], channel[start : start + owner.numel()])
            owner[place] = torch.where(owner[place] == 0, channel[start : start + owner.numel()], owner[place])
        self.slot(weight.key, 0, owner)

    def _norm_module(self, weight: Any) -> LayerName | None:
        if not isinstance(weight, Tensor) or weight not in self.weights:
            return None
        name = self.weights[weight].key.rpartition(".")[0]
        return LayerName(name) if name in self.norm_modules else None

    def _layer_norm(self, args: Any, out: Tensor) -> None:
        x, shape, weight, bias = args[0], args[1], args[2], args[3]
        labels = self.label_of(x)
        varies = labels.numel() > 0 and bool((labels != labels[..., :1]).any())
        name = self._norm_module(weight)
        if varies and (name is None or len(shape) != 1):
            self.freeze(labels, "a layer norm without a module takes moments over it")
        elif varies and name is not None:
            channel = self._per_channel(labels, labels.dim() - 1)
            for tensor in (weight, bias):
                if isinstance(tensor, Tensor):
                    self.slot(self.weights[tensor].key, 0, channel)
            self._moment_norm(name)
        self.track(out, labels.clone())

    def _moment_norm(self, name: LayerName) -> None:
        if name not in self.result.moment_norms:
            self.result.moment_norms.append(name)

    def _group_norm(self, args: Any, out: Tensor) -> None:
        x, weight, bias, groups = args[0], args[1], args[2], args[6]
        labels = self.label_of(x)
        channel = self._per_channel(labels)
        table = channel.view(groups, -1)
        if table.shape[1] > 1:
            name = self._norm_module(weight)
            if name is None:
                self.freeze(channel, "a group norm without parameters takes moments over it")
            else:
                self._moment_norm(name)
            for g in range(1, groups):
                self.channels.unite_pairs(table[0], table[g])
        for tensor in (weight, bias):
            if isinstance(tensor, Tensor) and tensor in self.weights:
                self._affine(tensor, channel)
        self.track(out, labels.clone())

    def _pad(self, args: Any, out: Tensor) -> None:
        """Zero channels added along the channel dimension are channels to be; spatial padding is nobody."""
        x, pad = args[0], args[1]
        labels = torch.constant_pad_nd(self.label_of(x), pad, 0)
        for i in range(0, len(pad), 2):
            dim = x.dim() - 1 - i // 2
            first = self.label_of(x).select(dim, 0).unsqueeze(dim)
            if (pad[i] > 0 or pad[i + 1] > 0) and bool((self.label_of(x) != first).any()):
                for where in [*range(pad[i]), *range(out.shape[dim] - pad[i + 1], out.shape[dim])]:
                    labels.select(dim, where).fill_(int(self.channels.fresh(1)))
        self.track(out, labels)

    def _shape(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """The operation itself, on labels. Parameters concatenated with activations cannot be told apart: frozen."""
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        if any(t in self.weights for t in tensors):
            return self._unknown(
                f"{func._schema.name} of parameters and activations", [t for t in tensors if t in self.activations], out
            )
        places = tensors[1:] if func._schema.name.removeprefix("aten::") in _INDEXING else []
        if any(bool(self.label_of(t).any()) for t in places):
            return self._unknown("indexing by what was computed", [t for t in tensors if t in self.activations], out)
        constant = {id(t) for t in places}
        swapped = tree_map_only(Tensor, lambda t: t if id(t) in constant else self.label_of(t), args)
        try:
            labels = func(*swapped, **_plain(kwargs))
        except RuntimeError:  # labels lie in memory in another order than a channels-last activation, and cannot be viewed so
            if "view" not in func._schema.name:
                raise
            labels = swapped[0].reshape(out.shape)
        for tensor, label in zip(tree_flatten(out)[0], tree_flatten(labels)[0], strict=True):
            fresh = label.clone() if func._schema.name.endswith(("clone", "_to_copy")) else label
            self.track(tensor, fresh)

    def _pool(self, x: Tensor, out: Any) -> None:
        labels = self.label_of(x)
        dim = 1 if x.dim() > 2 else 0
        channel = self._per_channel(labels, dim)
        self._each(out, lambda t: self._spread(channel, t, dim))

    def _reduce(self, name: str, args: Any, kwargs: Any, x: Tensor, out: Any) -> None:
        """What is summed over goes together: labels along the reduced dimensions become one class."""
        labels = self.label_of(x)
        dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if name == "topk":
            dims = args[2] if len(args) > 2 else -1
        if name == "linalg_vector_norm":
            dims = args[2] if len(args) > 2 else kwargs.get("dim")
        if dims is None or isinstance(dims, Tensor | float) or dims == []:
            dims = list(range(x.dim()))
        reduced = sorted({d % x.dim() for d in ([dims] if isinstance(dims, int) else dims)})
        rest = [d for d in range(x.dim()) if d not in reduced]
        rows = labels.permute(*rest, *reduced).reshape(*[labels.shape[d] for d in rest], -1)
        first = rows.max(dim=-1).values
        self.channels.unite_pairs(first.unsqueeze(-1).expand_as(rows), rows)
        keep = [1 if d in reduced else labels.shape[d] for d in range(x.dim())]
        kept = first.reshape(keep)

        def assign(tensor: Tensor) -> None:
            if tensor.dim() == x.dim():
                self.track(tensor, kept.expand(tensor.shape).clone())
            else:
                self.track(tensor, first.reshape(tensor.shape).clone())

        self._each(out, assign)

    def _pointwise(self, name: str, tensors: Sequence[Tensor], out: Any) -> None:
        results = [t for t in tree_flatten(out)[0] if isinstance(t, Tensor)]
        shape = results[0].shape
        merged = torch.zeros(shape, dtype=torch.int64)
        for tensor in tensors:
            if tensor in self.activations and tensor.dim() <= len(shape):
                other = self.label_of(tensor).expand(shape)
                self.channels.unite_pairs(merged, other)
                merged = torch.where(merged == 0, other, merged)
        for tensor in tensors:
            if tensor in self.weights and tensor.numel() > 1:
                self._per_entry(self.weights[tensor], merged)
        for tensor in results:
            if name.endswith("_") and tensor in self.activations:
                self.activations[tensor].copy_(merged)
            else:
                self.track(tensor, merged.clone())

    def _per_entry(self, weight: _Weight, labels: Tensor) -> None:
        """A parameter used element-wise: the dimension whose indices decide the channel belongs to the channels."""
        index = weight.index.expand(labels.shape).flatten()
        flat = labels.flatten()
        coordinates = np.unravel_index(index.numpy(), self.shapes[weight.key])
        if bool((flat == flat[0]).all()):
            return
        for dim, size in enumerate(self.shapes[weight.key]):
            where = torch.from_numpy(coordinates[dim])
            owner = torch.zeros(size, dtype=torch.int64)
            owner[where] = flat
            if size > 1 and bool((owner[where] == flat).all()):
                return self.slot(weight.key, dim, owner)
        self.freeze(labels, f"{weight.key} is combined with it element by element")


def _plain(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if k not in ("dtype", "layout", "device", "pin_memory")}


def tensor_table(
    state: Mapping[str, Tensor], parameters: set[str], sites: Mapping[str, int], run: Provenance
) -> dict[str, TensorInfo]:
    """Shapes of every state_dict entry (``keep_vars``, to see ties); a channel map is virtually an (out, in) matrix."""
    table: dict[str, TensorInfo] = {}
    first: dict[int, str] = {}
    for key, tensor in state.items():
        shape = tuple(tensor.shape)
        if (key, 1) in run.labels and len(shape) == 1:
            shape = (shape[0], len(run.labels[key, 1]))
        same_as = first.setdefault(id(tensor), key)
        own = same_as == key
        table[key] = TensorInfo(shape, own and key in parameters, sites.get(key, 0), "" if own else same_as)
    return table
