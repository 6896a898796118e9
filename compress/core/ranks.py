"""Which one of several processes this is, as a launcher (torchrun, accelerate) says in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from compress.errors import ConfigError

_OTHER_LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
_START = "torchrun --nproc-per-node 2 --no-python compress ..."


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that searches, decides, measures, speaks and writes; the others only train with it."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world == 1


def this_process(environ: Mapping[str, str] = os.environ) -> Ranks:
    """This process's place, from ``RANK`` and ``WORLD_SIZE``; alone where no launcher says otherwise.

    Raises:
        ConfigError: what the environment says is incomplete or no numbers, or processes were started by MPI or Slurm alone.
    """
    if "WORLD_SIZE" not in environ:
        for name in _OTHER_LAUNCHERS:
            if environ.get(name, "1") not in ("0", "1"):
                raise ConfigError(
                    f"{name} is {environ[name]}, but WORLD_SIZE and RANK are not set: these processes do not know each other",
                    hint=f"start one torchrun a machine, which starts the processes: {_START}",
                )
        return Ranks()
    said = environ["WORLD_SIZE"], environ.get("RANK", "0" if environ["WORLD_SIZE"] == "1" else "")
    world, rank = (int(text) if text.isascii() and text.isdecimal() else -1 for text in said)
    if not 0 <= rank < world:
        raise ConfigError(
            f"the environment says RANK={said[1]!r} and WORLD_SIZE={said[0]!r}; a rank from 0 to WORLD_SIZE - 1 is wanted",
            hint=f"unset both to run one process, or start several with: {_START}",
        )
    return Ranks(rank, world)


def leave_launcher() -> None:
    """This process is none of a launcher's from here on: one that was started by one of its processes."""
    for name in _NAMES:
        os.environ.pop(name, None)
