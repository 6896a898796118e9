"""Whether a layer that reads selected inputs is faster than one that reads them all: measured, layer by layer.

A selection copies the channels it takes (Slice or Gather) and leaves the fast layout of the kernels around it, so it may cost
more than the multiplications it saves. Each layer is tried alone between its real neighbours' layouts: behind a depthwise
convolution, which both sides run, with half of the filters and inputs, which is where a pruned network is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compress.core import LayerName
from compress.latency.protocol import Settings, measure
from compress.runtime import Runtime

SHARES = (0.75, 0.5)
"""Shares of the arriving channels that are tried, from the largest."""
GAIN = 1.05
"""The speed-up from which a selection is worth having; the interval's lower end must reach it."""
_WIDTH = 0.5
_SECONDS = 0.4
_OPSET = 20


@dataclass(frozen=True, slots=True)
class TimedReader:
    """A convolution or linear layer as far as its speed goes.

    Attributes:
        arriving: shape of one input, (channels, height, width) or (features,).
        filters: output channels.
        kernel, stride, padding, dilation: of a convolution, one number a dimension; none of a linear layer.
    """

    arriving: tuple[int, ...]
    filters: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    def narrowed(self, share: float) -> TimedReader:
        """The layer in a network that keeps this share of its channels, in 8s where there are as many."""
        channels, *rest = self.arriving
        return replace(self, arriving=(_part(channels, share), *rest), filters=_part(self.filters, share))


def _part(count: int, share: float) -> int:
    return max(1, round(count * share / 8) * 8 or min(count, 8))


def worthwhile(
    model: nn.Module,
    example: Tensor,
    layers: Collection[LayerName],
    *,
    runtime: Runtime,
    gain: float = GAIN,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    listen: Callable[[Any], None] = lambda event: None,
) -> Mapping[LayerName, float]:
    """The largest share of its inputs that each layer may read so that selecting them is measurably faster; 0 where none is.

    Layers of the same shape are measured once.

    Args:
        model: the network, eval mode; run once on the example.
        example: one input, (1, c, h, w).
        layers: convolutions of two dimensions and linear layers; others never pay.
        runtime: where the network will run.
        gain: the speed-up that the lower end of the interval must reach.
        shares: of the inputs, tried from the largest; a smaller one is not taken for better than it was measured to be.
        seed: of the order of the rounds.
        listen: receives the measurement's events.
    """
    shapes = readers(model, example, layers)
    found: dict[TimedReader, float] = {}
    for reader in dict.fromkeys(shapes.values()):
        small = reader.narrowed(_WIDTH)
        tried = {share: _part(small.arriving[0], share) for share in shares}
        speedups = gains(small, list(tried.values()), runtime=runtime, seed=seed, listen=listen)
        found[reader] = max((share for share, reads in tried.items() if speedups.get(reads, 0.0) >= gain), default=0.0)
    return {name: found[shapes[name]] if name in shapes else 0.0 for name in layers}


def gains(
    reader: TimedReader,
    reads: Sequence[int],
    *,
    runtime: Runtime,
    contiguous: bool = False,
    seconds: float = _SECONDS,
    seed: int = 0,
    listen: Callable[[Any], None] = lambda event: None,
) -> Mapping[int, float]:
    """Number of inputs read -> lower end of the 95 % interval of the speed-up over reading all of them.

    Args:
        reader: the layer.
        reads: how many of the arriving channels it reads; numbers that leave nothing out are not measured.
        runtime: where it runs.
        contiguous: the channels stand side by side, so that a Slice takes them; else a Gather.
        seconds: of measuring.
        seed: of the order of the rounds.
        listen: receives the measurement's events.
    """
    channels = reader.arriving[0]
    tried = [n for n in dict.fromkeys(reads) if 0 < n < channels]
    if not tried:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        files = {n: Path(folder) / f"{n}.onnx" for n in (channels, *tried)}
        for n, path in files.items():
            path.write_bytes(_file(reader, n, contiguous))
        settings = Settings(budget_seconds=seconds, loads=1, min_rounds=15, seed=seed)
        candidates = {str(n): files[n] for n in tried}
        seen = measure(files[channels], candidates, runtime=runtime, settings=settings, listen=listen)
    return {n: seen.ratios[str(n)].decisive.low for n in tried}


def readers(model: nn.Module, example: Tensor, layers: Collection[LayerName]) -> dict[LayerName, TimedReader]:
    """The layers' shapes, from one run of the network."""
    found: dict[LayerName, TimedReader] = {}
    hooks = []

    def note(name: LayerName) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Tensor, ...]) -> None:
            shape = tuple(args[0].shape[1:])
            if isinstance(module, nn.Conv2d) and module.groups == 1:
                padding = (0, 0) if isinstance(module.padding, str) else module.padding
                if module.padding == "same":
                    padding = tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))
                found[name] = TimedReader(
                    arriving=shape,
                    filters=module.out_channels,
                    kernel=tuple(map(int, module.kernel_size)),
                    stride=tuple(map(int, module.stride)),
                    padding=tuple(map(int, padding)),
                    dilation=tuple(map(int, module.dilation)),
                )
            elif isinstance(module, nn.Linear) and len(shape) == 1:
                found[name] = TimedReader(arriving=shape, filters=module.out_features)

        return hook

    for name in layers:
        hooks.append(model.get_submodule(name).register_forward_pre_hook(note(name)))
    try:
        with torch.no_grad():
            model(example)
    finally:
        for handle in hooks:
            handle.remove()
    return found


def _file(reader: TimedReader, reads: int, contiguous: bool) -> bytes:
    """An ONNX file: a depthwise convolution (or a rectifier), a slice or gather where not all is read, the layer."""
    rng, channels = np.random.default_rng(0), reader.arriving[0]

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    convolves = len(reader.kernel) > 0
    constants = [weight("weight", *((reader.filters, reads) if convolves else (reads, reader.filters)), *reader.kernel)]
    if convolves:
        constants.append(weight("scale", channels, 1, *[1] * len(reader.kernel)))
        nodes = [helper.make_node("Conv", ["input", "scale"], ["made"], group=channels)]
    else:
        nodes = [helper.make_node("Relu", ["input"], ["made"])]
    arriving = "made"
    if reads < channels:
        if contiguous:
            ends = {"starts": 0, "ends": reads, "axes": 1}
            constants += [numpy_helper.from_array(np.array([n], dtype=np.int64), name) for name, n in ends.items()]
            nodes.append(helper.make_node("Slice", ["made", *ends], ["read"]))
        else:
            chosen = np.sort(rng.permutation(channels)[:reads]).astype(np.int64)
            constants.append(numpy_helper.from_array(chosen, "chosen"))
            nodes.append(helper.make_node("Gather", ["made", "chosen"], ["read"], axis=1))
        arriving = "read"
    if convolves:
        geometry: dict[str, Any] = {"strides": reader.stride, "pads": reader.padding * 2, "dilations": reader.dilation}
        nodes.append(helper.make_node("Conv", [arriving, "weight"], ["output"], **geometry))
    else:
        nodes.append(helper.make_node("Gemm", [arriving, "weight"], ["output"]))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *reader.arriving])
    wanted = helper.make_tensor_value_info("output", TensorProto.FLOAT, [f"d{i}" for i in range(1 + len(reader.arriving))])
    graph = helper.make_graph(nodes, "reader", [given], [wanted], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    data: bytes = model.SerializeToString()
    onnx.checker.check_model(model)
    return data
