"""Somebody else's pruner as a run: it prunes, and everything after the cut is done as in a run of our own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.core import write_json
from compress.data import Data
from compress.errors import ModelError, one_line
from compress.networks import TASK, in_batches, save
from compress.pipeline.compared_run import RunFigures, compared_run, read_row
from compress.pipeline.conclusion import final_predictions
from compress.pipeline.preparation import calibration_count
from compress.pipeline.realisation import clock_files, export_pair
from compress.pipeline.run import Run
from compress.pipeline.run_folder import claim
from compress.pipeline.steps import finetune, with_batch_norms
from compress.report import ComparedRun, Latency, Size, latency_of
from compress.signature import first_tensor

ARM = "arm.json"
"""What a finished run of somebody else's pruner leaves."""
Prune = Callable[[nn.Module, Sequence[Tensor], float, int], nn.Module]
"""Somebody else's pruner: (a copy of the network, calibration batches, share of the MACs to keep, seed) -> pruned module."""


@dataclass(frozen=True)
class ExternalPruner:
    """Somebody else's pruner.

    Attributes:
        name: in the table.
        origin: where it comes from, ``package.module:function``; another one is another run.
        prune: the pruner.
    """

    name: str
    origin: str
    prune: Prune


def prune_externally(run: Run, data: Data, pruner: ExternalPruner, *, fresh: bool = False) -> ComparedRun:
    """Somebody else's pruner, and everything after it as in a run of our own; a finished one is only read.

    Args:
        run: network and folder; of its job the share of the MACs, the seed, recovery, training and measuring.
        data: the run's images.
        pruner: who prunes.
        fresh: forget an earlier run.

    Raises:
        ModelError: what the pruner returned is no network with the same outputs.
    """
    job, whole, result = run.job, run.network.model, run.folder / ARM
    with claim(run.folder, job, {**run.identity, "arm": pruner.origin}, fresh, run.task.figure):
        if result.exists() and not fresh:
            return read_row(result)
        calibration = data.calibration.images(calibration_count(job, data))
        with run.clock.phase("search", pruner.origin):
            given = copy.deepcopy(whole).eval()
            made = pruner.prune(given, in_batches(calibration), job.value, job.seed)
            small = _checked(made, whole, calibration[:2], pruner.name)
        if not run.scored:
            run = replace(run, held_out=data.validation.images(len(calibration)))
        before, after = (_size(model, calibration[:1]) for model in (whole, small))
        run.judge(small, "cut")
        if job.recover != "none":
            small = with_batch_norms(run, small, calibration)
        small = finetune(run, small)
        latency = _clocked(run, small, calibration)
        metadata = {"arm": pruner.origin, TASK: run.task.spec}
        save(run.folder / "model.safetensors", small, architecture=run.network.architecture, metadata=metadata)
        final_predictions(run, data, small)
        figures = RunFigures(
            before=before,
            after=after,
            accuracy=run.log.scores,
            steps=run.log.steps,
            latency=latency,
            seconds=run.clock.seconds,
        )
        row = compared_run(pruner.name, job.seed, run.folder, figures)
        write_json(result, asdict(row))
        return row


def _clocked(run: Run, small: nn.Module, images: Tensor) -> tuple[Latency, ...]:
    """Both networks' files measured, where the job measures."""
    if run.job.latency_seconds == 0:
        return ()
    with run.clock.phase("export", "ONNX"):
        files = export_pair(run, small, images, {})
    return tuple(latency_of(found) for found in clock_files(run, files, small))


def _checked(small: Any, model: nn.Module, images: Tensor, name: str) -> nn.Module:
    """An arm is not ours: what it returns has to be a network with the same outputs.

    Raises:
        ModelError: it is not.
    """
    if not isinstance(small, nn.Module):
        raise ModelError(f"{name} returned a {type(small).__name__}, a pruned torch.nn.Module was wanted")
    try:
        with torch.no_grad():
            got, wanted = (first_tensor(net(images)).shape for net in (small.eval(), model))
    except (RuntimeError, ValueError, AttributeError, ModelError) as error:
        raise ModelError(f"{name} returned a network that does not run: {one_line(error, 200)}") from error
    if got != wanted:
        raise ModelError(f"{name} returned a network with outputs {tuple(got)}, {tuple(wanted)} were wanted")
    return small


def _size(model: nn.Module, example: Tensor) -> Size:
    """MACs of convolutions and linear layers for one image, and parameters."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    return Size(counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters()))
