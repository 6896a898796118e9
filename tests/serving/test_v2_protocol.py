"""Bodies of the v2 protocol: what goes out can be read by others, and whatever comes in is an answer or a ServingError."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compress.errors import ServingError
from compress.serving.v2_protocol import DATATYPES, JSON_LENGTH, decode, encode

arrays = st.sampled_from(sorted(DATATYPES)).flatmap(
    lambda kind: hnp.arrays(
        DATATYPES[kind],
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False} if DATATYPES[kind].kind == "f" else None,
    )
)


def echo(body: Any) -> tuple[bytes, dict[str, str]]:
    """A server that answers its inputs: the protocol says the same of both but for their names."""
    headers = {name.lower(): value for name, value in body.headers.items()}
    length = headers.get(JSON_LENGTH.lower())
    head = json.loads(body.data[: int(length)] if length else body.data)
    tail = body.data[int(length) :] if length else b""
    text = json.dumps({"model_name": "echo", "model_version": "3", "outputs": head["inputs"]}).encode()
    return text + tail, {JSON_LENGTH.lower(): str(len(text))} if length else {}


@settings(max_examples=30)
@given(st.dictionaries(st.text(min_size=1, max_size=5), arrays, min_size=1, max_size=3), st.sampled_from(["binary", "json"]))
def test_what_is_sent_comes_back(inputs: dict[str, np.ndarray], form: Any) -> None:
    answer = decode(*echo(encode(inputs, form)))
    assert (answer.model, answer.version, set(answer.outputs)) == ("echo", "3", set(inputs))
    for name, array in inputs.items():
        assert answer.outputs[name].dtype == array.dtype
        np.testing.assert_array_equal(answer.outputs[name], array)


@given(st.binary(max_size=80), st.integers(-5, 100))
def test_any_bytes(data: bytes, split: int) -> None:
    for headers in ({}, {JSON_LENGTH.lower(): str(split)}):
        with pytest.raises(ServingError, match="v2 inference protocol"):
            decode(data, headers)


@pytest.mark.parametrize(
    "output",
    [
        {},
        {"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0]},
        {"name": "y", "datatype": "FP31", "shape": [1], "data": [1.0]},
        {"name": "y", "datatype": "FP32", "shape": [1], "data": ["a"]},
        {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
        {"name": "y", "datatype": "FP32", "shape": 3, "data": [1.0]},
    ],
)
def test_outputs_that_are_none(output: dict[str, Any]) -> None:
    with pytest.raises(ServingError, match="v2 inference protocol"):
        decode(json.dumps({"outputs": [output]}).encode(), {})


def test_nested_data_is_read_too() -> None:
    text = json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}]})
    np.testing.assert_array_equal(decode(text.encode(), {}).outputs["y"], [[1, 2], [3, 4]])


def test_types_the_protocol_does_not_have() -> None:
    with pytest.raises(ServingError, match="complex64 cannot be sent"):
        encode({"x": np.zeros(1, np.complex64)}, "json")
