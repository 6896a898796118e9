"""Which operators can be imported, and who makes their modules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from compress.importing.node import Maker
from compress.importing.operators import (
    activations,
    arithmetic,
    comparisons,
    convolutions,
    indexing,
    joining,
    norms,
    pooling,
    products,
    recurrent,
    reductions,
    reshaping,
    resizing,
    shapes,
)

MAKERS: Mapping[str, Maker] = MappingProxyType(
    {
        name: maker
        for family in (
            activations,
            arithmetic,
            comparisons,
            convolutions,
            indexing,
            joining,
            norms,
            pooling,
            products,
            recurrent,
            reductions,
            reshaping,
            resizing,
            shapes,
        )
        for name, maker in family.MAKERS.items()
    }
)
