"""Benchmarks that keep their parts: nothing is begun when the time is up, then all of it, and nothing anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

NET = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"


def tiny(folder: Path, *more: str) -> list[str]:
    """What a benchmark is called with on the digits, to spend next to nothing."""
    return [str(NET), "digits", "--work", str(folder), "--results", str(folder), "--tiny", *more]


def in_parts(main: Callable[[Sequence[str]], int], call: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the benchmark said when it ran for the first time; every part that is begun is a line of names between slashes."""
    assert main([*call, "--minutes", "0"]) == 0
    stopped = capsys.readouterr()
    assert "goes on" in stopped.err and not _begun(stopped.out)
    assert main(call) == 0
    told = capsys.readouterr().out
    assert main(call) == 0
    assert _begun(told) and not _begun(capsys.readouterr().out), "nothing anew"
    return told


def _begun(told: str) -> list[str]:
    return [line for line in told.splitlines() if " / " in line and not line.startswith("|")]
