"""The state of an interrupted training: one safetensors file whose header holds the JSON; nothing is ever pickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from compress.core import aside, make_folder
from compress.errors import ConfigError, TrainError
from compress.networks import state_digest
from compress.recovery.data_parallel import DataParallel

FILE = "fit.safetensors"
_LONGEST = 1e9


@dataclass(frozen=True, slots=True)
class TrainingState:
    """How far a training has come.

    Attributes:
        epoch: to go on with, from 0.
        step: in it to go on with, from 0.
        seconds: that the training has taken, over all sittings.
        seen: sums over the epoch so far: loss times images, images named right, images; shape (3,).
    """

    epoch: int
    step: int
    seconds: float
    seen: Tensor


def identity(model: nn.Module, teacher: nn.Module | None, schedule: Mapping[str, Any], images: str) -> str:
    """What must be equal for a state to go on: start, teacher, images and schedule."""
    networks = [None if network is None else state_digest(_tensors(network)) for network in (model, teacher)]
    return hashlib.sha256(json.dumps([networks, dict(schedule), images], sort_keys=True).encode()).hexdigest()[:16]


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in network.state_dict().items() if isinstance(value, Tensor)}


def save(folder: Path, identity: str, state: TrainingState, student: nn.Module, sgd: torch.optim.SGD) -> None:
    """Writes the state; a run killed in here leaves the one before.

    Args:
        folder: made if it is missing.
        identity: of the training, from :func:`identity`.
        state: where to go on.
        student: the network.
        sgd: its optimiser; only the momentum is kept.

    Raises:
        TrainError: the file cannot be written.
    """
    path = folder / FILE
    tensors = {f"model.{key}": value for key, value in _tensors(student).items()} | {"seen": state.seen}
    for name, parameter in student.named_parameters():
        buffer = sgd.state[parameter].get("momentum_buffer") if parameter in sgd.state else None
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer
    # Cloned: safetensors refuses tensors that share memory, and tied weights do.
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    header = json.dumps({"identity": identity, "position": (state.epoch, state.step), "seconds": state.seconds})
    try:
        make_folder(folder, hint="remove it, or use --fresh")
        with aside(path) as temporary:
            temporary.write_bytes(to_safetensors(plain, {"fit": header}))
    except ConfigError as error:  # something else stands where the folder should be
        raise TrainError(f"{path}: the state cannot be saved: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise TrainError(
            f"{path}: the state cannot be saved: {error.strerror}", hint="free some space, or change the folder"
        ) from error


def load(folder: Path, identity: str, student: nn.Module, sgd: torch.optim.SGD) -> TrainingState | None:
    """Puts saved weights and momentum in place.

    Returns:
        Where to go on; None where nothing is saved.

    Raises:
        TrainError: the file is no state, or that of another training.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["fit"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if header["identity"] == identity:
            student.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
            for name, parameter in student.named_parameters():
                if f"momentum.{name}" in tensors:
                    buffer = torch.empty_like(parameter, requires_grad=False).copy_(tensors[f"momentum.{name}"])
                    sgd.state[parameter]["momentum_buffer"] = buffer
            seen = tensors["seen"]
            if seen.shape != (3,):
                raise ValueError(f"sums of shape {tuple(seen.shape)}")
            epoch, step = header["position"]
            seconds = float(header.get("seconds", 0.0))
            if not 0 <= seconds < _LONGEST:
                raise ValueError(f"{seconds} seconds")
            return TrainingState(int(epoch), int(step), seconds, seen)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TrainError(f"{path}: not a state of training: {error}", hint=f"delete {path} to start over") from error
    raise TrainError(
        f"{path}: the state belongs to another training (other weights, images, teacher, schedule or number of processes)",
        hint=f"delete {path} to start over, or give another folder",
    )


def alike(
    together: DataParallel, found: TrainingState | None, student: nn.Module, sgd: torch.optim.SGD
) -> TrainingState | None:
    """On all processes the first one's weights, momentum and position; sums over the epoch so far stay with the first one."""
    if together.world == 1:
        return found
    parameters = [p for p in student.parameters() if p.requires_grad]
    position = [0, 0, 0] if found is None else [1, found.epoch, found.step]
    kept = [int("momentum_buffer" in sgd.state[p]) if p in sgd.state else 0 for p in parameters]
    head = torch.tensor([*position, *kept], device=together.device)
    together.spread([head])
    known, epoch, step, *kept = head.tolist()
    moving = [p for p, has in zip(parameters, kept, strict=True) if has]
    if together.rank:
        for parameter in moving:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    together.spread([*_tensors(student).values(), *(sgd.state[p]["momentum_buffer"] for p in moving)])
    if not known or found is not None:
        return found
    return TrainingState(epoch, step, 0.0, torch.zeros(3))
