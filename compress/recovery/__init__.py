"""What a cut network gets back: batch norms, least squares, training; and C-SGD, which trains before the cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.recovery.batch_norm import reestimate as reestimate
    from compress.recovery.centripetal_sgd import CentripetalResult as CentripetalResult
    from compress.recovery.centripetal_sgd import Pull as Pull
    from compress.recovery.centripetal_sgd import Tied as Tied
    from compress.recovery.centripetal_sgd import tied_slices as tied_slices
    from compress.recovery.centripetal_sgd import train_centripetal as train_centripetal
    from compress.recovery.centripetal_sgd import train_equal as train_equal
    from compress.recovery.compensation import RIDGE as RIDGE
    from compress.recovery.compensation import Compensation as Compensation
    from compress.recovery.compensation import remembered_bytes as remembered_bytes
    from compress.recovery.compensation import solve as solve
    from compress.recovery.data_parallel import apart as apart
    from compress.recovery.data_parallel import connected as connected
    from compress.recovery.data_parallel import joined as joined
    from compress.recovery.data_parallel import patience as patience
    from compress.recovery.kernel_sparsity import effective_params as effective_params
    from compress.recovery.kernel_sparsity import held as held
    from compress.recovery.kernel_sparsity import zero_kernels as zero_kernels
    from compress.recovery.moments import Gram as Gram
    from compress.recovery.moments import Moments as Moments
    from compress.recovery.moments import collect as collect
    from compress.recovery.moments import moment_columns as moment_columns
    from compress.recovery.moments import moment_readers as moment_readers
    from compress.recovery.moments import moment_rows as moment_rows
    from compress.recovery.own_loop import Budget as Budget
    from compress.recovery.own_loop import Hooks as Hooks
    from compress.recovery.own_loop import OwnLoop as OwnLoop
    from compress.recovery.own_loop import check_loop as check_loop
    from compress.recovery.own_loop import loop_name as loop_name
    from compress.recovery.own_loop import run_loop as run_loop
    from compress.recovery.pull_strength import PAPER_EPS as PAPER_EPS
    from compress.recovery.pull_strength import strength as strength
    from compress.recovery.rank_signals import Signals as Signals
    from compress.recovery.rank_signals import meeting as meeting
    from compress.recovery.reconstruction import ReconstructionSettings as ReconstructionSettings
    from compress.recovery.reconstruction import reconstruct as reconstruct
    from compress.recovery.schedule import Schedule as Schedule
    from compress.recovery.schedule import steps_per_epoch as steps_per_epoch
    from compress.recovery.training import GradientRewrite as GradientRewrite
    from compress.recovery.training import LabelledImages as LabelledImages
    from compress.recovery.training import fit as fit
    from compress.recovery.training_events import EpochDone as EpochDone
    from compress.recovery.training_events import Resumed as Resumed
    from compress.recovery.training_events import TrainingEvent as TrainingEvent
    from compress.recovery.training_events import TrainingProgress as TrainingProgress
    from compress.recovery.unfolding import filters as filters
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "batch_norm": "reestimate",
            "centripetal_sgd": "CentripetalResult Pull Tied train_centripetal train_equal tied_slices",
            "compensation": "Compensation RIDGE remembered_bytes solve",
            "data_parallel": "apart connected joined patience",
            "kernel_sparsity": "effective_params held zero_kernels",
            "moments": "Gram Moments collect moment_columns moment_readers moment_rows",
            "own_loop": "Budget Hooks OwnLoop check_loop loop_name run_loop",
            "pull_strength": "PAPER_EPS strength",
            "rank_signals": "Signals meeting",
            "reconstruction": "ReconstructionSettings reconstruct",
            "schedule": "Schedule steps_per_epoch",
            "training": "GradientRewrite LabelledImages fit",
            "training_events": "EpochDone Resumed TrainingEvent TrainingProgress",
            "unfolding": "filters",
        },
    )
