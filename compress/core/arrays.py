"""Arrays by what they hold; what their axes mean stands where they are used."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
"""Importances, kernels, errors, times."""
Bits: TypeAlias = NDArray[np.bool_]
"""Keep-bits and other masks; 1 = keep."""
Indices: TypeAlias = NDArray[np.int64]
"""Channels and positions, or how many of them."""
