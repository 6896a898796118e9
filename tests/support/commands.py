"""The command line as a test calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress_cli.app import app
from typer.testing import CliRunner, Result

DIGITS = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"


def compress(*arguments: str | Path, **more: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], **more)


def text(result: Result) -> str:
    return result.stdout + result.stderr
