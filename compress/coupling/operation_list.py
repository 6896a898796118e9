"""What a network runs, without following what it does to channels: enough to see that two runs are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

from compress.coupling.value_questions import ValueQuestions, called
from compress.surgery import DispatchMode


def operations(model: nn.Module, examples: Sequence[Tensor]) -> list[str] | None:
    """What runs, by its name in the dispatcher, in order; None where the network does not run on these inputs."""
    return _listed(model, examples, _Names())


def dataflow(model: nn.Module, examples: Sequence[Tensor]) -> list[str] | None:
    """What runs on which results of what, with all arguments, and where Python reads values; None where it does not run.

    Two runs of one network on inputs of one shape with the same dataflow do the same to its channels.
    """
    return _listed(model, examples, _Dataflow())


def _listed(model: nn.Module, examples: Sequence[Tensor], listing: _Names) -> list[str] | None:
    try:
        for example in examples:
            listing.questions.depends(example)
        with torch.no_grad(), listing.questions.value_mode(lambda _: listing.names.append("read")), listing:
            called(model, examples, {})
    except Exception:  # whatever the user's forward raises
        return None
    return listing.names


class _Names(DispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []
        self.questions = ValueQuestions()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


class _Dataflow(_Names):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()
        self.numbers: Any = WeakTensorKeyDictionary()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        given = tree_flatten((args, kwargs))[0]
        told = [self._number(x) if isinstance(x, Tensor) else x for x in given]
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
        self.names.append(f"{name} {told} {[self._number(x) for x in made]}")
        self.questions.operation(func, name, [x for x in given if isinstance(x, Tensor)], out)
        return out

    def _number(self, tensor: Tensor) -> str:
        """Tensors are numbered as they turn up: parameters and inputs by their first use."""
        if tensor not in self.numbers:
            self.numbers[tensor], self.count = self.count, self.count + 1
        return f"#{self.numbers[tensor]} {tuple(tensor.shape)}"
