"""Eight-bit integers by static quantisation: scales from real images, per channel, and layers that cannot bear it left alone.

ONNX Runtime does the quantising; here is which layers, and why.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from compress.core import capture
from compress.errors import ExportError, one_line
from compress.runtime import Array, OrtRuntime

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_BATCH = 32
_RANGES = "ranges.json"
RANKED_ON = 64
"""Images that the layers' sensitivities are measured on: the order settles long before the figures do."""


@dataclass(frozen=True, slots=True)
class QuantisedLayer:
    """A node with weights.

    Attributes:
        node: its name in the graph.
        name: the module that it was, as far as the weight's name says.
    """

    node: str
    name: str


@dataclass(frozen=True)
class Quantiser:
    """A float32 file, ready to be quantised as often as it takes: its ranges are measured once.

    Attributes:
        prepared: the file after shape inference and fusion.
        images: real ones, pre-processed, (n, c, h, w).
        layers: what can be quantised, in the order of the graph.
        narrow: weights in 7 bits, for processors whose 8-bit products saturate.
    """

    folder: Path
    prepared: Path
    images: Tensor
    layers: tuple[QuantisedLayer, ...]
    narrow: bool
    _input: str = field(repr=False)

    @staticmethod
    def of(source: Path, images: Tensor, folder: Path, *, narrow: bool | None = None) -> Quantiser:
        """Prepares a file.

        Args:
            source: a float32 ONNX file.
            images: to calibrate on.
            folder: for what lies around in between.
            narrow: by default, whether this machine lacks the instructions that do not saturate.

        Raises:
            ExportError: the graph cannot be prepared, or has no layer with weights.
        """
        from onnxruntime.quantization import quant_pre_process

        prepared = folder / "prepared.onnx"
        (folder / _RANGES).unlink(missing_ok=True)  # of another file, or of other images
        with _quiet():
            try:
                quant_pre_process(str(source), str(prepared))
                graph = onnx.load(str(prepared)).graph
            except Exception as error:  # shape inference and optimiser raise unrelated types
                raise ExportError(f"{source} cannot be prepared for int8: {one_line(error)}", hint="stay at fp32") from error
        weights = {tensor.name for tensor in graph.initializer}
        layers = tuple(
            QuantisedLayer(node.name, node.input[1].removesuffix(".weight"))
            for node in graph.node
            if node.op_type in _WEIGHTED and len(node.input) > 1 and node.input[1] in weights
        )
        if not layers:
            raise ExportError(f"{source} has no layer with weights", hint="stay at fp32")
        if narrow is None:
            narrow = saturates()
        return Quantiser(
            folder=folder, prepared=prepared, images=images, layers=layers, narrow=narrow, _input=graph.input[0].name
        )

    def write(self, target: Path, *, left: Collection[QuantisedLayer] = (), only: QuantisedLayer | None = None) -> None:
        """Writes the file in 8 bits.

        Args:
            target: written in place.
            left: layers that stay as they are.
            only: the single layer to quantise, to see what it costs.

        Raises:
            ExportError: the quantiser fails.
        """
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        cached = "calibration_cache_path" in inspect.signature(quantize_static).parameters
        more = {"calibration_cache_path": self.folder / _RANGES} if cached else {}
        try:
            with _quiet():
                quantize_static(
                    str(self.prepared),
                    str(target),
                    _Reader(self._input, self.images),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    reduce_range=self.narrow,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_quantize=None if only is None else [only.node],
                    nodes_to_exclude=[layer.node for layer in left],
                    **more,
                )
        except Exception as error:  # as above
            raise ExportError(f"quantisation failed: {one_line(error)}", hint="stay at fp32, or use fp16") from error

    def ranked(self, wanted: Array, images: Tensor) -> list[QuantisedLayer]:
        """Layers by what quantising each alone does to the outputs, the most harmful first.

        Args:
            wanted: the float32 network's outputs, (n, classes).
            images: what it was shown, (n, c, h, w).
        """
        shown, alone, harm = np.ascontiguousarray(images.numpy()), self.folder / "alone.onnx", list[float]()
        for layer in self.layers:
            self.write(alone, only=layer)
            with OrtRuntime(threads=None).load(alone) as session:
                got = session.run(shown)[0].reshape(wanted.shape)
            harm.append(float(np.square(got.astype(np.float64) - wanted).sum()))
        return [self.layers[i] for i in sorted(range(len(harm)), key=lambda i: (-harm[i], i))]


class _Reader:
    """Calibration images in batches, as the library asks for them."""

    def __init__(self, name: str, images: Tensor) -> None:
        self.name = name
        self.batches = iter(torch.split(images, _BATCH))

    def get_next(self) -> dict[str, Array] | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: np.ascontiguousarray(batch.numpy())}


def fewest(
    order: Sequence[QuantisedLayer], bearable: Callable[[Sequence[QuantisedLayer]], bool]
) -> Sequence[QuantisedLayer] | None:
    """The shortest start of an order that is bearable when left alone: doubled until it is, then bisected.

    Accuracy is nearly, not strictly, monotone in the number of layers left alone: what is returned was tried and is bearable.

    Args:
        order: the most harmful first.
        bearable: whether the network is accurate enough with these layers left in float32; with none it is not.

    Returns:
        None where at least one layer in 8 bits is always one too many.
    """
    low, high = 0, 1  # low is not bearable
    while high < len(order) and not bearable(order[:high]):
        low, high = high, 2 * high
    if high >= len(order):
        high = len(order) - 1
        if high <= low or not bearable(order[:high]):
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bearable(order[:middle]) else (middle, high)
    return order[:high]


def digest_of(images: Tensor) -> str:
    """Identifies images by their pixels, shortened."""
    return hashlib.sha256(np.ascontiguousarray(images.numpy()).tobytes()).hexdigest()[:16]


def saturates() -> bool:
    """Whether this processor adds two 8-bit products in 16 bits, which overflows: x86 without VNNI."""
    here = capture(threads=None)
    return "avx2" in here.flags and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(here.flags)


@contextmanager
def _quiet() -> Iterator[None]:
    """The library logs advice to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
