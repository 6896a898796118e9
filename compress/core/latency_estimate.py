"""What a network's widths and depth cost in time where nothing was measured: padded widths, numbers moved, and nodes.

A table (``core.latency_table``) whose coefficients are the same for every layer: what a unit of each quantity takes on an
ordinary CPU core, relative to a multiply-accumulate of the fast kernel. It is for telling which of two plans is faster, not for
saying how fast; a measured table is better at both.
"""

from __future__ import annotations

import numpy as np

from compress.core.latency_table import FEATURES, LatencyTable, PredictionError, features
from compress.core.topology import Topology

ESTIMATE = "estimate"
"""Where a measured table names its environment."""
_PRICES = {
    "compute": 1.0,
    "written": 24.0,
    "read": 8.0,
    "narrow": 24.0,
    "slow compute": 3.0,
    "slow io": 40.0,
    "constant": 0.25,
}
"""Of a million multiply-accumulates, or numbers; of a layer with what runs beside it."""


def estimated(topology: Topology, block: int) -> LatencyTable:
    """A table without a measurement; the unpruned network takes 1.

    Args:
        topology: of the network.
        block: output channels that the machine's fast kernels pad to.
    """
    prices = np.array([_PRICES[name] for name in FEATURES])
    whole = float((features(topology, {}, block) * prices).sum())
    row = tuple((prices / whole).tolist())
    return LatencyTable(
        topology=topology.digest,
        environment=ESTIMATE,
        machine="estimated from padded widths, nothing was measured",
        runtime=ESTIMATE,
        batch=1,
        block=block,
        layers=tuple(layer.name for layer in topology.layers),
        coefficients=(row,) * len(topology.layers),
        constant=0.0,
        error=PredictionError(float("nan"), float("nan"), 0),
        seconds=0.0,
    )
