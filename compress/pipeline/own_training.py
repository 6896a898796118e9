"""A run whose training is done by the user's own loop: looked at before the search, its result kept for a killed run."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from compress.core import aside, make_folder
from compress.data import Data
from compress.errors import ConfigError, TrainError
from compress.networks import state_digest
from compress.pipeline.job import Job
from compress.recovery import Budget, GradientRewrite, OwnLoop, check_loop, loop_name, run_loop

if TYPE_CHECKING:
    from compress.pipeline.run import Run

_FILE = "own-loop.safetensors"


def with_loop(job: Job, loop: OwnLoop | None, data: Data | None) -> Job:
    """The job with the loop's name in it, so that another loop is another run.

    A name that a job holds is never imported: it may come from a stranger's folder.

    Raises:
        ConfigError: the job was begun with a loop and none is given, or the loop cannot be used.
    """
    trains = job.epochs != 0 or job.stage_epochs > 0
    if loop is None:
        if job.train and trains:
            raise ConfigError(
                f"this job trains by the loop {job.train}, and a name that stands in a file is not imported",
                hint=f"if it is your own code, name it again: --train {job.train}, or train= in Python",
            )
        return job
    check_loop(loop)
    if not trains:
        raise ConfigError("epochs is 0, but there is a training loop", hint="leave --epochs out, or the loop")
    if data is None:
        raise ConfigError(
            "there is a training loop, but no images to judge its network on", hint="add --data, or data= in Python"
        )
    if data.train is None and job.epochs is None:
        raise ConfigError("there are no training images that would say how many epochs are wanted", hint="add --epochs 10")
    return replace(job, train=loop_name(loop))


def train_by_loop(
    run: Run, model: nn.Module, epochs: int, rewrite: GradientRewrite | None = None, state: str = "finetune"
) -> nn.Module:
    """A copy of a network, trained by the run's own loop; what a loop gave is kept, so that a killed run need not ask again.

    Args:
        run: with a loop; its network is the teacher.
        model: where training starts.
        epochs: that are wanted.
        rewrite: what has to happen to the gradients.
        state: the loop's folder in the run's.

    Raises:
        TrainError: the loop failed, or gave back something else than the network that it was given, trained.
    """
    loop, data, job, teacher = run.train, run.data, run.job, run.network.model
    assert loop is not None and data is not None
    folder = make_folder(run.folder / state, hint="remove it, or use --fresh")
    count = len(data.train) if data.train is not None else job.batch
    budget = Budget(epochs=epochs, lr=job.lr, batch=min(job.batch, count), seed=job.seed, folder=folder)
    facts = {**asdict(budget), "folder": "", "loop": job.train, "rewrite": rewrite.identity if rewrite is not None else ""}
    networks = [state_digest(_tensors(network)) for network in (model, teacher)]
    identity = hashlib.sha256(json.dumps([networks, facts, data.digests], sort_keys=True).encode()).hexdigest()[:16]
    kept = _read(folder / _FILE, identity)
    if kept is not None:
        result = _loaded(model, kept)
        if result is not None:
            return result
    trained = run_loop(loop, model, teacher, data, budget, rewrite)
    _write(folder / _FILE, identity, _tensors(trained))
    return trained


def check_zeros(trained: nn.Module, kernels: Mapping[str, Tensor]) -> None:
    """After kernel mode: what was zero is zero.

    Raises:
        TrainError: a loop moved it.
    """
    state = trained.state_dict()
    for key, kept in kernels.items():
        there = (state[key].cpu().reshape(*kept.shape, -1) != 0).any(dim=2)
        moved = int((there & ~kept.cpu()).sum())
        if moved:
            raise TrainError(
                f"the training loop moved {moved} kernels of {key} that are to stay zero",
                hint="call hooks.gradients(optimizer) once, and step with SGD: others move weights without a gradient",
            )


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in network.state_dict().items() if isinstance(value, Tensor)}


def _loaded(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module | None:
    """The network with kept tensors; None where they are not its own."""
    own = _tensors(model)
    if {k: (v.shape, v.dtype) for k, v in own.items()} != {k: (v.shape, v.dtype) for k, v in state.items()}:
        return None
    result = copy.deepcopy(model)
    result.load_state_dict(dict(state))
    return result.eval()


def _read(path: Path, identity: str) -> dict[str, Tensor] | None:
    """What a loop gave in an earlier sitting; None where it is of another training, or damaged: then it is asked again."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("identity") == identity:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError):
        pass
    return None


def _write(path: Path, identity: str, tensors: Mapping[str, Tensor]) -> None:
    # Cloned: safetensors refuses tensors that share memory, and tied weights do.
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    try:
        with aside(path) as temporary:
            temporary.write_bytes(to_safetensors(plain, {"identity": identity}))
    except OSError as error:
        raise TrainError(
            f"{path}: the trained network cannot be saved: {error.strerror}", hint="free some space, or change the folder"
        ) from error
