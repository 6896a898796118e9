"""Somebody else's pruner as a run: it prunes, and everything after the cut is done as in a run of our own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.core import Clock, Listen, ignore, read_json, write_json
from compress.data import Data
from compress.errors import ConfigError, ModelError, one_line
from compress.evaluation import agreements, blind, on_test, save_predictions
from compress.export import export_verified
from compress.networks import Network, identity, in_batches, save
from compress.pipeline.job import Job
from compress.pipeline.preparation import calibration_count
from compress.pipeline.realisation import clock_files
from compress.pipeline.run_folder import claim
from compress.pipeline.steps import Workbench, finetune
from compress.recovery import reestimate
from compress.report import ComparedRun, Latency, latency_of

Arm = Callable[[nn.Module, Sequence[Tensor], float, int], nn.Module]
"""Somebody else's pruner: (a copy of the network, calibration batches, share of the MACs to keep, seed) -> pruned module."""

_PARITY_INPUTS = 10


def prune_outside(
    network: Network,
    data: Data,
    job: Job,
    name: str,
    origin: str,
    arm: Arm,
    folder: Path,
    *,
    fresh: bool = False,
    listen: Listen = ignore,
) -> ComparedRun:
    """Somebody else's pruner, and everything after it as in a run of our own; a finished one is only read.

    Args:
        network: unpruned.
        data: images.
        job: share of the MACs, seed, recovery, training and measuring; what it says of a search is not used.
        name: of the pruner in the table.
        origin: where it comes from; another one is another run.
        arm: the pruner.
        folder: the run's.
        fresh: forget an earlier run.
        listen: receives events.

    Raises:
        ModelError: what the pruner returned is no network with the same outputs.
    """
    told = {**identity(network, data), "arm": origin}
    with claim(folder, job, told, fresh):
        result = folder / "arm.json"
        if result.exists() and not fresh:
            return _read(result)
        bench = Workbench(data, job, folder, Clock(listen))
        clock = bench.clock
        calibration = data.calibration.images(calibration_count(job, data))
        with clock.phase("search", origin):
            given = copy.deepcopy(network.model).eval()
            small = _checked(arm(given, in_batches(calibration), job.value, job.seed), network.model, calibration[:2], name)
        macs, params = _size(small, calibration[:1])
        whole_macs, whole_params = _size(network.model, calibration[:1])
        bench.judge(small, "cut")
        if job.recover != "none":
            with clock.phase("batch norm", f"statistics of {len(calibration)} images"):
                small = reestimate(small, in_batches(calibration))
                bench.judge(small, "batch norm")
        small = finetune(bench, network.model, small)
        latency = _clocked(bench, network.model, small, calibration)
        save(folder / "model.safetensors", small, architecture=network.architecture, metadata={"arm": told["arm"]})
        with clock.phase("test", f"{len(data.test)} images"):
            if data.labelled:
                right = on_test(network.model, small, data.test)
            else:
                right = blind(agreements(network.model, small, ((data.test, 0),)), data.test)
        save_predictions(folder, data, right)
        row = ComparedRun(
            name,
            job.seed,
            folder.name,
            macs=macs / whole_macs,
            params=params / whole_params,
            validation={a.when: a.top1 for a in bench.log.accuracy},
            latency=latency,
            search_seconds=clock.seconds["search"],
            seconds=dict(clock.seconds),
        )
        write_json(result, asdict(row))
        return row


def _read(path: Path) -> ComparedRun:
    kept = read_json(path, hint="start over with --fresh")
    try:
        latency = tuple(Latency(**{**x, "flags": tuple(x["flags"])}) for x in kept["latency"])
        return ComparedRun(**{**kept, "latency": latency})
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="start over with --fresh") from error


def _checked(small: Any, model: nn.Module, images: Tensor, name: str) -> nn.Module:
    """An arm is not ours: what it returns has to be a network with the same outputs.

    Raises:
        ModelError: it is not.
    """
    if not isinstance(small, nn.Module):
        raise ModelError(f"{name} returned a {type(small).__name__}, a pruned torch.nn.Module was wanted")
    try:
        with torch.no_grad():
            got, wanted = small.eval()(images).shape, model(images).shape
    except (RuntimeError, ValueError, AttributeError) as error:
        raise ModelError(f"{name} returned a network that does not run: {one_line(error, 200)}") from error
    if got != wanted:
        raise ModelError(f"{name} returned a network with outputs {tuple(got)}, {tuple(wanted)} were wanted")
    return small


def _size(model: nn.Module, example: Tensor) -> tuple[int, int]:
    """MACs of convolutions and linear layers for one image, and parameters."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    return counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())


def _clocked(bench: Workbench, base: nn.Module, small: nn.Module, images: Tensor) -> tuple[Latency, ...]:
    if bench.job.latency_seconds == 0:
        return ()
    files = [bench.folder / name for name in ("base.onnx", "model.onnx")]
    with bench.clock.phase("export", "ONNX"):
        for model, path in zip((base, small), files, strict=True):
            export_verified(model, images[:_PARITY_INPUTS], path, metadata={}, exporter=bench.job.exporter)
    return tuple(latency_of(found) for found in clock_files(bench, *files))
