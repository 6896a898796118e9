"""Programs of this repository as several processes: by torchrun, or by hand with the environment that a launcher makes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """Of a process of one thread that finds this repository, and no launcher."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    path = os.pathsep.join(str(_ROOT / name) for name in ("", "cli", "models", "tests"))
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COMPRESS_RANK_SECONDS": kept.get("COMPRESS_RANK_SECONDS", "60")}


def torchrun(*words: str, processes: int = 2, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    """Runs a module by torch's own launcher."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    return subprocess.run([*launcher, *words], env=environment(), capture_output=True, text=True, timeout=seconds, check=False)


def by_hand(*words: str, world: int = 2, **more: str) -> list[subprocess.Popen[str]]:
    """Starts a module once for each rank, with nobody who looks after the processes; ``{rank}`` in a word is the number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(world):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", *(word.replace("{rank}", str(rank)) for word in words)],
                env=environment() | place | {"MASTER_PORT": port} | more,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def ended(started: list[subprocess.Popen[str]], seconds: float = 120) -> list[tuple[int, str, str]]:
    """Exit code and both outputs of each; those that do not end in time are killed, and the test fails."""
    try:
        told = [(process.communicate(timeout=seconds), process) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, out, err) for (out, err), process in told]
