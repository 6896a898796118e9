"""Where models are put together: on the repository's file system, and where no server looks.

Triton takes every folder at the top of its repository for a model, hidden ones too: with one that is none it does not even
start. It does not look beside the repository, and takes only numbers for versions inside a model's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from compress.core import folder_beside, sweep_beside


@contextmanager
def staged(repository: Path, name: str) -> Iterator[Path]:
    """A hidden folder, gone afterwards, from which a model can be renamed into a repository.

    It lies beside the repository; only where that is another file system or cannot be written, as where the repository is
    mounted, it lies at its top.

    Args:
        repository: made if needed.
        name: of the model.

    Raises:
        OSError: it cannot be made.
    """
    repository.mkdir(parents=True, exist_ok=True)
    outside, inside = repository.resolve(), repository / name
    sweep_beside(inside)
    parent = outside.parent
    apart = outside != parent and os.access(parent, os.W_OK | os.X_OK) and parent.stat().st_dev == outside.stat().st_dev
    with ExitStack() as held:
        yield held.enter_context(folder_beside(outside if apart else inside))
