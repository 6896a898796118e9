"""A run's figures in the trackers of the field, through Accelerate's: TensorBoard, Weights & Biases, MLflow, trackio."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.core import TOP1, Figure, Listen, PhaseDone, Warned, did_you_mean, ignore
from compress.errors import ConfigError, one_line
from compress.pipeline.job import Job
from compress.pipeline.run_folder import TENSORBOARD
from compress.recovery import EpochDone, TrainingProgress
from compress.report import Report
from compress.search import Asked

TRACKERS: Mapping[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}
"""Name -> the packages, one of which it needs."""
_PROJECT = "compress"
_ODD = re.compile(r"[^\w ./-]")


def need_trackers(names: Sequence[str]) -> None:
    """Asks before any work whether trackers are known and installed.

    Raises:
        ConfigError: one is not; the hint says how to get it.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(
                f"no tracker is called {name!r}", hint=did_you_mean(name, TRACKERS, f"one of {', '.join(TRACKERS)}")
            )
        if not any(importlib.util.find_spec(package) for package in TRACKERS[name]):
            extra = "'smaller-convnets[track]'" if name == "tensorboard" else name
            raise ConfigError(f"--track {name} needs {name}, which is not installed", hint=f"pip install {extra}")


class Tracking:
    """What a run tells, handed on, and its figures written to trackers.

    A tracker starts with the first figure. One that fails is told of once and left out from then on: no run ends for it.
    """

    def __init__(self, names: Sequence[str], folder: Path, job: Mapping[str, Any], listen: Listen = ignore) -> None:
        need_trackers(names)
        self._names, self._folder, self._job, self._listen = tuple(dict.fromkeys(names)), folder, job, listen
        self._open: dict[str, Any] | None = None
        self._step = 0

    def hear(self, event: Any) -> None:
        """One event of the run."""
        self._listen(event)
        figures = figures_of(event)
        if figures:
            self._log(figures)

    def conclude(self, report: Report) -> None:
        """The figures of the finished run."""
        figures = {
            "result/macs kept": report.after.macs / max(report.before.macs, 1),
            "result/parameters kept": report.after.params / max(report.before.params, 1),
            **{f"result/{score.split} {score.when}": score.value for score in report.scores},
            **{f"result/speed-up {one.runtime}": one.speedup for one in report.latency},
        }
        self._log(figures)

    def close(self) -> None:
        """Ends the trackers that were started."""
        for name, tracker in (self._open or {}).items():
            try:
                tracker.finish()
            except Exception as error:  # anybody's package
                self._listen(Warned(f"tracker {name} did not end well: {one_line(error)}"))
        self._open = {}

    def _log(self, figures: Mapping[str, float]) -> None:
        if self._open is None:
            self._open = {}
            for name in self._names:
                with self._left_out_if_it_fails(name):
                    self._open[name] = self._started(name)
        values = {_ODD.sub("_", name): float(value) for name, value in figures.items()}
        for name, tracker in list(self._open.items()):
            with self._left_out_if_it_fails(name):
                tracker.log(values, step=self._step)
        self._step += 1

    @contextmanager
    def _left_out_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # anybody's package: a login that is missing, a server that is down, a full disk
            assert self._open is not None
            self._open.pop(name, None)
            self._listen(Warned(f"tracker {name} failed and is left out: {one_line(error)}"))

    def _started(self, name: str) -> Any:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # trackers ask it whether this process is the main one
        run, kind = self._folder.name, LOGGER_TYPE_TO_CLASS[name]
        given: dict[str, dict[str, Any]] = {
            "tensorboard": {"run_name": TENSORBOARD, "logging_dir": self._folder},
            "mlflow": {"experiment_name": _PROJECT, "run_name": run},
        }
        tracker = kind(**given.get(name, {"run_name": _PROJECT, "name": run}))
        if hasattr(tracker, "start"):  # earlier versions start as they are made
            tracker.start()
        tracker.store_init_configuration(_plain(self._job))
        return tracker


@contextmanager
def tracked(
    names: Sequence[str], folder: Path, job: Job, listen: Listen = ignore, figure: Figure | None = TOP1
) -> Iterator[Tracking]:
    """Trackers for one run: give ``hear`` as its listener, and :meth:`Tracking.conclude` its report.

    Args:
        names: of :data:`TRACKERS`.
        folder: the run's; its name is the run's name there.
        job: the settings.
        listen: hears every event as well.
        figure: what an allowed drop is of.

    Raises:
        ConfigError: a tracker is not known, or its package is not installed.
    """
    tracking = Tracking(names, folder, job.to_json(figure), listen)
    try:
        yield tracking
    finally:
        tracking.close()


def figures_of(event: Any) -> dict[str, float]:
    """What an event says in numbers; empty for those that say nothing."""
    match event:
        case Asked(spent=spent, best=best, fidelity=fidelity):
            known = {f"search/error {fidelity}": best} if best == best else {}
            return {"search/image-forwards": spent, **known}
        case TrainingProgress(epoch=epoch, step=step, steps=steps, loss=loss, lr=lr):
            return {"training/epoch": epoch - 1 + step / max(steps, 1), "training/loss": loss, "training/lr": lr}
        case EpochDone(epoch=epoch, loss=loss, accuracy=accuracy):
            seen = {} if accuracy is None else {"training/accuracy of its batches": accuracy}
            return {"training/epoch": epoch, "training/loss of the epoch": loss, **seen}
        case PhaseDone(name=name, seconds=seconds):
            return {f"seconds/{name}": seconds}
    return {}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as every tracker takes them: no lists, no tables in them."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in _plain(value).items()}
        else:
            listed = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            flat[name] = value if isinstance(value, bool | int | float | str) else listed
    return flat
