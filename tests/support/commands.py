"""The command line as a test calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress_cli.app import app
from typer.testing import CliRunner, Result

from compress.recovery import EpochDone

DIGITS = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"


def compress(*arguments: str | Path, **more: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], **more)


def text(result: Result) -> str:
    return result.stdout + result.stderr


@contextmanager
def stopped_after_an_epoch(*_: object, **__: object) -> Iterator[Callable[[object], None]]:
    """In place of ``progress.listening``: the user interrupts after the first epoch."""

    def hear(event: object) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    yield hear
