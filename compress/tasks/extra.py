"""The packages that score masks, boxes and images: an extra."""

from __future__ import annotations

from importlib.util import find_spec

from compress.errors import TaskError


def need(task: str, *packages: str) -> None:
    """Asks for what scores a task before anything is done.

    Raises:
        TaskError: a package is not installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise TaskError(
            f"the task {task} is scored by {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            hint="pip install 'smaller-convnets[tasks]'",
        )
