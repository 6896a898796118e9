"""What a network runs, without following what it does to channels: enough to see that two runs are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

from compress.coupling.value_questions import ValueQuestions, called
from compress.surgery import DispatchMode


@dataclass
class RunListing:
    """A run, in order. Two runs of one network on inputs of one shape that are equal do the same to its channels.

    Attributes:
        names: what ran, by its name in the dispatcher; ``read`` where Python read values of the input.
        told: the same with all arguments, on which results of what it ran, and where Python read values of any of these.
    """

    names: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def dataflow(model: nn.Module, examples: Sequence[Tensor]) -> RunListing | None:
    """What runs on these inputs; None where the network does not run on them."""
    run = _Dataflow(examples)
    try:
        with torch.no_grad(), run.questions.value_mode(run.read), run:
            called(model, examples, {})
    except Exception:  # whatever the user's forward raises
        return None
    return run.listing


class _Dataflow(DispatchMode):
    def __init__(self, examples: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.listing = RunListing()
        self.questions, self.input = ValueQuestions(), ValueQuestions()
        for example in examples:
            self.questions.depends(example)
            self.input.depends(example)
        self.numbers: Any = WeakTensorKeyDictionary()
        self.count = 0

    def read(self, tensor: Tensor) -> None:
        """Python reads values."""
        self.listing.told.append("read")
        if self.input.of_input(tensor):
            self.listing.names.append("read")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        given = tree_flatten((args, kwargs))[0]
        told = [self._number(x) if isinstance(x, Tensor) else x for x in given]
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
        self.listing.names.append(name)
        self.listing.told.append(f"{name} {told} {[self._number(x) for x in made]}")
        self.questions.operation(func, name, [x for x in given if isinstance(x, Tensor)], out)
        return out

    def _number(self, tensor: Tensor) -> str:
        """Tensors are numbered as they turn up: parameters and inputs by their first use."""
        number = self.numbers.get(tensor)
        if number is None:
            self.numbers[tensor] = number = self.count
            self.count += 1
        return f"#{number} {tuple(tensor.shape)}"
