"""What processes that train together tell each other, besides the gradients, which are DistributedDataParallel's.

One process runs the same lines, and none of them does anything then.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.core import plural, seconds_of, this_process
from compress.data import examples_in
from compress.errors import ConfigError, ProcessLost
from compress.tasks import cut_out

PATIENCE = "COMPRESS_RANK_SECONDS"
_PATIENCE_SECONDS = 600.0
_BROKEN = ("gloo", "nccl", "tcpstore", "connection", "timed out", "process group", "socket")

_APART: ContextVar[bool] = ContextVar("apart", default=False)


@dataclass(frozen=True)
class DataParallel:
    """This process and those that it trains with.

    Attributes:
        accelerator: Accelerate's, which places the network and averages its gradients.
        rank: this process's number, from 0.
        world: how many processes there are.
    """

    accelerator: Any
    rank: int = 0
    world: int = 1

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        found: torch.device = self.accelerator.device
        return found

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """The network and its optimiser on the device; its gradients become their mean over processes."""
        if self.world == 1 and not this_process().alone:
            return model.to(self.device), optimizer
        with warnings.catch_warnings():  # buffers are none of DDP's: its option has another name in newer versions
            warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
            wrapped, stepped = self.accelerator.prepare(model, optimizer)
        return wrapped, stepped

    def share(self, batch: Any) -> tuple[Any, float]:
        """This process's images of a batch, and what their mean counts in the mean over processes; 1 where parts are equal."""
        if self.world == 1:
            return batch, 1.0
        mine = cut_out(batch, slice(self.rank, None, self.world))
        return mine, examples_in(mine) * self.world / examples_in(batch)

    def summed(self, values: Tensor) -> Tensor:
        """The sum over processes, on each of them the same."""
        if self.world == 1:
            return values
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """In place, every process gets the first one's values."""
        if self.world == 1:
            return
        for tensor in tensors:
            values = tensor.detach().clone(memory_format=torch.contiguous_format)
            torch.distributed.broadcast(values, 0)
            if self.rank:
                tensor.detach().copy_(values)

    def average_statistics(self, model: nn.Module) -> None:
        """In place, running statistics of batch norms become their mean over processes, of which each saw images of its own.

        Running statistics are sums with fixed weights: to average them now and then, or at the end only, gives the same.
        """
        if self.world == 1:
            return
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.running_mean is not None]
        kept = [t for m in norms for t in (m.running_mean, m.running_var) if t is not None]
        if kept:
            means = self.summed(torch.cat([t.reshape(-1) for t in kept])) / self.world
            for tensor, mean in zip(kept, torch.split(means, [t.numel() for t in kept]), strict=True):
                tensor.copy_(mean.view_as(tensor))


def joined() -> DataParallel:
    """This process with the others of its launcher, each of which has to call this too.

    Raises:
        ConfigError: the environment names no such process.
        ProcessLost: the others do not come.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    place = this_process()
    if place.alone:
        return DataParallel(Accelerator())
    how = [
        InitProcessGroupKwargs(timeout=timedelta(seconds=patience())),
        DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True),
    ]
    with connected(f"process {place.rank} of {place.world} does not find the others"):
        # Without a GPU Accelerate takes processes for separate ones unless it is told that the CPU is meant.
        accelerator = Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=how)
    if accelerator.num_processes != place.world:
        raise ConfigError(
            f"the launcher started {plural(place.world, 'process')}, but Accelerate found {accelerator.num_processes}",
            hint="start them with torchrun or `accelerate launch`, which set LOCAL_RANK too",
        )
    return DataParallel(accelerator) if _APART.get() else DataParallel(accelerator, place.rank, place.world)


@contextmanager
def apart() -> Iterator[None]:
    """What is trained in this block, this process trains alone, whoever else there is."""
    token = _APART.set(True)
    try:
        yield
    finally:
        _APART.reset(token)


def patience() -> float:
    """Seconds that a process waits for another one that is silent: ``COMPRESS_RANK_SECONDS``, 600 by default.

    Raises:
        ConfigError: it is no number above 0.
    """
    return seconds_of(PATIENCE, _PATIENCE_SECONDS)


@contextmanager
def connected(what: str = "another process of this training ended, or does not answer") -> Iterator[None]:
    """Turns what a broken connection between processes raises into words.

    Raises:
        ProcessLost: a connection broke, or nobody answered in time.
    """
    try:
        with warnings.catch_warnings():  # said of channels-last weights whose two orders of memory are the same
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
            yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        text = str(error).lower()
        if this_process().alone or not (
            isinstance(error, torch.distributed.DistError) or any(word in text for word in _BROKEN)
        ):
            raise
        raise ProcessLost(f"{what}: {' '.join(str(error).split())[:200]}") from error
