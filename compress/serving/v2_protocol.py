"""Tensors in the bodies of the v2 inference protocol, as JSON or with the binary extension. Pure functions.

Source: KServe's Open Inference Protocol, version 2, and Triton's binary tensor data extension to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from compress.errors import ServingError, one_line
from compress.runtime import Array

Format = Literal["binary", "json"]
JSON_LENGTH = "Inference-Header-Content-Length"
"""The header that says where the JSON ends and the tensors' bytes begin."""
DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "INT8": np.dtype(np.int8),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}


@dataclass(frozen=True, slots=True)
class Body:
    """What goes over the network."""

    data: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server computed.

    Attributes:
        outputs: by name.
        model: that answered, by its own account.
        version: of it; empty where the server keeps none.
    """

    outputs: Mapping[str, Array]
    model: str
    version: str


def datatype_of(array: Array) -> str:
    """The protocol's name of an element type.

    Raises:
        ServingError: it has none here; convert the array.
    """
    for name, dtype in DATATYPES.items():
        if array.dtype == dtype:
            return name
    raise ServingError(
        f"a tensor of {array.dtype} cannot be sent, wanted one of {', '.join(str(d) for d in DATATYPES.values())}",
        hint="convert it first: array.astype(numpy.float32)",
    )


def encode(inputs: Mapping[str, Array], form: Format) -> Body:
    """A request for all outputs, in the same form as the inputs."""
    heads: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, array in inputs.items():
        head: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype_of(array)}
        if form == "binary":
            tail.append(np.ascontiguousarray(array, dtype=DATATYPES[head["datatype"]]).tobytes())
            head["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            head["data"] = array.ravel().tolist()
        heads.append(head)
    request: dict[str, Any] = {"inputs": heads}
    if form == "json":
        return Body(json.dumps(request).encode(), {"Content-Type": "application/json"})
    request["parameters"] = {"binary_data_output": True}
    text = json.dumps(request).encode()
    return Body(b"".join([text, *tail]), {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(text))})


def decode(data: bytes, headers: Mapping[str, str]) -> Answer:
    """An answer in either form.

    Args:
        data: the body.
        headers: their names in lower case.

    Raises:
        ServingError: it is no answer of this protocol; check what listens there.
    """
    try:
        split = int(headers.get(JSON_LENGTH.lower(), len(data)))
        facts = json.loads(data[:split])
        outputs: dict[str, Array] = {}
        at = split
        for entry in facts["outputs"]:
            dtype, shape = DATATYPES[entry["datatype"]], [int(size) for size in entry["shape"]]
            size = (entry.get("parameters") or {}).get("binary_data_size")
            if size is None:
                flat = np.asarray(_flat(entry["data"]), dtype=dtype)
            else:
                flat = np.frombuffer(data, dtype=dtype, count=int(size) // dtype.itemsize, offset=at)
                at += int(size)
            if flat.size != math.prod(shape):
                raise ValueError(f"{flat.size} values for shape {shape}")
            outputs[str(entry["name"])] = flat.reshape(shape)
        return Answer(outputs, str(facts.get("model_name", "")), str(facts.get("model_version") or ""))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ServingError(
            f"the answer is none of the v2 inference protocol: {type(error).__name__}: {one_line(error, 200)}",
            hint="check that the URL is an inference server's HTTP port",
        ) from error


def _flat(data: Any) -> list[Any]:
    """JSON tensors may come flat or nested."""
    while isinstance(data, list) and data and isinstance(data[0], list):
        data = [item for part in data for item in part]
    return list(data)
