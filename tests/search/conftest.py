"""What the searchers' tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from compress.search import cluster


@pytest.fixture(scope="session", autouse=True)
def _clusterings_are_kept() -> Iterator[None]:
    """K-means of the same points is computed once: its seed is fixed (one test looks from another process, without this).

    The toy spaces of the contract have the same kernels in every test, and the clusterings of all widths are nearly all that a
    search on them costs.
    """
    computed, kept = cluster.clustered, dict[Any, Any]()

    def clustered(points: Any, count: int, restarts: int) -> Any:
        key = points.tobytes(), points.shape, count, restarts
        if key not in kept:
            kept[key] = computed(points, count, restarts)
        return kept[key].copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "clustered", clustered)
        yield
