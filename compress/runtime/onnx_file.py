"""An ONNX file read whole: weights that it keeps in other files come into it, and no path in it leads out of its folder.

Every command that takes an ONNX file reads it here first. What the file says about where its weights lie is a stranger's word:
only plain files in its own folder, or below, that hold the bytes they are said to hold, are opened.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from compress.core import file_inside
from compress.errors import ModelError, one_line

LARGEST = 2**31 - 1
"""Bytes that one ONNX file can hold (protobuf's limit)."""
_DEEPEST = 64
_GIVE = "give the path of an exported .onnx file"
_EMBED = "export the network again as one file: compress export MODEL"
_HALF_A_BYTE = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)


def read_onnx(path: Path, *, weights: bool = True) -> ModelProto:
    """A file, with the weights of its other files in it.

    Args:
        path: the file.
        weights: without them, other files are looked at but not read: their tensors stay empty.

    Raises:
        ModelError: it is no ONNX file, or weights that it keeps elsewhere are missing, too short, too large, links, or outside
            of its folder.
    """
    model = _parsed(path)
    outside = [tensor for tensor in tensors_of(model) if tensor.data_location == TensorProto.EXTERNAL]
    if not outside:
        return model
    places = [_placed(tensor, path) for tensor in outside]
    total = model.ByteSize() + sum(length for _, _, length in places)
    if weights and total > LARGEST:
        raise ModelError(
            f"{path} and the weights beside it have {total} bytes, one ONNX file holds at most {LARGEST}",
            hint="give a network below 2 GB, or one in fp16",
        )
    if weights:
        for tensor, (file, offset, length) in zip(outside, places, strict=True):
            tensor.raw_data = _bytes(file, offset, length, path)
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    return model


def onnx_bytes(path: Path) -> bytes:
    """A file that needs no other one: its own bytes, or with the weights beside it inside.

    Raises:
        ModelError: as for :func:`read_onnx`.
    """
    model = _parsed(path)
    if all(tensor.data_location != TensorProto.EXTERNAL for tensor in tensors_of(model)):
        return path.read_bytes()
    data: bytes = read_onnx(path).SerializeToString(deterministic=True)
    return data


def keeps_external_weights(path: Path) -> bool:
    """Whether a file keeps weights in another one.

    Raises:
        ModelError: as for :func:`read_onnx`.
    """
    return any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors_of(read_onnx(path, weights=False)))


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: weights, constants, those of branches, loops and functions."""
    yield from _of_graph(model.graph, 0)
    for function in model.functions:
        yield from _of_nodes(function, 0)
    for training in model.training_info:
        yield from _of_graph(training.initialization, 0)
        yield from _of_graph(training.algorithm, 0)


def _of_graph(graph: GraphProto, depth: int) -> Iterator[TensorProto]:
    if depth > _DEEPEST:
        raise ModelError(f"the ONNX file has branches within branches, more than {_DEEPEST} deep", hint=_EMBED)
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph, depth)


def _of_nodes(holder: GraphProto | FunctionProto, depth: int) -> Iterator[TensorProto]:
    for node in holder.node:
        yield from _of_node(node, depth)


def _of_node(node: NodeProto, depth: int) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        yield from _of_attribute(attribute, depth)


def _of_attribute(attribute: AttributeProto, depth: int) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else ()), *attribute.sparse_tensors):
        yield from (sparse.values, sparse.indices)
    for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
        yield from _of_graph(graph, depth + 1)


def _parsed(path: Path) -> ModelProto:
    """The file itself, checked to be an ordinary one of a size that protobuf can read."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ModelError(f"{path} is a folder, an .onnx file was wanted", hint=file_inside(path, (".onnx",), _GIVE))
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path} is no file", hint=_GIVE)
        if status.st_size > LARGEST:
            raise ModelError(f"{path} has {status.st_size} bytes, an ONNX file has at most {LARGEST}", hint=_EMBED)
        model = onnx.load_model_from_string(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{path} is not a file", hint=_GIVE) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}", hint="check its permissions") from error
    except ModelError:
        raise
    except Exception as error:  # protobuf's exceptions share no base class
        raise ModelError(
            f"{path} is no ONNX file: {one_line(error)}", hint="make an .onnx file of a network with: compress export"
        ) from error
    if not model.graph.node and not model.graph.initializer and not model.graph.input:
        raise ModelError(f"{path} holds no network", hint="make an .onnx file of a network with: compress export")
    return model


def _placed(tensor: TensorProto, path: Path) -> tuple[Path, int, int]:
    """File, first byte and number of bytes of a tensor that lies outside.

    Raises:
        ModelError: it lies somewhere else than in a plain file below the ONNX file's folder that is long enough.
    """
    told = {entry.key: entry.value for entry in tensor.external_data}
    name, location = tensor.name[:60], told.get("location", "")
    where = f"{path}: the weight {name!r} is said to lie in {location[:100]!r}"
    parts = PurePosixPath(location)
    windows = PureWindowsPath(location)
    if not location or "\0" in location or parts.is_absolute() or windows.drive or "\\" in location or ".." in parts.parts:
        raise ModelError(f"{where}, which is not in the file's own folder", hint=f"do not use this file, or {_EMBED}")
    file = path.parent / location
    wanted = _bytes_of(tensor)
    try:
        offset, length = int(told.get("offset", "0")), int(told.get("length", str(wanted)))
    except ValueError as error:
        raise ModelError(f"{where} at no number of bytes", hint=_EMBED) from error
    try:
        status = file.lstat()
        real = file.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{where}, which is not beside it", hint="copy that file into the same folder") from error
    if real != path.parent.resolve() / parts or not stat.S_ISREG(status.st_mode):
        raise ModelError(
            f"{where}, which is a link or no plain file", hint="copy the weights' file itself into the same folder"
        )
    if length != wanted or offset < 0 or offset + length > status.st_size:
        raise ModelError(
            f"{where}, bytes {offset} to {offset + length}; it needs {wanted} bytes and the file has {status.st_size}",
            hint="copy that file again, whole",
        )
    return file, offset, length


def _bytes_of(tensor: TensorProto) -> int:
    """How many bytes the tensor's numbers take, by its shape and type."""
    if any(size < 0 for size in tensor.dims):
        return -1
    count: int = math.prod(tensor.dims)
    if tensor.data_type in _HALF_A_BYTE:
        return (count + 1) // 2
    try:
        return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, ValueError, TypeError):
        return -1  # strings, or a type that nobody knows: they cannot lie outside


def _bytes(file: Path, offset: int, length: int, path: Path) -> bytes:
    try:
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(handle, "rb") as opened:
            opened.seek(offset)
            data = opened.read(length)
    except OSError as error:
        raise ModelError(f"{path}: {file.name} cannot be read: {error.strerror}", hint="check its permissions") from error
    if len(data) != length:
        raise ModelError(f"{path}: {file.name} ends after {len(data)} of {length} bytes", hint="copy that file again, whole")
    return data
