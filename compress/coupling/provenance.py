"""Channel provenance by execution: which places in the parameters belong to one channel, read off the network's own run.

One forward pass is run under a dispatch mode. Beside every activation goes a tensor of channel labels of the same shape;
shape operations (chunk, slice, pad, view, concatenation, flatten, permute) are applied to the labels themselves, whatever
arguments the network's code passed, and element-wise operations unite what they combine. A convolution or linear layer
reads the labels that arrive and makes new ones. The result is exact index maps from the network's own computation.

What an operation does to labels is in ``tensor_rules`` and ``layer_rules``, what is known of each tensor in ``labels``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compress.coupling import aten_ops, layer_rules, tensor_rules
from compress.coupling.channel_labels import Ledger, Provenance, Weight
from compress.coupling.tensor_rules import tensors_of
from compress.coupling.value_questions import ValueQuestions, called
from compress.errors import TraceError
from compress.signature import leaves
from compress.surgery import DispatchMode


def follow(model: nn.Module, examples: Sequence[Tensor], keys: Mapping[int, str]) -> Provenance:
    """Runs the model once and follows its channels.

    Args:
        model: in the mode it should run in; not changed except for what a forward pass changes.
        examples: its inputs, one image each.
        keys: ``id`` of each parameter and buffer -> its state_dict key.

    Raises:
        TraceError: something other than tensors, numbers and text comes out, where channels cannot be seen.
    """
    for writable in (False, True):
        found = _followed(model, examples, keys, writable=writable)
        if found is not None:
            return found
    raise AssertionError("labels that own their memory can be written into")


def _followed(model: nn.Module, examples: Sequence[Tensor], keys: Mapping[int, str], *, writable: bool) -> Provenance | None:
    """None: the network writes into activations, and labels that share their memory cannot follow it there."""
    run = _Following(model, keys, writable)
    try:
        output = _forward(model, examples, run)
    except Exception:
        if run.ledger.spoiled:
            return None
        raise
    if run.ledger.spoiled:
        return None
    found = [leaf for _, leaf in leaves(output)]
    strange = [x for x in found if not isinstance(x, Tensor | bool | int | float | complex | str | bytes | type(None))]
    if strange or not any(isinstance(x, Tensor) for x in found):
        seen = type(strange[0]).__name__ if strange else "no tensor"
        raise TraceError(
            f"{type(model).__name__} returns {seen}; tensors, or tuples, lists and dictionaries of them, can be followed",
            hint="wrap the network in a module that returns its tensors",
        )
    run.ledger.numbers_used([x for x in found if isinstance(x, Tensor)], "the network's output")
    for tensor in (x for x in found if isinstance(x, Tensor)):
        run.ledger.freeze(run.ledger.labels(tensor), "it makes the network's output")
    run.ledger.result.asked = run.questions.asked
    run.ledger.result.outputs = [tuple(x.shape) for x in found if isinstance(x, Tensor)]
    return run.ledger.finish()


def _forward(model: nn.Module, examples: Sequence[Tensor], run: _Following) -> Any:
    for example in examples:
        run.ledger.track(example, run.ledger.opaque(example.shape, "it is the network's input"))
        run.questions.depends(example)
    with torch.no_grad(), _watched(model, run), run.questions.value_mode(run.read), run:
        return called(model, examples, {})


@contextmanager
def _watched(model: nn.Module, run: _Following) -> Iterator[None]:
    """Hooks that tell the run which module is running, and what channel maps say of themselves."""
    here = run.ledger.here
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: here.append(name)))
        if getattr(module, "is_channel_map", False):
            hooks.append(module.register_forward_hook(run.channel_map))
        hooks.append(module.register_forward_hook(lambda *_: _pop(here)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _pop(here: list[str]) -> None:  # a hook that returns something replaces the output
    here.pop()


class _Following(DispatchMode):
    def __init__(self, model: nn.Module, keys: Mapping[int, str], writable: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = Ledger(writable=writable)
        self.ledger.modules = dict(model.named_modules())
        self.questions = ValueQuestions()
        self.maps = frozenset(n for n, m in model.named_modules() if getattr(m, "is_channel_map", False))
        for tensor in [*model.parameters(), *model.buffers()]:
            if id(tensor) in keys:
                self.ledger.weights[tensor] = Weight(key=keys[id(tensor)], shape=tuple(tensor.shape))

    def channel_map(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        """A module that says itself which input channel each output channel copies (``sources``, -1 for zero)."""
        with torch.utils._python_dispatch._disable_current_modes():
            self._map(module.sources, args, output)  # type: ignore[arg-type]

    def _map(self, sources: Tensor, args: tuple[Tensor, ...], output: Tensor) -> None:
        ledger = self.ledger
        key = ledger.here[-1] + ".sources"
        arriving = ledger.per_channel(ledger.labels(args[0]))
        leaving = torch.where(sources >= 0, arriving[sources.clamp(min=0)], 0)
        empty = leaving == 0
        leaving[empty] = ledger.channels.fresh(int(empty.sum()))  # a zero channel waits for the one it is added to
        ledger.slot(key, 0, leaving)
        ledger.slot(key, 1, arriving)
        ledger.spread(leaving, output)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        self.ledger.result.operations.append(name)
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            tensors = tensors_of((args, kwargs))
            self.questions.operation(func, name, tensors, out)
            self._follow(func, name, args, kwargs, out, tensors)
            if torch.Tag.nondeterministic_seeded in func.tags or any(t in self.ledger.random for t in tensors):
                for tensor in tensors_of(out):
                    self.ledger.random[tensor] = True
        return out

    def read(self, tensor: Tensor) -> None:
        """Python reads the values of a tensor: what becomes of its channels there cannot be followed."""
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            if tensor in self.ledger.activations:
                self.ledger.freeze(self.ledger.labels(tensor), f"its values are read in Python ({self.questions.asked[-1]})")

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any, out: Any, tensors: list[Tensor]) -> None:
        ledger = self.ledger
        if ledger.here and ledger.here[-1] in self.maps:  # it says itself what it does
            return
        active = [t for t in tensors if t in ledger.activations]
        ledger.numbers_used(tensors, name)
        self._attention(func, name, tensors, active, out)
        if not active:
            if any(t in ledger.weights or t in ledger.derived for t in tensors):
                self._of_parameters(func, name, args, kwargs, out, tensors)
            else:
                tensor_rules.constant(ledger, out)
        elif name == "convolution":
            layer_rules.convolution(ledger, args, out)
        elif name in ("addmm", "mm"):
            bias, x, weight = args[:3] if name == "addmm" else (None, *args[:2])
            layer_rules.linear(ledger, bias, x, weight, out)
        elif name in aten_ops.BATCH_NORMS:
            layer_rules.batch_norm(ledger, args, out)
        elif name == "native_layer_norm":
            layer_rules.layer_norm(ledger, args, out[0])
        elif name == "native_group_norm":
            layer_rules.group_norm(ledger, args, out[0])
        elif name == "constant_pad_nd":
            tensor_rules.pad(ledger, args, out)
        elif name == "glu":
            tensor_rules.glu(ledger, args, out)
        elif name in aten_ops.SHAPE_OPS:
            tensor_rules.shape(ledger, func, name, args, kwargs, out)
        elif name in aten_ops.IN_PLACE_SHAPE:
            tensor_rules.shape_in_place(ledger, func, args)
        elif name == "as_strided_":
            tensor_rules.restride(ledger, args)
        elif name in aten_ops.WRITE_OPS:
            tensor_rules.write(ledger, name, args)
        elif name in aten_ops.POOLS:
            tensor_rules.pool(ledger, active[0], out)
        elif name in aten_ops.REDUCTIONS or name in aten_ops.ALONG:
            tensor_rules.reduce(ledger, name, args, kwargs, active[0], out)
        elif name in aten_ops.FACTORIES:
            tensor_rules.constant(ledger, out)
        elif (torch.Tag.pointwise in func.tags or name in aten_ops.ELEMENTWISE) and tensors_of(out):
            tensor_rules.pointwise(ledger, name, tensors, out)
        else:
            layer_rules.unknown(ledger, name, active, out)

    def _attention(self, func: Any, name: str, tensors: list[Tensor], active: list[Tensor], out: Any) -> None:
        """Notes where attention is computed: by its own operation, or as the softmax of a product of activations."""
        ledger = self.ledger
        scored = any(t in ledger.scores for t in tensors)
        if name in aten_ops.ATTENTION_OPS or (name == "_softmax" and scored):
            if ledger.result.attention is None:
                ledger.result.attention = next((n for n in reversed(ledger.here) if n), "")
        elif (name in aten_ops.PRODUCTS and len(active) > 1) or (
            scored and (torch.Tag.pointwise in func.tags or name in aten_ops.SHAPE_OPS)
        ):
            for tensor in tensors_of(out):
                ledger.scores[tensor] = True

    def _of_parameters(self, func: Any, name: str, args: Any, kwargs: Any, out: Any, tensors: list[Tensor]) -> None:
        """Views and element-wise functions of one parameter stay that parameter; anything else is derived from it."""
        ledger = self.ledger
        known = [t for t in tensors if t in ledger.weights]
        derived = [t for t in tensors if t in ledger.derived]
        big = [t for t in known if t.numel() > 1]
        alone = len(known) == 1 and not derived
        if alone and name in aten_ops.UNCHANGED:
            ledger.weights[out] = ledger.weights[known[0]]
        elif alone and name == "t" and ledger.weights[known[0]].view is None:
            weight = ledger.weights[known[0]]
            ledger.weights[out] = replace(weight, flipped=not weight.flipped and len(weight.shape) == 2)
        elif alone and name in aten_ops.SHAPE_OPS:
            weight = ledger.weights[known[0]]
            index = func(
                *tree_map_only(Tensor, lambda t: weight.index if t is known[0] else t, args), **tensor_rules.plain(kwargs)
            )
            for tensor, entries in zip(tensors_of(out), tensors_of(index), strict=True):
                ledger.weights[tensor] = replace(weight, view=entries, flipped=False)
        elif alone and name in aten_ops.REDUCTIONS and (kept := _copies(ledger.weights[known[0]], args, kwargs)) is not None:
            ledger.weights[out] = replace(ledger.weights[known[0]], view=kept.view(out.shape), flipped=False)
        elif name == "copy_" and len(known) == 2 and not derived and _same_entries(*(ledger.weights[t] for t in known)):
            pass  # statistics that were repeated for each image come home
        elif (
            torch.Tag.pointwise in func.tags
            and len(big) == 1
            and all(t.numel() == 1 for t in derived)
            and isinstance(out, Tensor)
            and out.shape == big[0].shape
        ):
            ledger.weights[out] = ledger.weights[big[0]]
        elif name in aten_ops.BATCH_NORMS and isinstance(args[0], Tensor) and args[0] in ledger.weights:
            gains = [ledger.weights[t].key for t in args[1:3] if isinstance(t, Tensor) and t in ledger.weights]
            ledger.weights[out[0]] = replace(ledger.weights[args[0]], rows_only=True, per_row=tuple(gains))
        else:
            keys = tuple(ledger.weights[t].key for t in known) + tuple(k for t in derived for k in ledger.derived[t])
            for key in keys:
                ledger.fix(key, f"something is computed from {key} by {name}")
            for tensor in tensors_of(out):
                ledger.derived[tensor] = keys


def _copies(weight: Weight, args: Any, kwargs: Any) -> Tensor | None:
    """The entries that are left of a view of which the reduced dimensions hold nothing but copies; None where they do not."""
    dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
    index = weight.index
    for dim in [dims] if isinstance(dims, int) else dims if isinstance(dims, list | tuple) else ():
        first = index.narrow(dim, 0, 1)
        if not bool((index == first).all()):
            return None
        index = first
    return index if index is not weight.index and dims else None


def _same_entries(one: Weight, two: Weight) -> bool:
    return one.key == two.key and torch.equal(one.index, two.index)
