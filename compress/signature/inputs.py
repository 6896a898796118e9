"""What a network is called with: tensors in any structure, as one row of numbers an example.

Searching, cutting, recovery and the guard slice, split and count images. They do the same to the inputs of a network that takes
several: each example is one row, its tensors side by side, and the network takes rows until somebody asks for itself again.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_flatten_with_path, tree_unflatten

from compress.errors import CompressError, ModelError, one_line
from compress.signature.outputs import leaves

INPUT = "input"
_FEW = 64
"""Values of an input without a batch that a file records."""
"""The name of the one tensor that a network of images takes."""
_HINT = "give inputs that the network runs on, with a batch: a tensor, a tuple of arguments, or a dict of named ones"


@dataclass(frozen=True, eq=False)
class InputTensor:
    """One tensor that a network takes.

    Attributes:
        name: in ONNX files.
        shape: of one example's part; of the whole tensor where it has no batch.
        dtype: its element type.
        batched: its first dimension counts examples.
        value: the example's, which one without a batch always has.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    batched: bool
    value: Tensor

    @property
    def numel(self) -> int:
        """Its places in a row."""
        return math.prod(self.shape) if self.batched else 0

    @property
    def span(self) -> tuple[int, int]:
        """Its least and largest whole number in the example."""
        return (int(self.value.min()), int(self.value.max())) if self.value.numel() else (0, 0)

    def to_json(self) -> dict[str, Any]:
        """Name, shape and type; the range of whole numbers, and the values of what has no batch, where they are few."""
        facts = {"name": self.name, "shape": list(self.shape), "dtype": str(self.dtype).removeprefix("torch.")}
        if not self.dtype.is_floating_point:
            facts["range"] = list(self.span)
        if not self.batched and self.value.numel() <= _FEW:
            facts["values"] = self.value.flatten().tolist()
        return facts | {"batched": self.batched}

    def of_row(self, part: Any) -> Any:
        """(n, numel) as the tensor it stands for; whole numbers stay within those of the example."""
        shaped = part.reshape(-1, *self.shape)
        if self.dtype.is_floating_point:
            return shaped
        if self.dtype is torch.bool:
            return shaped > 0.5
        low, high = self.span
        return shaped.round().clamp(low, high).to(self.dtype)

    def random(self, count: int, generator: torch.Generator) -> Tensor:
        """Normal noise, or whole numbers in the example's range, (count, numel)."""
        if self.dtype.is_floating_point:
            return torch.randn(count, self.numel, generator=generator)
        low, high = self.span
        return torch.randint(low, high + 1, (count, self.numel), generator=generator).float()


@dataclass(frozen=True, eq=False)
class Signature:
    """The structure of a network's inputs.

    Attributes:
        inputs: its tensors, in the order in which ONNX files take them.
        spec: how they lie in ``(args, kwargs)``.
        fixed: what lies there besides, by place: numbers, text, None.
    """

    inputs: tuple[InputTensor, ...]
    spec: TreeSpec
    fixed: Mapping[int, Any]

    @property
    def plain(self) -> bool:
        """One tensor of examples and nothing else: it is its own rows."""
        alone = len(self.inputs) == 1 and not self.fixed and self.spec == tree_flatten(((0,), {}))[1]
        return alone and self.inputs[0].batched and self.inputs[0].dtype.is_floating_point

    @property
    def shape(self) -> tuple[int, ...]:
        """One row: the tensor's own shape where there is one only, else the number of all inputs' elements."""
        return self.inputs[0].shape if self.plain else (sum(t.numel for t in self.inputs),)

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs' names."""
        return tuple(t.name for t in self.inputs)

    def describe(self) -> str:
        """For people: ``before 3x32x32, after 3x32x32``."""
        return ", ".join(f"{t.name} {'x'.join(map(str, t.shape)) or 'scalar'}" for t in self.inputs)

    def to_json(self) -> list[dict[str, Any]]:
        """Names, shapes, types and what may stand in them, as plain data."""
        return [t.to_json() for t in self.inputs]

    def rows(self, count: int, seed: int = 0) -> Tensor:
        """Random examples, (count, *shape): normal noise, whole numbers in the example's range."""
        generator = torch.Generator().manual_seed(seed)
        parts = [t.random(count, generator) for t in self.inputs if t.batched]
        return torch.cat(parts, dim=1).reshape(count, *self.shape)

    def packed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Rows of the examples that a call is given.

        Raises:
            ModelError: the call has another structure, or a tensor another shape.
        """
        values, spec = tree_flatten((args, dict(kwargs)))
        held = [v for v in values if isinstance(v, Tensor)]
        if spec != self.spec or len(held) != len(self.inputs):
            raise ModelError(
                f"a batch calls the network with {_kinds((args, kwargs))}, the example with {self.describe()}", hint=_HINT
            )
        parts = []
        for tensor, one in zip(held, self.inputs, strict=True):
            if one.batched and tuple(tensor.shape[1:]) != one.shape:
                raise ModelError(
                    f"{one.name} has the shape {tuple(tensor.shape[1:])}, the example's is {one.shape}", hint=_HINT
                )
            if one.batched:
                parts.append(tensor if self.plain else tensor.reshape(len(tensor), -1).float())
        return parts[0] if self.plain else torch.cat(parts, dim=1)

    def unpacked(self, rows: Any) -> tuple[Any, ...]:
        """The tensors that rows stand for, in the order of ``inputs``."""
        if self.plain:
            return (rows,)
        found, start = [], 0
        for one in self.inputs:
            found.append(one.of_row(rows[:, start : start + one.numel]) if one.batched else one.value)
            start += one.numel
        return tuple(found)

    def arguments(self, given: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments with these tensors in their places."""
        queue: Iterator[Any] = iter(given)
        values = [self.fixed[i] if i in self.fixed else next(queue) for i in range(self.spec.num_leaves)]
        args, kwargs = tree_unflatten(values, self.spec)
        return args, kwargs

    @staticmethod
    def of(model: nn.Module, example: Any) -> Signature:
        """Reads the structure off an example, as the network takes it.

        A tensor is the one argument; a tuple holds the arguments, keyword arguments in a dict at its end; a dict holds
        keyword arguments where ``forward`` has such, and is one argument otherwise, as a list is.

        Args:
            model: in evaluation mode; it is run once or twice.
            example: what one call takes, with a batch of one or more.

        Raises:
            ModelError: no tensor is in it, its tensors have no batch, or the network does not run on it.
        """
        failed: list[str] = []
        for args, kwargs in _readings(model, example):
            found = _read(model, args, kwargs, alone=isinstance(example, Tensor))
            try:
                with torch.no_grad():
                    model(*args, **kwargs)
            except CompressError:
                raise
            except Exception as error:  # whatever the user's forward raises
                failed.append(f"{type(error).__name__}: {one_line(error, 200)}")
                continue
            return found
        raise ModelError(f"{type(model).__name__} does not run on the example: {failed[0]}", hint=_HINT)


def _readings(model: nn.Module, example: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What an example may mean, the likeliest first: only those that ``forward`` can be called with."""
    named = isinstance(example, tuple) and hasattr(example, "_fields")
    readings: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    if isinstance(example, tuple) and not named:
        if example and isinstance(example[-1], dict) and all(isinstance(k, str) for k in example[-1]):
            readings.append((example[:-1], dict(example[-1])))
        readings.append((example, {}))
    if isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        readings.append(((), dict(example)))
    readings.append(((example,), {}))
    if isinstance(example, list):
        readings.append((tuple(example), {}))
    fits = [(args, kwargs) for args, kwargs in readings if _binds(model, args, kwargs)]
    if not fits:
        raise ModelError(f"{type(model).__name__}.forward cannot be called with the example: {_kinds(example)}", hint=_HINT)
    yield from fits


def _binds(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature takes what it takes
        return True
    return True


def _kinds(example: Any) -> str:
    return ", ".join(type(leaf).__name__ for _, leaf in leaves(example)) or "nothing"


def _read(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, alone: bool) -> Signature:
    values, spec = tree_flatten((args, kwargs))
    held = [v for v in values if isinstance(v, Tensor)]
    if not held:
        raise ModelError(f"the example holds no tensor, but {_kinds((args, kwargs))}", hint=_HINT)
    sizes = [t.shape[0] for t in held if t.dim() > 1] or [t.shape[0] for t in held if t.dim() == 1]
    if not sizes or sizes[0] == 0:
        raise ModelError("the example's tensors have no first dimension that counts examples", hint=_HINT)
    names = iter([INPUT] if alone else _names(model, args, kwargs))
    inputs = []
    for tensor in held:
        if tensor.is_complex() or tensor.is_sparse or tensor.is_quantized:
            raise ModelError(f"the example holds a tensor of type {tensor.dtype}, real and dense ones are taken", hint=_HINT)
        batched = tensor.dim() > 0 and tensor.shape[0] == sizes[0]
        shape = tuple(tensor.shape[1:] if batched else tensor.shape)
        inputs.append(
            InputTensor(name=next(names), shape=shape, dtype=tensor.dtype, batched=batched, value=tensor.detach().cpu())
        )
    fixed = {i: v for i, v in enumerate(values) if not isinstance(v, Tensor)}
    return Signature(tuple(inputs), spec, fixed)


def _names(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """A name a tensor, in the order of the leaves: its argument's, with the keys below that where it holds several."""
    parameters = inspect.signature(model.forward).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    single_names = [p.name for p in positional if p.kind != p.VAR_POSITIONAL]
    owners = [(single_names[i] if i < len(single_names) else f"{INPUT}_{i}", a) for i, a in enumerate(args)]
    tensors_below = [(name, _paths(value)) for name, value in [*owners, *kwargs.items()]]
    single = sum(bool(paths) for _, paths in tensors_below) == 1
    names: list[str] = []
    for owner, paths in tensors_below:
        for path in paths:
            parts = path if single and path and not path[0].isdigit() else (owner, *path)
            name = re.sub(r"\W+", "_", "_".join(parts)) or INPUT
            while name in names:
                name += "_"
            names.append(name)
    return names


def _paths(value: Any) -> list[tuple[str, ...]]:
    """Where the tensors lie, in the order in which the tree is flattened."""
    found, _ = tree_flatten_with_path(value)
    return [
        tuple(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)
        for path, leaf in found
        if isinstance(leaf, Tensor)
    ]


# ---- a network that takes rows --------------------------------------------------------------------------------------


def taking_rows(model: nn.Module, signature: Signature) -> nn.Module:
    """Makes the network itself take rows of its signature; names of its layers and tensors stay what they are.

    Raises:
        ModelError: hooks of its own stand before its inputs.
    """
    if signature.plain:
        return model
    if model._forward_pre_hooks or model._forward_hooks:
        raise ModelError(
            f"{type(model).__name__} has hooks on its own forward, which would be shown rows instead of its inputs",
            hint="remove them, or wrap the network in a module that calls it",
        )
    kind = type(model)

    def forward(self: Any, rows: Any) -> Any:
        args, kwargs = signature.arguments(_on(signature.unpacked(rows), rows))
        return kind.forward(self, *args, **kwargs)

    model.__class__ = type(kind.__name__, (kind,), {"forward": forward, "_rows": signature, "__module__": kind.__module__})
    return model


def _on(tensors: Sequence[Any], rows: Any) -> list[Any]:
    """Constants where the rows are, in their precision."""
    found = []
    for tensor in tensors:
        if isinstance(tensor, Tensor) and isinstance(rows, Tensor):
            kind = rows.dtype if tensor.is_floating_point() else tensor.dtype
            tensor = tensor.to(rows.device, kind)
        found.append(tensor)
    return found


def signature_of(model: nn.Module) -> Signature | None:
    """What a network that takes rows really takes; None where it is called as it is."""
    found: Signature | None = getattr(type(model), "_rows", None)
    return found


def bare(model: nn.Module) -> nn.Module:
    """The same network, taking its own inputs again; its tensors are shared."""
    if signature_of(model) is None:
        return model
    result = copy.copy(model)
    result.__class__ = type(model).__bases__[0]
    return result
