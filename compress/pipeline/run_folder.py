"""A run's folder: claimed by one process, holding one job, every file whole or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.core import TOP1, Figure, hold_folder, read_json, remove, write_json
from compress.errors import CompressError, ConfigError
from compress.pipeline.job import EARLIER, Job, stored_values
from compress.pipeline.statistics_store import FOLDER as STATISTICS

JOB = "job.json"
"""What is to be done."""
SELECTIONS = "selections.json"
"""Measurements of input selections: before and after a search."""
_FILES = (  # the report first: without it nothing passes for finished
    "report.json report.md report.html report.schema.json model-card.md answers.json latency.json precision.json "
    "model.int8.onnx model.fp16.onnx model.onnx base.onnx model.safetensors plan.json "
    "profile.json front-latency.json front.json front.svg journal.jsonl selections.json inputs.json job.json".split()
)
_STATES = ("finetune", "csgd", *(f"stage-{number}" for number in range(8)))
TENSORBOARD = "tensorboard"
"""What TensorBoard shows, where a run is tracked."""
_FOLDERS = (*_STATES, "picks", "imported", "front", TENSORBOARD, STATISTICS)


def as_held(folder: Path, job: Job, fresh: bool) -> Job:
    """The job, but for what a run in the folder was begun without: one of an earlier version goes on as it was."""
    path = folder / JOB
    if fresh or not path.is_file():
        return job
    held = read_json(path, hint="start over with --fresh, or choose --out").get("job")
    if not isinstance(held, dict):
        return job
    known = stored_values(held)
    newer = {name: known[name] for name in EARLIER if name not in held}
    return replace(job, **newer)


@contextmanager
def claim(folder: Path, job: Job, identity: dict[str, str], fresh: bool, figure: Figure | None = TOP1) -> Iterator[Path]:
    """Takes a folder for one run.

    Args:
        folder: made if needed.
        job: what is to run; a folder that holds another one is refused.
        identity: digests of network and data; they must not change between sittings either.
        fresh: throw away what an earlier run left.
        figure: what an allowed drop is of.

    Raises:
        ConfigError: the folder holds another job, or another process works in it.
        CompressError: it cannot be written.
    """
    with _held(folder):
        if fresh:
            for name in (*_FILES, *_FOLDERS):
                remove(folder / name)
        for name in _FOLDERS:
            if (folder / name).is_symlink():
                raise ConfigError(
                    f"{folder / name} is a link, a run writes into folders of its own only", hint="remove it, or use --fresh"
                )
        _sweep(folder)
        wanted = {"job": json.loads(json.dumps(job.to_json(figure))), "identity": identity}
        held = folder / JOB
        if held.exists():
            _same(held, wanted, folder)
        else:
            write_json(held, wanted)
        try:
            yield folder
        except CompressError:
            _release(folder)
            raise


def _release(folder: Path) -> None:
    """A run that failed before any work leaves no claim: the corrected command may have the folder."""
    if {p.name for p in folder.iterdir()} <= {JOB, ".lock", TENSORBOARD}:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(hold_folder(folder, ".lock", make=True))
        except BlockingIOError as error:
            raise ConfigError(f"another process is working in {folder}", hint="wait for it, or choose --out") from error
        except OSError as error:
            raise CompressError(
                f"{folder} cannot be written: {error.strerror}", hint="choose another folder with --out"
            ) from error
        yield


def _sweep(folder: Path) -> None:
    """What a killed run left under temporary names."""
    for place in (folder, *(folder / name for name in _FOLDERS)):
        for left in (*place.glob(".*.tmp"), *place.glob(".*.onnx-*")):
            remove(left)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _same(held: Path, wanted: dict[str, Any], folder: Path) -> None:
    found = read_json(held, hint="start over with --fresh, or choose --out")
    for part in ("job", "identity"):
        ours, theirs = wanted[part], found.get(part)
        if not isinstance(theirs, dict):
            raise ConfigError(f"{held} is no job of compress", hint="start over with --fresh, or choose --out")
        if part == "job":
            ours, theirs = _plain(stored_values(ours)), _plain(stored_values(theirs))
        for name in sorted({*ours, *theirs}):
            if name == "train" and theirs.get(name) and not ours.get(name):
                raise ConfigError(
                    f"{folder} holds a run that trains by the loop {theirs[name]}; names in files are not imported",
                    hint=f"if it is your own code, name it again: --train {theirs[name]}, or train= in Python",
                )
            if ours.get(name) != theirs.get(name):
                raise ConfigError(
                    f"{folder} holds a run with {name} = {theirs.get(name)!r}, now it is {ours.get(name)!r}",
                    hint="start over with --fresh, or choose another folder with --out",
                )
