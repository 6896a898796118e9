"""What a Ray actor does: it holds an evaluation, and scores parts; the code that runs on a cluster's nodes."""

from __future__ import annotations

import os
import pickle
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.core import code_digest, version_of
from compress.workers.serving import Failed, HeldEvaluation, portable


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a process's scores depend on besides what it is sent, and where it is.

    Attributes:
        node: its machine's address, as Ray has it.
        pid: its process.
        compress: version of this library, with a digest of its sources.
        torch: its version.
        instructions: machine, maker of the processor, and the instruction set that torch's kernels use.
        shared_memory: bytes of the machine's /dev/shm; 0 where there is none.
    """

    node: str
    pid: int
    compress: str
    torch: str
    instructions: str
    shared_memory: int


def facts_here(node: str) -> NodeFacts:
    """Of this process."""
    import torch

    shared = Path("/dev/shm")
    return NodeFacts(
        node=node,
        pid=os.getpid(),
        compress=f"{version_of('smaller-convnets') or 'not installed'}, sources {code_digest()}",
        torch=torch.__version__,
        instructions=f"{platform.machine()} {_maker()} {torch.backends.cpu.get_cpu_capability()}",
        shared_memory=shutil.disk_usage(shared).total if shared.is_dir() else 0,
    )


def _maker() -> str:
    """Of the processor: libraries choose kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(("vendor_id", "CPU implementer"))), "")


class RayScorer:
    """The actor. Messages and answers are bytes of our own pickling: so they are counted, and errors always travel."""

    def __init__(self) -> None:
        self._held = HeldEvaluation()

    def facts(self) -> NodeFacts:
        """What its scores will depend on."""
        import ray

        return facts_here(ray.util.get_node_ip_address())

    def follow(self, recipe: bytes, pieces: Sequence[Any]) -> bytes:
        """Follows a recipe.

        Args:
            recipe: pickled.
            pieces: references into Ray's store, to the bytes of the recipe's file; none where it has no file. The file lies on
                this machine's disk until it is mapped: no longer.
        """
        import ray

        if not pieces:
            return self._held.answer(recipe)
        try:
            with tempfile.NamedTemporaryFile(prefix="compress-", suffix=".pt") as file:
                for piece in pieces:
                    file.write(ray.get(piece))
                file.flush()
                return self._held.answer(recipe, file.name)
        except Exception as error:  # the store lost a piece, the disk is full
            return pickle.dumps(Failed(portable(error)))

    def score(self, part: bytes) -> bytes:
        """Scores a part."""
        return self._held.answer(part)
