"""A run's folder: claimed by one process, holding one job, every file whole or absent."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.config import Job
from compress.errors import CompressError, ConfigError

SELECTIONS = "selections.json"
"""Measurements of input selections: before and after a search."""
_FILES = (  # the report first: without it nothing passes for finished
    "report.json report.md report.html report.schema.json answers.json latency.json precision.json model.int8.onnx "
    "model.fp16.onnx model.onnx base.onnx model.safetensors plan.json "
    "front.json front.svg journal.jsonl selections.json inputs.json job.json".split()
)


def write(path: Path, data: bytes | str) -> None:
    """Writes aside, syncs, renames: under the final name there is the whole file or none.

    Raises:
        CompressError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CompressError(
            f"{path} cannot be written: {error.strerror}",
            hint="free space or choose another folder with --out; the same command goes on where this one stopped",
        ) from error


def write_json(path: Path, data: Any) -> None:
    """JSON with sorted keys, so that equal data are equal bytes."""
    write(path, json.dumps(data, indent=1, sort_keys=True, allow_nan=True) + "\n")


@contextmanager
def claim(folder: Path, job: Job, identity: dict[str, str], fresh: bool) -> Iterator[Path]:
    """Takes a folder for one run.

    Args:
        folder: made if needed.
        job: what is to run; a folder that holds another one is refused.
        identity: digests of network and data; they must not change between sittings either.
        fresh: throw away what an earlier run left.

    Raises:
        ConfigError: the folder holds another job, or another process works in it.
        CompressError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise CompressError(f"{folder} cannot be written: {error.strerror}", hint="choose another folder with --out") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another process is working in {folder}", hint="wait for it, or choose --out") from error
        if fresh:
            for name in _FILES:
                (folder / name).unlink(missing_ok=True)
            for name in ("finetune", "csgd", "picks", "imported", "front"):
                shutil.rmtree(folder / name, ignore_errors=True)
        for left in folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        wanted = {"job": json.loads(json.dumps(job.to_json())), "identity": identity}
        held = folder / "job.json"
        if held.exists():
            _same(held, wanted, folder)
        else:
            write_json(held, wanted)
        try:
            yield folder
        except CompressError:
            _release(folder)
            raise
    finally:
        lock.close()


def _release(folder: Path) -> None:
    """A run that failed before any work leaves no claim: the corrected command may have the folder."""
    if {p.name for p in folder.iterdir()} <= {"job.json", ".lock"}:
        shutil.rmtree(folder, ignore_errors=True)


def _same(held: Path, wanted: dict[str, Any], folder: Path) -> None:
    try:
        found = json.loads(held.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{held} is no job of compress", hint="start over with --fresh, or choose --out") from error
    for part in ("job", "identity"):
        ours, theirs = wanted[part], found.get(part, {})
        for name in sorted({*ours, *theirs}):
            if ours.get(name) != theirs.get(name):
                raise ConfigError(
                    f"{folder} holds a run with {name} = {theirs.get(name)!r}, now it is {ours.get(name)!r}",
                    hint="start over with --fresh, or choose another folder with --out",
                )
