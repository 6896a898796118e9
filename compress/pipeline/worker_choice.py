"""How many workers a run has, and what each of them fills."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.core import cores, free_memory, read_json
from compress.data import Data
from compress.evaluation import CACHE
from compress.networks import Network, random_rows, seeded
from compress.pipeline.channel_statistics import as_taken
from compress.pipeline.job import Job
from compress.pipeline.preparation import SYNTHETIC_IMAGES, calibration_count, search_budget
from compress.pipeline.run_folder import JOB
from compress.recovery import remembered_bytes
from compress.search import METHODS, Planner
from compress.signature import tensors
from compress.workers import fitting

_PROCESS = 600 << 20
"""Bytes of a worker before it holds anything: Python, torch and its kernels."""
_COPIES = 3
"""Of the weights: the network, a cut one, the stage's own."""
_BATCH, _ALIVE = 64, 4
"""Images that run at once through a whole network, and how many of its largest tensors are there at the same time."""
_RATE = 2e10
"""Multiply-accumulates a second that one core does at the least in single precision."""
_ANY_GROUPS = 1_000_000
"""As many groups as a network may have: they are not known before it is traced."""
_WORTH = 60.0
"""Core-seconds of scoring that are worth a process of their own: starting one takes some five."""
_MOST = 8
"""Workers that are started unasked."""


@dataclass(frozen=True)
class Footprint:
    """What one image makes of a network.

    Attributes:
        macs: of one image.
        values: bytes of everything that its layers give.
        largest: bytes of the largest of them.
        weights: bytes of parameters and buffers.
        rows: bytes of what it is shown.
    """

    macs: int
    values: int
    largest: int
    weights: int
    rows: int

    def worker_bytes(self, images: int) -> int:
        """What a worker may fill at the most: a stage's caches are bounded, and so is the run of a whole network."""
        stage, solutions = min(CACHE, images * self.values), remembered_bytes(self.weights)
        shown = _BATCH * _ALIVE * self.largest + 2 * images * self.rows
        return _PROCESS + solutions + _COPIES * self.weights + 2 * stage + shown

    def training_bytes(self, batch: int) -> int:
        """What a training fills besides at the most: gradients, momentum, the teacher, and a batch's values kept for them."""
        return _COPIES * self.weights + batch * self.values


def footprint(network: Network) -> Footprint:
    """Runs one input."""
    from torch.utils.flop_counter import FlopCounterMode

    sizes: list[int] = []

    def note(_module: nn.Module, _args: object, output: object) -> None:
        sizes.extend(_bytes(t) for t in tensors(output).values())

    with seeded(0):
        rows, model = random_rows(network, 1), network.model
    hooks = [m.register_forward_hook(note) for m in model.modules() if not [*m.children()]]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counted:
            model(rows)
    finally:
        for hook in hooks:
            hook.remove()
    return Footprint(
        macs=counted.get_total_flops() // 2,
        values=sum(sizes),
        largest=max(sizes, default=0),
        weights=sum(_bytes(t) for t in (*model.parameters(), *model.buffers())),
        rows=_bytes(rows),
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def images_of(job: Job, data: Data | None) -> int:
    """How many images a stage is scored on, at the most."""
    return SYNTHETIC_IMAGES if data is None else calibration_count(job, data)


def with_workers(network: Network, data: Data | None, job: Job, folder: Path, fresh: bool) -> Job:
    """The job with its workers chosen, where that is wanted, and with the threads that the folder's run was begun with."""
    kept = None if fresh else kept_threads(folder)
    threads = job.score_threads or kept
    if job.auto_workers and job.workers is None:
        number, each = _chosen(network, data, job)
        if number > 1:
            job, threads = replace(job, workers=number), threads or each
    if kept is None and not fresh and (folder / JOB).is_file():
        return job  # begun by an earlier version, which wrote no number
    return replace(job, score_threads=threads or (1 if job.workers else torch.get_num_threads()))


def kept_threads(folder: Path) -> int | None:
    """Threads that a run in the folder was begun with."""
    if not (folder / JOB).is_file():
        return None
    held = read_json(folder / JOB, hint="start over with --fresh, or choose --out").get("job")
    kept = held.get("score_threads") if isinstance(held, dict) else None
    return kept if isinstance(kept, int) and kept > 0 else None


def _asks_once(job: Job) -> bool:
    """Whether the job's searcher makes one request of some plans, which keeps no workers busy."""
    return isinstance(METHODS[job.method].make(**job.options), Planner)


def _chosen(network: Network, data: Data | None, job: Job) -> tuple[int, int]:
    """Workers, and threads for each of them; one worker where more would gain nothing."""
    available = cores()
    if available < 2 or torch.cuda.is_available():
        return 1, 1
    try:
        found = footprint(network)
    except Exception:  # whatever a network raises that does not run; what is wrong with it is told before the search
        return 1, 1
    budget = search_budget(job, found.macs, images=data is not None)
    if _asks_once(as_taken(job, _ANY_GROUPS, budget, "accuracy")):
        return 1, 1
    worth = budget * found.macs / _RATE // _WORTH
    room = fitting(found.worker_bytes(images_of(job, data)), free_memory())
    number = int(min(available, _MOST, worth, available if room is None else room))
    return max(1, number), max(1, available // max(1, number))
