"""The public surface: small, pinned, and free until it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import compress

SURFACE = [
    "METHODS",
    "Architecture",
    "CompressError",
    "Data",
    "Job",
    "Loaded",
    "Network",
    "Plan",
    "Preprocessing",
    "Report",
    "Result",
    "Topology",
    "cuttable",
    "inspect",
    "load",
    "make_job",
    "network_from",
    "network_of",
    "open_data",
    "pick",
    "prune",
    "save",
]
HEAVY = ("torch", "numpy", "pymoo", "onnx", "onnxruntime", "matplotlib", "torchvision", "scipy")


def test_surface() -> None:
    """Who changes this list changes what others have written against."""
    assert sorted(compress.__all__) == sorted(SURFACE)
    assert sorted(compress._HOMES) == sorted(SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_every_name_is_there(name: str) -> None:
    assert getattr(compress, name) is not None
    assert name in dir(compress)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        compress.prun  # noqa: B018


def loaded_by(code: str) -> list[str]:
    """Heavy modules that a fresh interpreter has after running some code."""
    tail = f"\nimport sys; print('LOADED', *[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return done.stdout.rpartition("LOADED")[2].split()


def test_importing_loads_nothing_heavy() -> None:
    assert loaded_by("import compress; compress.CompressError; dir(compress)") == []


def test_the_check_above_can_fail() -> None:
    assert "numpy" in loaded_by("import compress; compress.Plan")


@pytest.mark.parametrize("command", ["--help", "prune --help", "bench --help"])
def test_help_loads_nothing_heavy(command: str) -> None:
    code = f"""
from compress_cli.app import app
try:
    app({command.split()!r}, prog_name="compress")
except SystemExit as end:
    assert end.code == 0
"""
    assert loaded_by(code) == []
