"""Types of the searchers' parameters: which values they take is checked when a job is made, before any work."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

AtLeastTwo = Annotated[int, Field(ge=2)]
"""A population, a grid."""
Fraction = Annotated[float, Field(ge=0, le=1)]
"""A share, a probability."""
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A weight, a tolerance."""
