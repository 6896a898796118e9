"""The tensors of a file of ``torch.save`` or ``torch.jit.save``, read without either library function that loads them.

``torch.load`` unpickles, and ``torch.jit.load`` compiles the archive and may run the ``__setstate__`` it holds. The tensors
need none of that: their bytes lie in ``data/N`` of the archive (behind the pickle in the older format), and the pickle, read as
data, says where each belongs (:mod:`compress.networks.unpickler`). Every size is checked against the bytes really there.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from compress.networks.unpickler import Forbidden, Malformed, Name, read

_TYPES = {
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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_QUANTISED = {"QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1}
_OLD_MAGIC, _OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DEEPEST, _LONGEST_NAMES = 64, 20_000_000


class Module:
    """Stands in for a scripted module: holds attributes, does nothing."""

    __slots__ = ("attributes",)

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def take_state(self, state: Any) -> None:
        """Its attributes, where they are some."""
        if isinstance(state, dict):
            self.attributes = state


@dataclass(frozen=True, slots=True)
class _Storage:
    """Bytes, (n,), and what they are numbers of."""

    bytes: Tensor
    dtype: torch.dtype

    def tensor(self, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
        """A window on the numbers; it has to lie within them."""
        kind = dtype or self.dtype
        numbers = self.bytes[: len(self.bytes) // kind.itemsize * kind.itemsize].view(kind)
        _whole(offset, *size, *stride)
        needed = offset + 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if all(size) else 0
        if needed > len(numbers):
            raise Malformed(f"a tensor of {needed} numbers in a storage of {len(numbers)}")
        return numbers.as_strided(tuple(size), tuple(stride), offset)


def _whole(*numbers: Any) -> None:
    if not all(isinstance(n, int) and 0 <= n < 2**62 for n in numbers):
        raise Malformed("a size, stride or offset that is no number of elements")


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    if not isinstance(storage, _Storage):
        raise Malformed("a tensor without a storage")
    dtype = vars(torch).get(rest[2].name) if len(rest) > 2 and isinstance(rest[2], Name) else None
    return storage.tensor(offset, size, stride, dtype if isinstance(dtype, torch.dtype) else None)


def _unusable(*arguments: Any) -> Tensor:
    """Stands for a tensor that is not dense; whoever reads the file says so."""
    return torch.empty(1, device="meta")


def _first(value: Any = None, *rest: Any) -> Any:
    return value


def _items(items: Any = (), *rest: Any) -> dict[str, Any]:
    if not isinstance(items, list | tuple):
        return {}
    return {item[0]: item[1] for item in items if isinstance(item, list | tuple) and len(item) == 2 and type(item[0]) is str}


def _encode(text: Any, codec: Any = "latin1") -> bytes:
    # This is how protocol 2 writes bytes. Other codecs would be imported, and some take quadratic time.
    if not isinstance(text, str) or codec != "latin1":
        raise Forbidden("_codecs.encode to another code than latin1")
    return text.encode("latin1")


def _by_type(function: Any, kind: Any, arguments: Any, *state: Any) -> Any:
    nested = function == Name("torch._tensor", "_rebuild_from_type_v2")
    if nested or not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise Malformed("a tensor of a type without a function")
    return _make(function, arguments)


_CALLS: Mapping[Name, Callable[..., Any]] = {
    Name("torch._utils", "_rebuild_tensor"): _rebuild,
    Name("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    Name("torch._utils", "_rebuild_tensor_v3"): _rebuild,
    Name("torch._utils", "_rebuild_parameter"): _first,
    Name("torch._utils", "_rebuild_parameter_with_state"): _first,
    Name("torch._tensor", "_rebuild_from_type_v2"): _by_type,
    Name("torch.nn.parameter", "Parameter"): _first,
    Name("torch._utils", "_rebuild_qtensor"): _unusable,
    Name("torch._utils", "_rebuild_sparse_tensor"): _unusable,
    Name("torch._utils", "_rebuild_nested_tensor"): _unusable,
    Name("torch._utils", "_rebuild_wrapper_subclass"): _unusable,
    Name("torch._utils", "_rebuild_meta_tensor_no_storage"): _unusable,
    Name("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _first,
    Name("torch.serialization", "_get_layout"): _first,
    Name("torch", "Size"): _first,
    Name("torch", "device"): _first,
    Name("torch", "Tensor"): _unusable,
    Name("collections", "OrderedDict"): _items,
    Name("collections", "Counter"): _items,
    Name("_codecs", "encode"): _encode,
    **{Name(module, kind): _first for module in ("builtins", "__builtin__") for kind in ("set", "frozenset")},
}
"""Every call that weights are written with, and the value it stands for."""
_VALUES = (torch.dtype, torch.layout, torch.qscheme, torch.memory_format)


def _known(name: Name) -> bool:
    if name.module.startswith("__torch__") or name.module == "torch.jit._pickle":
        return True
    if name in _CALLS or (name.module in ("torch", "torch.storage") and (name.name in _TYPES or name.name in _QUANTISED)):
        return True
    return name.module == "torch" and isinstance(vars(torch).get(name.name), _VALUES)


def _make(name: Name, arguments: tuple[Any, ...]) -> Any:
    if name.module.startswith("__torch__"):  # a class of a TorchScript archive
        return Module()
    if name.module == "torch.jit._pickle":  # build_intlist, build_doublelist, restore_type_tag, ...
        return _first(*arguments)
    if name not in _CALLS:
        raise Forbidden(f"{name!s:.100} called")
    return _CALLS[name](*arguments)


def _described(identity: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and bytes of a storage that a pickle refers to."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage" or not isinstance(identity[1], Name):
        raise Forbidden("something stored beside it that is no tensor")
    kind, key, count = identity[1].name, identity[2], identity[4]
    _whole(count)
    if not isinstance(key, str) or (kind not in _TYPES and kind not in _QUANTISED):
        raise Malformed("a storage without a name or a type")
    dtype = _TYPES.get(kind, torch.uint8)
    return dtype, key, count * _QUANTISED.get(kind, dtype.itemsize)


def read_archive(file: BinaryIO, archive: zipfile.ZipFile) -> Any:
    """The content of an archive of ``torch.save``, or the root :class:`Module` of one of ``torch.jit.save``.

    Args:
        file: the same file, for reading stored members.
        archive: whose members are uncompressed and together no longer than the file.

    Raises:
        Forbidden: it holds more than data.
        Malformed: it is damaged.
    """
    members = {m.filename: m for m in archive.infolist()}
    pickle_name = next(n for n in members if n.endswith("data.pkl"))
    root = pickle_name.removesuffix("data.pkl")
    order = members.get(f"{root}byteorder")
    swapped = order is not None and bytes(_stored(file, order)) == b"big"
    storages: dict[str, _Storage] = {}

    def persistent(identity: Any) -> _Storage:
        dtype, key, count = _described(identity)
        if key not in storages:
            if f"{root}data/{key}" not in members:
                raise Malformed(f"no data for storage {key[:20]!r}")
            data = _stored(file, members[f"{root}data/{key}"])
            if swapped and dtype.itemsize > 1:
                unit = dtype.itemsize // (2 if dtype.is_complex else 1)
                data = bytearray(np.frombuffer(data, f"u{unit}").byteswap().tobytes())
            storages[key] = _Storage(_as_bytes(data), dtype)
        held = storages[key]
        if len(held.bytes) < count:
            raise Malformed(f"a storage of {count} bytes, {len(held.bytes)} are there")
        return _Storage(held.bytes, dtype)

    return read(BytesIO(_stored(file, members[pickle_name])), _known, _make, persistent)


def _as_bytes(data: bytearray) -> Tensor:
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _stored(file: BinaryIO, member: zipfile.ZipInfo) -> bytearray:
    """An uncompressed member; a checksum of 0 is none (torch can leave them out)."""
    file.seek(member.header_offset)
    local = file.read(30)
    if local[:4] != b"PK\3\4":
        raise Malformed(f"no member {member.filename[:40]!r}")
    file.seek(int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little"), 1)
    data = bytearray(member.file_size)
    if file.readinto(data) != len(data):  # type: ignore[attr-defined]
        raise Malformed(f"{member.filename[:40]!r} ends early")
    if member.CRC and zlib.crc32(data) != member.CRC:
        raise Malformed(f"{member.filename[:40]!r} does not have its checksum")
    return data


def read_old(file: BinaryIO, size: int) -> Any:
    """The content of a file of ``torch.save`` from before it wrote archives: pickles, then the storages one after the other.

    Args:
        file: at its beginning.
        size: bytes in it.

    Raises:
        Forbidden: it holds more than data.
        Malformed: it is damaged.
    """
    buffers: dict[str, bytearray] = {}

    def persistent(identity: Any) -> _Storage:
        dtype, key, count = _described(identity)
        if key not in buffers:
            if count + sum(map(len, buffers.values())) > size:
                raise Malformed(f"storages of more bytes than the file's {size}")
            buffers[key] = bytearray(count)
        whole, view = buffers[key], identity[5] if len(identity) > 5 else None
        if len(whole) < count:
            raise Malformed(f"a storage of {count} bytes, {len(whole)} are there")
        held = _as_bytes(whole)
        if view is not None:  # (key, first, how many)
            _, first, many = view
            _whole(first, many)
            if first + many > len(held) // dtype.itemsize:
                raise Malformed(f"a view of {many} numbers from {first} on, beyond its storage")
            held = held[first * dtype.itemsize : (first + many) * dtype.itemsize]
        return _Storage(held, dtype)

    def part() -> Any:
        return read(file, _known, _make, persistent)

    if part() != _OLD_MAGIC or part() != _OLD_PROTOCOL:
        raise Malformed("no file of torch.save")
    part()  # about the machine
    content, keys = part(), part()
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys) or {*keys} != {*buffers}:
        raise Malformed(f"data for other than its {len(buffers)} storages")
    for key in keys:
        file.read(8)  # how many numbers
        if file.readinto(buffers[key]) != len(buffers[key]):  # type: ignore[attr-defined]
            raise Malformed(f"storage {key[:20]!r} ends early")
    return content


def scripted_tensors(root: Any) -> dict[str, Tensor]:
    """State_dict key -> tensor of the root of a TorchScript archive.

    Raises:
        Malformed: its modules hold each other.
    """
    tensors: dict[str, Tensor] = {}
    written = 0

    def collect(module: Any, prefix: str, depth: int) -> None:
        nonlocal written
        if not isinstance(module, Module) or depth > _DEEPEST:
            return
        for name, value in module.attributes.items():
            path = f"{prefix}{name}"
            written += len(path)
            if written > _LONGEST_NAMES:  # a few dozen modules can hold each other in more ways than there are atoms
                raise Malformed(f"names of more than {_LONGEST_NAMES} characters")
            if isinstance(value, Tensor):
                tensors[path] = value
            else:
                collect(value, f"{path}.", depth + 1)

    collect(root, "", 0)
    return tensors
