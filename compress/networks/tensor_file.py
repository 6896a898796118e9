"""The digest of the tensors in a safetensors file, read off its bytes: nothing of it is loaded, and torch is not needed."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, BinaryIO

from compress.errors import CheckpointError

_TYPES = {
    "BOOL": ("bool", 1), "U8": ("uint8", 1), "I8": ("int8", 1), "I16": ("int16", 2), "I32": ("int32", 4), "I64": ("int64", 8),
    "F16": ("float16", 2), "BF16": ("bfloat16", 2), "F32": ("float32", 4), "F64": ("float64", 8),
}  # fmt: skip
_LONGEST_HEADER = 100_000_000
_PART = 1 << 20


def file_state_digest(path: Path) -> str:
    """What ``state_digest`` says of the tensors that the file holds.

    Raises:
        CheckpointError: it is no sound safetensors file.
    """
    try:
        with path.open("rb") as file:
            return _digest(file, path.stat().st_size)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {type(error).__name__}: {error}", hint="copy it again") from error


def _digest(file: BinaryIO, size: int) -> str:
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(size - 8, _LONGEST_HEADER):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    hashed = hashlib.sha256()
    for key in sorted(header):
        name, shape, start, end = _entry(header[key], size - 8 - length)
        hashed.update(f"{key}\0torch.{name}\0{shape}\0".encode())
        file.seek(8 + length + start)
        for left in range(end - start, 0, -_PART):
            hashed.update(file.read(min(_PART, left)))
    return hashed.hexdigest()[:16]


def _entry(entry: Any, room: int) -> tuple[str, tuple[int, ...], int, int]:
    name, width = _TYPES[entry["dtype"]]
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    if (
        not all(type(n) is int and n >= 0 for n in (*shape, start, end))
        or end > room
        or end - start != width * math.prod(shape)
    ):
        raise ValueError(f"a tensor of shape {shape} at {start} to {end} of {room} bytes")
    return name, shape, start, end
