"""The tensors of a TorchScript file, read without compiling or running its code.

``torch.jit.load`` compiles the archive and may run the ``__setstate__`` it holds, and TorchScript can write files. The
tensors need none of that: they lie in ``data/N``, and ``data.pkl`` says where each belongs. It is read by an unpickler
that knows five names and turns every class of the archive into an inert stand-in.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DEEPEST = 64


class _Module:
    """Stands in for a scripted module: holds attributes, does nothing."""

    __slots__ = ("attributes",)

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = state


def _as_is(value: Any, *rest: Any) -> Any:
    return value


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError("a tensor without a storage")
    needed = offset + 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if all(size) else 0
    if min((offset, *size, *stride), default=0) < 0 or needed > storage.numel():
        raise pickle.UnpicklingError(f"a tensor of {needed} numbers in a storage of {storage.numel()}")
    return storage.as_strided(tuple(size), tuple(stride), offset)


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.archive = archive
        self.root = root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":  # build_intlist, build_doublelist, restore_type_tag, ...
            return _as_is
        if module == "torch" and name in _STORAGES:
            return name
        raise pickle.UnpicklingError(f"unexpected name {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key = pid[0], pid[1], str(pid[2])
        if kind != "storage" or dtype not in _STORAGES:
            raise pickle.UnpicklingError("an unknown kind of storage")
        if key not in self.storages:
            data = self.archive.read(f"{self.root}/data/{key}")
            wanted = _STORAGES[dtype]
            empty = torch.empty(0, dtype=wanted)
            self.storages[key] = torch.frombuffer(bytearray(data), dtype=wanted) if data else empty
        return self.storages[key]


def read_torchscript(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """State_dict key -> tensor.

    Args:
        archive: an open TorchScript archive whose member sizes have been checked.

    Raises:
        Exception: the archive is damaged; callers wrap whatever comes.
    """
    name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
    root = name.removesuffix("/data.pkl")
    tensors: dict[str, Tensor] = {}
    _collect(_Reader(archive, root, archive.read(name)).load(), "", tensors, 0)
    return tensors


def _collect(module: Any, prefix: str, tensors: dict[str, Tensor], depth: int) -> None:
    if not isinstance(module, _Module) or depth > _DEEPEST:
        return
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{name}"] = value
        else:
            _collect(value, f"{prefix}{name}.", tensors, depth + 1)
