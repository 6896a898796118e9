"""Real Ray clusters on this machine, and networks that only some of their nodes can make."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

STORE = 80 << 20
"""Bytes of a node's object store, the least that Ray takes."""


def small_node(**environment: str) -> dict[str, Any]:
    """One CPU; what pytest has put on its path, which Ray does not pass on, is there too."""
    here = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return {"num_cpus": 1, "object_store_memory": STORE, "env_vars": {**here, **environment}}


@contextmanager
def two_nodes(second: dict[str, str] | None = None, both: dict[str, str] | None = None, **head: Any) -> Iterator[Any]:
    """A cluster of two nodes with one CPU each, which this process belongs to.

    Args:
        second: environment variables of the second node.
        both: of both.
        head: more of the first one.
    """
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**small_node(**(both or {})), "include_dashboard": False, **head})
    before = os.environ.get("RAY_ADDRESS")
    try:
        cluster.add_node(**small_node(**(both or {}), **(second or {})))
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        if before is not None:
            os.environ["RAY_ADDRESS"] = before
        cluster.shutdown()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def descendants(pid: int) -> set[int]:
    """Processes that a process started, and those that they started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = set[int](), {pid}
    while new := {child for child, parent in parents.items() if parent in new}:
        found |= new
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class NeedsFile(nn.Module):
    """Can only be made where a variable of the environment names a file that is there."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)

    def __setstate__(self, state: dict[str, Any]) -> None:
        name = os.environ.get("NEEDED_FILE", "")
        if name:
            with Path(name).open():
                self.__dict__.update(state)
        else:
            self.__dict__.update(state)
