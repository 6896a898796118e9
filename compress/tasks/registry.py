"""Tasks by name, and a user's own: ``segmentation``, ``segmentation:void=11``, ``package.module:Name``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

from compress.core import Figure, did_you_mean, import_entrypoint, is_entrypoint, validated
from compress.errors import ConfigError, one_line
from compress.tasks.base import Task

TASKS: Mapping[str, str] = {
    "classification": "compress.tasks.classification:Classification",
    "binary": "compress.tasks.binary:Binary",
    "multilabel": "compress.tasks.multilabel:Multilabel",
    "regression": "compress.tasks.regression:Regression",
    "segmentation": "compress.tasks.segmentation:Segmentation",
    "detection": "compress.tasks.detection:Detection",
    "restoration": "compress.tasks.restoration:Restoration",
    "outputs": "compress.tasks.outputs:Outputs",
}
"""Name -> where its class is."""


def built_in(text: str) -> bool:
    """Whether a text names a task of ours: what a file may name without anybody having typed it."""
    return text.partition(":")[0] in TASKS


def task_named(text: str) -> Task:
    """The task that a text names: built in, with values behind a colon, or the user's own, which is imported.

    Only ever call this with what the user typed: an own task's module is run.

    Raises:
        ConfigError: there is no such task, or a value does not fit.
    """
    name, _, rest = text.partition(":")
    if name in TASKS:
        module, _, kind = TASKS[name].partition(":")
        return _made(getattr(import_module(module), kind), name, rest)
    if not is_entrypoint(text):
        hint = did_you_mean(name, TASKS, f"one of {', '.join(TASKS)}, or your own: package.module:Name")
        raise ConfigError(f"no task is called {text!r}", hint=hint)
    try:
        return task_of(import_entrypoint(text))
    except ImportError as error:
        raise ConfigError(
            f"--task {text}: {one_line(error)}",
            hint="name a class or an object as package.module:Name; the working directory counts",
        ) from error


def _made(kind: type[Task], name: str, rest: str) -> Task:
    """The task with the values of ``void=11,unit=px``."""
    values: dict[str, Any] = {}
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            raise ConfigError(
                f"--task {name}:{rest}: {part!r} is no value of it",
                hint=f"it takes {', '.join(sorted(known)) or 'none'}, as in {name}:{next(iter(sorted(known)), 'name')}=...",
            )
        values[key] = value
    return validated(kind, values) if values else kind()


def task_of(given: Any) -> Task:
    """A task from what Python code gives: a name, a task, a class of one, or any object or class with some of a task's members.

    Raises:
        ConfigError: it is nothing of the kind.
    """
    if isinstance(given, str):
        return task_named(given)
    try:
        found = given() if isinstance(given, type) else given
    except TypeError as error:
        raise ConfigError(
            f"the task {given.__name__} cannot be made: {one_line(error)}",
            hint="give a class without arguments, or an object of it",
        ) from error
    if isinstance(found, Task):
        return _sound(found)
    kind = type(found)
    members = [m for m in vars(Task) if not m.startswith("_") and hasattr(kind, m)]
    if not members or kind.__module__ == "builtins":
        raise ConfigError(
            f"a {kind.__name__} is no task", hint="give a name, or an object with some of inputs, loss, score, figures, imitate"
        )
    facts = {"__module__": kind.__module__, "__doc__": kind.__doc__, "name": getattr(kind, "name", kind.__name__)}
    whole: Task = object.__new__(type(kind.__name__, (kind, Task), facts))
    whole.__dict__.update(getattr(found, "__dict__", {}))
    return _sound(whole)


def _sound(task: Task) -> Task:
    """What can be seen without data.

    Raises:
        ConfigError: its name or figures are not what they have to be.
    """
    if not isinstance(task.name, str) or not task.name:
        raise ConfigError(f"the task {type(task).__name__} has the name {task.name!r}", hint="give it name = '...'")
    if not isinstance(task.figures, tuple) or not all(isinstance(f, Figure) for f in task.figures):
        raise ConfigError(
            f"the task {task.name} has the figures {task.figures!r}", hint="give it figures = (Figure('mIoU', share=True),)"
        )
    if bool(task.figures) != task.has("score"):
        given, missing = ("figures", "score(model, batches)") if task.figures else ("score", "figures")
        raise ConfigError(f"the task {task.name} has {given} and no {missing}", hint="give it both, or none")
    return task
