"""A run on several processes: the first one searches, decides, measures and writes; the others train with it what it names."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.core import Plan, this_process
from compress.errors import ConfigError, ProcessLost
from compress.networks import Network
from compress.pipeline.conclusion import Result, finished
from compress.pipeline.inspection import traced
from compress.pipeline.run import Run
from compress.recovery import Schedule, fit, held, meeting, tied_slices, train_centripetal
from compress.surgery import cut

_OF_THE_FIRST = ("workers", "score_threads", "threads")
"""Settings that concern the first process's machine only."""


@contextmanager
def among_processes(run: Run) -> Iterator[Run]:
    """The run as the processes of its launcher share it; by itself, where there is no launcher.

    Raises:
        ConfigError: processes are given different runs, or the user's own loop is to train.
        ProcessLost: a process does not come.
    """
    if this_process().alone:
        yield run
        return
    if run.train is not None:
        raise ConfigError(
            "a training loop of your own is started in one process here, and a launcher started several",
            hint="start compress by itself: the loop may start processes of its own",
        )
    job = {name: value for name, value in run.job.to_json().items() if name not in _OF_THE_FIRST}
    told = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:12]
    with meeting({"command": told, **run.identity}) as signals:
        yield replace(run, signals=signals)


def follow(run: Run) -> Result:
    """What the other processes do: they train what the first one names until it has ended.

    Returns:
        What the first process wrote.

    Raises:
        ProcessLost: the first process failed, or is silent.
        ConfigError: its folder is not to be seen here.
    """
    assert run.signals is not None
    folder = run.folder
    while True:
        told = run.signals.next()
        if "train" in told:
            _train_along(run, told)
        elif "folder" in told:
            folder = Path(told["folder"])
        elif told.get("ended") == "done":
            return _read(run.network, folder)
        else:
            raise ProcessLost("the first process ended with an error, and has said which")


def _read(network: Network, folder: Path) -> Result:
    found = finished(network, folder)
    if found is None:
        raise ConfigError(
            f"the run is done, but its folder {folder} is not to be seen by process {this_process().rank}",
            hint="nothing is lost: it is on the first process's machine. Give --out a folder that all machines share",
        )
    return found


def _train_along(run: Run, told: Mapping[str, Any]) -> None:
    assert run.data is not None and run.data.train is not None
    model, images, task = run.network.model, run.data.train, run.task
    plan = Plan.from_json(told["plan"])
    known = {name: value for name, value in told["schedule"].items() if name != "task"}
    schedule = Schedule(**known, task=None if task.name == "classification" else task)
    teacher = model if schedule.distill else None
    topology = traced(run.network)
    if told["train"] == "equal":
        train_centripetal(model, tied_slices(topology, plan), images, schedule, eps=run.job.eps, teacher=teacher)
        return
    kernels = {key: _unpacked(shape, text) for key, (shape, text) in told["kernels"].items()}
    fit(cut(model, topology, plan), images, schedule, teacher=teacher, rewrite=held(kernels) if kernels else None)


def _unpacked(shape: list[int], text: str) -> Tensor:
    count = int(np.prod(shape))
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count)
    return torch.from_numpy(bits.astype(bool)).reshape(shape)
