"""What the searchers' tests share."""

from __future__ import annotations

from typing import Any

import pytest

from compress.search import cluster

COMPUTED = cluster.clustered
KEPT: dict[Any, Any] = {}


def kept(points: Any, count: int, restarts: int) -> Any:
    """The labels of the same points, computed once."""
    key = points.tobytes(), points.shape, count, restarts
    if key not in KEPT:
        KEPT[key] = COMPUTED(points, count, restarts)
    return KEPT[key].copy()


@pytest.fixture(autouse=True)
def _clusterings_are_kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy spaces have the same kernels in every test, and clusterings of all widths are nearly all that a search costs.

    Whether the seed alone decides is asked of the real thing.
    """
    if request.node.originalname != "test_same_seed_same_front":
        monkeypatch.setattr(cluster, "clustered", kept)
