"""One run of a network as a graph: which operation made which value of which others, and which module ran it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

from compress.coupling.value_questions import called
from compress.signature import leaves
from compress.surgery import DispatchMode


@dataclass(frozen=True)
class Operation:
    """What the dispatcher ran.

    Attributes:
        number: its place in the run.
        name: without its overload.
        inputs: values it was given, in the order of its arguments.
        outputs: values it made; of a tensor that it wrote into, and of what shares memory with it, new ones.
        plain: its other arguments that are not None, where they are not those it has by default.
        module: name of the module that was running.
    """

    number: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    plain: tuple[Any, ...]
    module: str


@dataclass(frozen=True)
class ModuleCall:
    """A module that ran: operations ``start`` to ``end``, ``end`` not included.

    Attributes:
        name: its first one in ``named_modules``.
        depth: how many modules were running around it.
        first: the first tensor it was given.
        outputs: the tensors it gave.
    """

    name: str
    depth: int
    start: int
    end: int
    first: int | None
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class RunGraph:
    """A recorded run.

    Attributes:
        operations: in order.
        calls: of modules, in the order in which they ended.
        shapes: of values.
        keys: value -> the state_dict entry it is.
        given: values of the network's inputs.
        answers: values of its outputs.
    """

    operations: tuple[Operation, ...]
    calls: tuple[ModuleCall, ...]
    shapes: Mapping[int, tuple[int, ...]]
    keys: Mapping[int, str]
    given: frozenset[int]
    answers: frozenset[int]

    @cached_property
    def makers(self) -> Mapping[int, int]:
        """Value -> number of the operation that made it; parameters, buffers and inputs have none."""
        return {value: operation.number for operation in self.operations for value in operation.outputs}

    @cached_property
    def users(self) -> Mapping[int, tuple[int, ...]]:
        """Value -> numbers of the operations that were given it."""
        found: dict[int, list[int]] = {}
        for operation in self.operations:
            for value in dict.fromkeys(operation.inputs):
                found.setdefault(value, []).append(operation.number)
        return {value: tuple(numbers) for value, numbers in found.items()}

    def between(self, start: int, end: int) -> frozenset[int]:
        """Numbers of the operations on all ways from one value to another."""
        forward, near = set[int](), [start]
        last = self.makers[end]
        while near:
            for number in self.users.get(near.pop(), ()):
                if number <= last and number not in forward:
                    forward.add(number)
                    near += self.operations[number].outputs
        if last not in forward:
            return frozenset()
        found, near = {last}, [last]
        while near:
            for value in self.operations[near.pop()].inputs:
                number = self.makers.get(value, -1)
                if number in forward and number not in found and value != start:
                    found.add(number)
                    near.append(number)
        return frozenset(found)


def recorded(model: nn.Module, examples: Sequence[Tensor]) -> RunGraph:
    """Runs a network once and writes down what happens.

    Args:
        model: in evaluation mode; not changed except for what a forward pass changes.
        examples: its inputs.
    """
    run = _Recording(model)
    given = frozenset(run.value(x) for x in examples)
    with torch.no_grad(), _calls(model, run), run:
        answer = called(model, examples, {})
    answers = frozenset(run.value(t) for _, t in leaves(answer) if isinstance(t, Tensor))
    return RunGraph(
        operations=tuple(run.operations),
        calls=tuple(run.calls),
        shapes=run.shapes,
        keys=run.keys,
        given=given,
        answers=answers,
    )


class _Recording(DispatchMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.calls: list[ModuleCall] = []
        self.here: list[str] = []
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.keys: dict[int, str] = {}
        self.values: Any = WeakTensorKeyDictionary()
        self.sharing: dict[int, Any] = {}  # memory -> the tensors that live in it
        for key, tensor in model.state_dict(keep_vars=True).items():
            self.keys.setdefault(self.value(tensor), key)

    def value(self, tensor: Tensor) -> int:
        """The number of what a tensor holds now."""
        if tensor not in self.values:
            self.renew(tensor)
            memory = _memory(tensor)
            if memory is not None:
                self.sharing.setdefault(memory, WeakTensorKeyDictionary())[tensor] = True
        return int(self.values[tensor])

    def renew(self, tensor: Tensor) -> int:
        """A number for what a tensor holds from now on."""
        self.values[tensor] = number = len(self.shapes)
        self.shapes[number] = tuple(tensor.shape)
        return number

    def _beside(self, tensor: Tensor) -> list[Tensor]:
        """The tensors that share its memory."""
        memory = _memory(tensor)
        return [] if memory is None else list(self.sharing.get(memory, ()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given, written = _arguments(func, args, kwargs)
        inputs = tuple(self.value(t) for t in given if isinstance(t, Tensor))
        for tensor in written:
            for other in (tensor, *self._beside(tensor)):
                self.values.pop(other, None)
        out = func(*args, **kwargs)
        made = [t for t in tree_flatten(out)[0] if isinstance(t, Tensor)]
        changed = [t for w in written for t in (w, *self._beside(w))]
        outputs = tuple(dict.fromkeys(self.value(t) for t in (*made, *changed)))
        self.operations.append(
            Operation(
                number=len(self.operations),
                name=func._schema.name.removeprefix("aten::"),
                inputs=inputs,
                outputs=outputs,
                plain=tuple(x for x in given if not isinstance(x, Tensor)),
                module=self.here[-1] if self.here else "",
            )
        )
        return out


def _arguments(func: Any, args: Any, kwargs: Any) -> tuple[list[Any], list[Tensor]]:
    """Tensors, and whatever else is not what it is by default, in the order of the arguments; and the tensors written into."""
    found: list[Any] = []
    written: list[Tensor] = []
    for place, argument in enumerate(func._schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        parts = tree_flatten(value)[0]
        if any(isinstance(p, Tensor) for p in parts):
            found += [p for p in parts if isinstance(p, Tensor)]
        elif value is not None and not (argument.has_default_value() and argument.default_value == value):
            found.append(tuple(value) if isinstance(value, list) else value)
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += [p for p in parts if isinstance(p, Tensor)]
    return found, written


def _memory(tensor: Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors have none
        return None


@contextmanager
def _calls(model: nn.Module, run: _Recording) -> Iterator[None]:
    """Hooks that write down when each module runs, on what, and what it gives."""
    hooks, running = [], list[tuple[int, int | None]]()

    def enter(name: str, args: Any, kwargs: Any) -> None:
        first = next((t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)), None)
        running.append((len(run.operations), None if first is None else run.value(first)))
        run.here.append(name)

    def leave(name: str, output: Any) -> None:
        start, first = running.pop()
        run.here.pop()
        made = tuple(run.value(t) for t in tree_flatten(output)[0] if isinstance(t, Tensor))
        run.calls.append(
            ModuleCall(name=name, depth=len(run.here), start=start, end=len(run.operations), first=first, outputs=made)
        )

    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        hooks.append(
            module.register_forward_pre_hook(lambda _m, args, kwargs, name=name: enter(name, args, kwargs), with_kwargs=True)
        )
        hooks.append(module.register_forward_hook(lambda _m, _a, output, name=name: leave(name, output)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
