"""The public surface: small, pinned, and free until it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from support.reports import SAMPLE

import compress
from compress.core import version_of
from compress.report import write_report

SURFACE = [
    "METHODS",
    "Architecture",
    "CompressError",
    "Data",
    "Decision",
    "Figure",
    "Job",
    "Loaded",
    "Network",
    "Plan",
    "Preprocessing",
    "Report",
    "Result",
    "Task",
    "TaskScore",
    "Topology",
    "cut",
    "cuttable",
    "data_from",
    "decide",
    "from_pretrained",
    "inspect",
    "load",
    "make_job",
    "network_from",
    "network_of",
    "open_data",
    "pick",
    "prune",
    "push",
    "save",
    "save_pretrained",
]
HEAVY = (
    "PIL accelerate jaxtyping jinja2 joblib markupsafe matplotlib numpy onnx onnxruntime onnxscript onnxslim pandas "
    "pydantic pymoo safetensors scipy sklearn sympy timm torch torch._dynamo torch._inductor torch_pruning torchvision triton "
    "tritonclient"
).split()
TYPER = {"pydantic"}
"""Typer reads options with it."""
NUMBERS = {"numpy", *TYPER}
MAY_IMPORT: dict[str, set[str]] = {
    "import compress": set(),
    "import compress; compress.CompressError; dir(compress)": set(),
    "import compress; compress.__version__": set(),
    "import compress; compress.prune": {"torch", "PIL", "onnx", "safetensors", *NUMBERS},
    "compress --version": TYPER,
    "compress --help": TYPER,
    "compress prune --help": TYPER,
    "compress bench --help": TYPER,
    "compress models": TYPER,
    "compress methods": NUMBERS,
    "compress cite": TYPER,
    "compress cite smoea": TYPER,
    "compress report RUN": NUMBERS,
    "compress report RUN --json": NUMBERS,
    "compress report RUN --markdown": NUMBERS,
    "compress report RUN --csv": NUMBERS,
    "compress report RUN RUN2": NUMBERS,
    "compress report RUN --html": {"PIL", "jinja2", "markupsafe", "matplotlib", *NUMBERS},
}
"""What a fresh interpreter may have imported of the heavy packages after running this, by Python or at the command line."""


def test_surface() -> None:
    """Who changes this list changes what others have written against."""
    assert sorted(compress.__all__) == sorted(SURFACE)
    assert sorted(compress._HOMES) == sorted(SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_every_name_is_there(name: str) -> None:
    assert getattr(compress, name) is not None
    assert name in dir(compress)


def test_paths_may_be_text() -> None:
    """Who writes a path as a string is not asked to import pathlib."""
    functions = {name: found for name in SURFACE if inspect.isfunction(found := getattr(compress, name))}
    taken = {f"{name}({a})": str(t) for name, f in functions.items() for a, t in f.__annotations__.items() if a != "return"}
    paths = {where: kind for where, kind in taken.items() if "Path" in kind}
    assert len(paths) > 8 and [where for where, kind in paths.items() if "str" not in kind] == []


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        compress.prun  # noqa: B018


def loaded_by(first: str, *more: str) -> list[set[str]]:
    """Heavy packages that a fresh interpreter has imported after running some code, and after each of more, in a fork of it.

    What starts have in common is run once: a fork has imported what its parent has, and nothing of what its siblings have.
    """
    code = f"""
import os, sys
def told():
    print("LOADED", *[m for m in {HEAVY} if m in sys.modules], flush=True)
{first}
told()
for code in {list(more)}:
    child = os.fork()
    if not child:
        exec(code)
        told()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert len(found) == 1 + len(more)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two finished runs by the name that a command has for them."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("RUN", "RUN2")}
    for folder in folders.values():
        write_report(SAMPLE, folder)
    return {name: str(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def loaded(runs: dict[str, str]) -> dict[str, set[str]]:
    """What every start has imported."""
    app = "from compress_cli.app import app"
    calls = {}
    for start in MAY_IMPORT:
        if start.startswith("compress "):
            words = [runs.get(word, word) for word in start.split()[1:]]
            calls[start] = (
                f"try:\n    app({words!r}, prog_name='compress')\nexcept SystemExit as end:\n    assert not end.code, end.code"
            )
    python = {start: loaded_by(start)[0] for start in MAY_IMPORT if start not in calls}
    return python | dict(zip(calls, loaded_by(app, *calls.values())[1:], strict=True))


@pytest.mark.parametrize("start", MAY_IMPORT)
def test_a_start_imports_no_more_than_it_needs(start: str, loaded: dict[str, set[str]]) -> None:
    assert loaded[start] <= MAY_IMPORT[start]


def test_the_check_above_can_fail(loaded: dict[str, set[str]]) -> None:
    """What is imported is seen, by whichever way it came in, and in the child alone that imported it."""
    assert {"numpy", "torch"} <= loaded["import compress; compress.prune"]
    before, inside, beside = loaded_by("import numpy", "import torchvision, sklearn.cluster", "import PIL")
    assert "numpy" in before and "torch" not in before
    assert {"torchvision", "torch._dynamo", "sklearn", "scipy"} <= inside
    assert "PIL" in beside and "torch" not in beside


def test_the_version_is_the_distribution_s() -> None:
    assert compress.__version__ == (version_of("smaller-convnets") or "")
    assert "__version__" in dir(compress)
