"""What a network's widths cost in time on one machine: coefficients that were fitted to measured networks, and a sum.

A layer's time is a combination of quantities that its kernels are known to work through (``FEATURES``): multiply-accumulates
at output channels padded to the machine's block, sets of blocks, numbers read and written, and what it costs where a width
loses the fast kernel or the layout has to change beside it. Everything is relative to the unpruned network, so that a
machine's mood cancels. Measuring and fitting is ``compress.latency.table_measure``'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from compress.core.arrays import Bits, Floats, Indices
from compress.core.topology import Layer, LayerFacts, LayerName, Topology
from compress.errors import ConfigError

FEATURES = ("compute", "written", "read", "narrow", "slow compute", "slow io", "constant")
"""Per layer: MACs and channels made and read, as the fast kernel pads them; channels read where they fill no block (they change
their layout); MACs, and channels read and made, where the fast kernel is lost; one."""
LANES = 4
"""A block or more of input channels that are no multiple of this lose the fast kernel (so do depthwise channels)."""


@dataclass(frozen=True, slots=True)
class PredictionError:
    """How far predictions are off on networks that they were not fitted to.

    Attributes:
        median: of the relative errors of the latency ratio, a fraction.
        worst: the largest.
        networks: how many.
    """

    median: float
    worst: float
    networks: int


@dataclass(frozen=True)
class LatencyTable:
    """A machine's times for one network's layers at any widths.

    Attributes:
        topology: digest of the network's topology.
        environment: digest of the machine, the versions and the threads.
        machine: the same, for people.
        runtime: ``ort-cpu``, or one of torch's own.
        batch: images a run.
        block: output channels that the fast kernels pad to; 1 where widths are priced as they are.
        layers: the network's, in forward order.
        coefficients: per layer and feature, the share of the unpruned network's time that one unit costs.
        constant: what no layer's width changes.
        error: of predictions.
        seconds: the unpruned network's time when the table was made; only for people.
    """

    topology: str
    environment: str
    machine: str
    runtime: str
    batch: int
    block: int
    layers: tuple[LayerName, ...]
    coefficients: tuple[tuple[float, ...], ...]
    constant: float
    error: PredictionError
    seconds: float

    @cached_property
    def _matrix(self) -> Floats:
        return np.array(self.coefficients, dtype=np.float64).reshape(len(self.layers), len(FEATURES))

    def predict(
        self, topology: Topology, shapes: Mapping[str, tuple[int, ...]], selected: frozenset[str] = frozenset()
    ) -> float:
        """Latency relative to the unpruned network.

        Args:
            topology: of the network that the table was made for.
            shapes: the tensors that a plan changes (``compress.core.cost.sizes_after``).
            selected: layers that gather the inputs they read first.

        Raises:
            ConfigError: the table is of another network.
        """
        if topology.digest != self.topology:
            raise ConfigError(
                f"the latency table is of network {self.topology}, this one is {topology.digest}",
                hint="make one: compress table MODEL --out table.json",
            )
        return float((features(topology, shapes, self.block, selected) * self._matrix).sum() + self.constant)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"format": FORMAT, **asdict(self)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> LatencyTable:
        """The table of :meth:`to_json`.

        Raises:
            ConfigError: it is none, or a damaged one.
        """
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']!r}, {FORMAT} is wanted")
            table = LatencyTable(
                **{k: str(data[k]) for k in ("topology", "environment", "machine", "runtime")},
                batch=int(data["batch"]),
                block=int(data["block"]),
                layers=tuple(LayerName(str(name)) for name in data["layers"]),
                coefficients=tuple(tuple(float(x) for x in row) for row in data["coefficients"]),
                constant=float(data["constant"]),
                error=PredictionError(**data["error"]),
                seconds=float(data["seconds"]),
            )
            numbers = table._matrix
            whole = len(table.coefficients) == len(table.layers) and table.block >= 1
            if not whole or not np.isfinite(numbers).all() or not math.isfinite(table.constant):
                raise ValueError("a number is missing or not finite")
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the latency table is damaged: {error}", hint="make it again: compress table MODEL --out table.json"
            ) from error
        return table


FORMAT = 1


def widths(topology: Topology, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Indices, Indices]:
    """Channels that each layer reads and makes (per conv-group where it has several), shapes (layers,)."""
    read, made = [], []
    for layer in topology.layers:
        shape = shapes.get(layer.weight) or topology.tensors[layer.weight].shape
        read.append(shape[layer.read_dim])
        made.append(shape[layer.write_dim] * (layer.cardinality if layer.kind == "conv_transpose" else 1))
    return np.array(read, dtype=np.int64), np.array(made, dtype=np.int64)


def features(
    topology: Topology, shapes: Mapping[str, tuple[int, ...]], block: int, selected: frozenset[str] = frozenset()
) -> Floats:
    """What the layers' times are combined of, in millions, shape (layers, features); the constant is one, and a layer
    that went with its branch has nothing but zeros."""
    read, made = widths(topology, shapes)
    fixed = topology.facts
    slow = _slow(fixed, read, made, block)
    if selected:  # gathered inputs arrive in the plain layout
        slow = slow | np.array([layer.name in selected for layer in topology.layers])
    inputs = np.where(fixed.depthwise, made, read * fixed.groups)
    narrow = ~fixed.linear & ~fixed.depthwise & (inputs < block)
    padded_in = np.where(fixed.linear | fixed.depthwise | narrow, read, -(-read // block) * block)
    padded_out = np.where(fixed.linear, made, -(-made // block) * block)
    rows = np.zeros((len(read), len(FEATURES)))
    rows[:, 0] = padded_in * padded_out * fixed.kernel * ~slow
    rows[:, 1] = np.where(fixed.depthwise, 0, padded_out) * ~slow
    rows[:, 2] = np.where(fixed.depthwise, 0, padded_in * fixed.groups) * ~slow
    rows[:, 3] = inputs * narrow
    rows[:, 4] = read * made * fixed.kernel * slow
    rows[:, 5] = np.where(fixed.depthwise, 0, inputs + made) * slow
    rows *= 1e-6 * fixed.sites[:, None]
    rows[:, 6] = made > 0  # a layer that is gone takes no time
    return rows


def _slow(fixed: LayerFacts, read: Indices, made: Indices, block: int) -> Bits:
    """Layers at widths that ONNX Runtime has no blocked kernel for (its rules, ``nchwc_transformer.cc``).

    A block of 1 says that the kernels hold no channels together: there is no fast one to be lost.
    """
    if block == 1:
        return np.zeros(len(read), dtype=bool)
    several = fixed.groups > 1
    dense = (read >= block) & (read % LANES != 0)
    grouped = (read % block != 0) | (made // np.maximum(fixed.groups, 1) % block != 0)
    return np.asarray(~fixed.linear & np.where(fixed.depthwise, made % LANES != 0, np.where(several, grouped, dense)))


def slow_layers(topology: Topology, shapes: Mapping[str, tuple[int, ...]], block: int) -> tuple[LayerName, ...]:
    """Convolutions that a plan's widths keep from the fast kernel."""
    read, made = widths(topology, shapes)
    slow = _slow(topology.facts, read, made, block)
    return tuple(layer.name for layer, lost in zip(topology.layers, slow, strict=True) if lost)


def kind_of(topology: Topology, layer: Layer) -> str:
    """Layers whose times are alike per unit of work."""
    if layer.kind == "linear":
        return "linear"
    if layer.depthwise:
        return "depthwise"
    info = topology.tensors[layer.weight]
    shape = "x".join(str(k) for k in info.shape[2:])
    return ("grouped " if layer.cardinality > 1 else "") + shape + (" once" if info.sites == 1 else "")
