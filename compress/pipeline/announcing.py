"""What the first process of a run tells the others: what is to be trained, and where the results will be."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from compress.core import Plan
from compress.errors import ConfigError
from compress.pipeline.run import Run
from compress.recovery import Schedule


def announce_cut(run: Run, plan: Plan | None, schedule: Schedule, kernels: Mapping[str, Tensor]) -> None:
    """Tells the others to cut their network by a plan, in the coordinates of the run's network, and to train it."""
    if run.signals is None:
        return
    if plan is None:
        raise ConfigError("another pruner's network cannot be trained by several processes", hint="start compress by itself")
    zeros = {key: [list(kept.shape), _packed(kept)] for key, kept in kernels.items()}
    run.signals.tell({"train": "cut", "plan": plan.to_json(), "schedule": schedule.to_json(), "kernels": zeros})


def announce_equal(run: Run, plan: Plan, schedule: Schedule) -> None:
    """Tells the others to train clusters of filters equal."""
    if run.signals is not None:
        run.signals.tell({"train": "equal", "plan": plan.to_json(), "schedule": schedule.to_json()})


def announce_folder(run: Run) -> None:
    """Tells the others where the results will be."""
    if run.signals is not None:
        run.signals.tell({"folder": str(run.folder.absolute())})


def _packed(kept: Tensor) -> str:
    return base64.b64encode(np.packbits(kept.cpu().numpy().reshape(-1)).tobytes()).decode()
