"""``--example`` and ``--size`` for networks that take something else than one batch of pictures, on every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from support.commands import compress, text
from support.interfaces import CALLED, called

from compress.errors import CompressError

CODE = """
from support.interfaces import called
def make():
    return called({name!r})[0]
def example():
    return called({name!r})[1]
def wrong():
    raise RuntimeError("no example today")
constant = 3
"""
QUICK = [
    "--budget",
    "300",
    "--macs",
    "0.7",
    "--round-to",
    "1",
    "--epochs",
    "0",
    "--latency-seconds",
    "0.05",
    "--exporter",
    "legacy",
]


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a network of ``support.interfaces`` and a module of the user's own that makes it."""

    def write(name: str) -> tuple[Path, list[str]]:
        module = "own_" + "".join(c for c in name if c.isalpha())
        (tmp_path / f"{module}.py").write_text(CODE.format(name=name))
        monkeypatch.chdir(tmp_path)
        torch.save(called(name)[0].state_dict(), tmp_path / "net.pt")
        return tmp_path / "net.pt", ["--arch", f"{module}:make", "--example", f"{module}:example"]

    return write


@pytest.mark.parametrize(
    "name", ["a dict with more", *(pytest.param(n, marks=pytest.mark.slow) for n in ("two images", "no batch", "sound"))]
)
def test_a_run_from_inspect_to_package(name: str, saved: Any, tmp_path: Path) -> None:
    file, how = saved(name)
    names = CALLED[name][2]
    seen = compress("inspect", file, *how)
    assert seen.exit_code == 0, text(seen)
    run = tmp_path / "run"
    done = compress("prune", file, *how, *QUICK, "--out", run, "--quiet")
    assert done.exit_code in (0, 6), text(done)
    session = onnxruntime.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])
    assert tuple(port.name for port in session.get_inputs()) == names
    picked = compress("pick", run, "--index", "0", "--trust-pickle", "--quiet")
    assert picked.exit_code in (0, 6), text(picked)
    bench = compress("bench", run / "base.onnx", run / "model.onnx", "--seconds", "0.1", "--json")
    assert bench.exit_code == 0, text(bench)
    half = compress("export", run, "--precision", "fp16", "--latency-seconds", "0.1")
    assert half.exit_code in (0, 5), text(half)  # noise may not tell in half precision
    packed = compress("package", run, "--out", tmp_path / "served", "--max-batch", "0" if name == "no batch" else "8")
    assert packed.exit_code == 0, text(packed)
    exported = compress("export", file, *how, "--out", tmp_path / "plain.onnx", "--exporter", "legacy")
    assert exported.exit_code == 0, text(exported)


def test_a_strangers_run_does_not_import_its_example_unasked(saved: Any, tmp_path: Path) -> None:
    file, how = saved("two images")
    run = tmp_path / "run"
    assert compress("prune", file, *how, *QUICK, "--out", run, "--quiet").exit_code in (0, 6)
    held = json.loads((run / "inputs.json").read_text())
    (run / "inputs.json").write_text(json.dumps({**held, "arch": None}))
    refused = compress("pick", run, "--index", "0")
    assert refused.exit_code in (2, 3) and "imports the example's" in text(refused)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--example", "own_twoimages:wrong"], "no example today"),
        (["--example", "own_twoimages:constant"], "cannot be called with the example: int"),
        (["--example", "own_twoimages:missing"], "has no 'missing'"),
        (["--example", "nowhere:f"], "nowhere"),
        (["--example", "no name"], "package.module:function"),
        (["--example", "own_twoimages:example", "--size", "8"], "both say"),
        (["--size", "8"], "does not take"),
    ],
)
def test_wrong_examples_are_told_by_every_command(options: list[str], said: str, saved: Any, tmp_path: Path) -> None:
    file, how = saved("two images")
    for command in (["inspect"], ["prune", "--out", tmp_path / "r"], ["export", "--out", tmp_path / "e.onnx"], ["table"]):
        result = compress(*command, file, *how[:2], *options)
        assert result.exit_code in (2, 3) and said in " ".join(text(result).split()), (command, text(result))
        assert isinstance(result.exception, SystemExit | CompressError)
    assert not (tmp_path / "e.onnx").exists()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("sound", "20"),
        pytest.param("a volume", "6,7,8", marks=pytest.mark.slow),
        pytest.param("six bands", "9,7", marks=pytest.mark.slow),
    ],
)
def test_other_dimensions_run_by_size_alone_and_on_arrays(name: str, size: str, saved: Any, tmp_path: Path) -> None:
    file, how = saved(name)
    run, shape = tmp_path / "run", CALLED[name][1].shape[1:]
    assert compress("inspect", file, *how[:2], "--size", size).exit_code == 0
    if name != "six bands":
        unsaid = compress("inspect", file, *how[:2])
        assert unsaid.exit_code == 2 and "--size" in text(unsaid)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, *shape)).astype(np.float32)
    model = called(name)[0]
    with torch.no_grad():
        labels = model(torch.from_numpy(x)).argmax(1).numpy()
    labels[:3] = 0, 1, 2
    np.savez(tmp_path / "x.npz", x=x, y=labels)
    given = ["--size", size, "--data", tmp_path / "x.npz", "--mean", "0", "--std", "1", "--accept-chance"]
    trained = [*QUICK[:6], "--epochs", "1", *QUICK[8:]]
    done = compress("prune", file, *how[:2], *given, *trained, "--out", run, "--quiet")
    assert done.exit_code in (0, 6), text(done)


@pytest.mark.slow
def test_a_size_left_open_is_used_at_others(saved: Any, tmp_path: Path) -> None:
    file, how = saved("one image")
    run = tmp_path / "run"
    done = compress("prune", file, *how[:2], "--size", "8", *QUICK, "--dynamic-size", "--out", run, "--quiet")
    assert done.exit_code in (0, 6), text(done)
    for path in (run / "model.onnx", run / "base.onnx"):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for size in ((8, 8), (9, 14), (24, 8)):
            session.run(None, {"input": np.zeros((2, 3, *size), np.float32)})
    assert compress("bench", run / "base.onnx", run / "model.onnx", "--seconds", "0.1").exit_code == 0
    assert compress("bench", run / "base.onnx", run / "model.onnx", "--seconds", "0.1", "--size", "12,10").exit_code == 0
    assert compress("export", file, *how[:2], "--size", "8", "--dynamic-size", "--out", tmp_path / "o.onnx").exit_code == 0
    refused = compress("export", run, "--precision", "fp16", "--dynamic-size")
    assert refused.exit_code == 2 and "--dynamic-size" in text(refused)
