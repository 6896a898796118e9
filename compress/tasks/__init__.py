"""What a network is for: how it is called, scored and trained, and what may be claimed of it. One task a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.tasks.base import Task as Task
    from compress.tasks.batches import arguments_in as arguments_in
    from compress.tasks.batches import first_of as first_of
    from compress.tasks.batches import images_in as images_in
    from compress.tasks.batches import moved as moved
    from compress.tasks.classification import Classification as Classification
    from compress.tasks.outputs import Outputs as Outputs
    from compress.tasks.registry import TASKS as TASKS
    from compress.tasks.registry import task_named as task_named
    from compress.tasks.registry import task_of as task_of
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "base": "Task",
            "batches": "arguments_in first_of images_in moved",
            "classification": "Classification",
            "outputs": "Outputs",
            "registry": "TASKS task_named task_of",
        },
    )
