"""What a network is for: how it is called, scored and trained, and what may be claimed of it. One task a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.tasks.base import Task as Task
    from compress.tasks.batches import arguments_in as arguments_in
    from compress.tasks.batches import cut_out as cut_out
    from compress.tasks.batches import first_of as first_of
    from compress.tasks.batches import moved as moved
    from compress.tasks.batches import single as single
    from compress.tasks.binary import Binary as Binary
    from compress.tasks.classification import Classification as Classification
    from compress.tasks.dense_detector import DenseDetector as DenseDetector
    from compress.tasks.detection import Detection as Detection
    from compress.tasks.imitation import per_image_error as per_image_error
    from compress.tasks.multilabel import Multilabel as Multilabel
    from compress.tasks.outputs import Outputs as Outputs
    from compress.tasks.registry import TASKS as TASKS
    from compress.tasks.registry import built_in as built_in
    from compress.tasks.registry import task_named as task_named
    from compress.tasks.registry import task_of as task_of
    from compress.tasks.regression import Regression as Regression
    from compress.tasks.restoration import Restoration as Restoration
    from compress.tasks.segmentation import Segmentation as Segmentation
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "base": "Task",
            "batches": "arguments_in cut_out first_of moved single",
            "binary": "Binary",
            "classification": "Classification",
            "dense_detector": "DenseDetector",
            "detection": "Detection",
            "imitation": "per_image_error",
            "multilabel": "Multilabel",
            "outputs": "Outputs",
            "registry": "TASKS built_in task_named task_of",
            "regression": "Regression",
            "restoration": "Restoration",
            "segmentation": "Segmentation",
        },
    )
