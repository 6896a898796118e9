"""Where a network's code asks a tensor for its value: what it does on other values, one run cannot show.

``if x.max() > 20``, ``float(y.mean())``, ``y.numpy()``: Python, and not a tensor operation, decides what comes next. Only what
depends on the values of the input counts. Parameters, buffers, shapes and constants answer the same for every input.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from compress.signature import bare, signature_of
from compress.surgery import DispatchMode

_READS = frozenset(
    "item tolist numpy __array__ __bool__ __float__ __int__ __index__ __complex__ __dlpack__ is_nonzero equal allclose".split()
)
"""Methods and functions that hand values to Python; of these ``tolist`` and ``numpy`` pass the dispatcher by."""
_SHAPE_ONLY = frozenset(
    "empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_zeros new_empty new_ones new_full "
    "new_empty_strided _shape_as_tensor".split()
)
"""Operations of which the result depends on the shape of a tensor alone."""


class ValueQuestions:
    """What depends on the input, and where the code asked for its value.

    Tensors are known by their memory, so that what is written into a part is seen in the whole.

    Attributes:
        asked: the lines, in the order in which they asked.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._from_input: dict[int, StorageWeakRef] = {}  # as long as a reference lives, its memory's number is not given again

    def depends(self, tensor: Tensor) -> None:
        """The tensor's values depend on the input."""
        try:
            storage = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        except (NotImplementedError, RuntimeError):  # sparse tensors have none
            return
        self._from_input[storage.cdata] = storage

    def of_input(self, tensor: Tensor) -> bool:
        """Whether the tensor's values depend on the input."""
        try:
            return tensor.untyped_storage()._cdata in self._from_input
        except (NotImplementedError, RuntimeError):
            return False

    def operation(self, func: Any, name: str, tensors: Sequence[Tensor], out: Any) -> None:
        """An operation ran on these tensors: its results depend on the input where one of them does."""
        if name in _SHAPE_ONLY or not any(self.of_input(t) for t in tensors):
            return
        if torch.Tag.data_dependent_output in func.tags and not isinstance(out, Tensor):
            self.ask()
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, Tensor):
                self.depends(tensor)

    def ask(self) -> None:
        """The code that is running asks for a value."""
        line = _line()
        if line not in self.asked:
            self.asked.append(line)

    def value_mode(self, also: Callable[[Tensor], None] = lambda _: None) -> TorchFunctionMode:
        """A mode that sees Python read values.

        Args:
            also: is called with each tensor that is read.
        """
        return _ValueMode(self, also)


class _ValueMode(TorchFunctionMode):
    def __init__(self, questions: ValueQuestions, also: Callable[[Tensor], None]) -> None:
        self.questions, self.also = questions, also

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _READS:
            read = [t for t in args if isinstance(t, Tensor) and self.questions.of_input(t)]
            if read:
                self.questions.ask()
            for tensor in read:
                self.also(tensor)
        return func(*args, **(kwargs or {}))


class _Asking(DispatchMode):
    def __init__(self, questions: ValueQuestions) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.questions = questions

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        self.questions.operation(func, func._schema.name.removeprefix("aten::"), tensors, out)
        return out


def called(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Calls the model. Lines of code are looked for between here and the question."""
    return model(*args, **kwargs)


def value_branches(model: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Where the model's code asks for a value of its input: folder and file, line and function.

    Args:
        model: on any device; its mode, buffers and the random state are what a forward pass makes of them.
        images: a batch of its inputs; rows where it takes rows.
    """
    signature, questions = signature_of(model), ValueQuestions()
    where = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    given = (images,) if signature is None else signature.unpacked(images)
    inputs = [t.to(where) if isinstance(t, Tensor) else t for t in given]
    for tensor in inputs:
        if isinstance(tensor, Tensor):
            questions.depends(tensor)
    args, kwargs = (inputs, {}) if signature is None else signature.arguments(inputs)
    with torch.no_grad(), questions.value_mode(), _Asking(questions):
        called(bare(model), args, kwargs)
    return tuple(questions.asked)


def _line() -> str:
    """The innermost line that is neither torch's nor a tool's."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not called.__code__:
        file = frame.f_code.co_filename
        if not _of_a_tool(file):
            return f"{'/'.join(Path(file).parts[-2:])}:{frame.f_lineno} in {frame.f_code.co_name}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "compiled code"


def _of_a_tool(file: str) -> bool:
    return file.startswith(_TOOLS) or (file.startswith(_STANDARD) and "site-packages" not in file)


_TOOLS = tuple(f"{folder}/" for folder in (Path(__file__).parents[1], *(Path(str(m.__file__)).parent for m in (torch, np))))
_STANDARD = sysconfig.get_path("stdlib")
