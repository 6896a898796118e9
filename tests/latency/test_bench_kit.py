"""The kit in a process of its own, where nothing of this project can be imported but what the kit brings."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy
import onnxruntime
import pytest
import torch
from support.rooms import ROOMS, stated
from support.timed_arms import chain

from compress.errors import ConfigError
from compress.export.exporting import export
from compress.latency.bench_kit import PACKAGE, SCRIPT, SOURCES, Packed, pack
from compress.latency.measurement import read_measurement
from compress.latency.onnx_files import describe_all, file_arms
from compress.latency.result import Settings


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kit")
    example = torch.randn(2, 3, 24, 24)
    named = [export(chain(d), example, folder / f"{n}.onnx", exporter="legacy").path for n, d in (("big", 8), ("small", 2))]
    return file_arms(named)


@pytest.fixture(scope="module")
def packed(files: dict[str, Path]) -> Packed:
    facts = describe_all(files)
    return pack({arm: (path, facts[arm]) for arm, path in files.items()}, Settings(budget_seconds=0.3))


@pytest.fixture
def unpacked(packed: Packed, tmp_path: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(packed.data)) as archive:
        archive.extractall(tmp_path / "kit")
    return tmp_path / "kit"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Only the two packages are importable, whatever else is installed here."""
    only = folder.parent / "site"
    only.mkdir(exist_ok=True)
    for package in (numpy, onnxruntime):
        home = Path(str(package.__file__)).parent
        for found in (home, home.with_name("numpy.libs")):
            link = only / found.name
            if found.exists() and not link.exists():
                link.symlink_to(found)
    program = (
        f"import runpy, sys; sys.path.insert(0, {str(only)!r}); "
        f"runpy.run_path({str(folder / 'bench.py')!r}, run_name='__main__')"
    )
    command = [sys.executable, "-S", "-c", program, *arguments]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, env={"PATH": "/usr/bin"}, timeout=120)


def test_it_measures_with_numpy_and_onnxruntime_alone(unpacked: Path, packed: Packed, files: dict[str, Path]) -> None:
    ended = run(unpacked, "--batch", "1,2", "--runtime", "cpu,cuda")
    assert ended.returncode == 0, ended.stderr
    found = read_measurement(unpacked.parent / "result.json")
    assert found.kit == packed.identity and found.files == describe_all(files)
    assert {result.settings.batch for result in found.results} == {1, 2}
    for result in found.results:
        assert result.ratios["small.onnx"].cpu_speedup > 1.5 and result.arm("base").wall
        assert result.environment.threads == 1 or result.runtime != "ort-cpu"
    assert "small.onnx" in ended.stdout and "written" in ended.stdout
    assert str(Path.home()) not in (unpacked.parent / "result.json").read_text()


def test_the_protocol_in_it_is_the_one_that_runs_here(unpacked: Path) -> None:
    packed_files = sorted(path.relative_to(unpacked / "compress") for path in (unpacked / "compress").rglob("*.py"))
    assert Path("latency/protocol.py") in packed_files
    for name in packed_files:
        assert (unpacked / "compress" / name).read_bytes() == (PACKAGE / name).read_bytes()


def imported(name: str) -> Iterator[str]:
    """Modules that a packed file imports anywhere in it, through the faces to where a name lives; not what only types need."""
    tree = ast.parse((PACKAGE / name).read_text())
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    skipped = {id(inner) for block in typing for inner in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            room = node.module.removeprefix("compress.")
            yield node.module
            yield from (stated(room).get(alias.name, node.module) for alias in node.names if room in ROOMS)


@pytest.mark.parametrize("name", [*SOURCES, SCRIPT])
def test_a_packed_file_imports_nothing_that_is_not_packed(name: str) -> None:
    packed = {f"compress/{source}".removesuffix(".py").removesuffix("/__init__").replace("/", ".") for source in SOURCES}
    found = set(imported(name))
    ours = {module for module in found if module.partition(".")[0] == "compress"}
    assert ours <= packed
    foreign = {module.partition(".")[0] for module in found - ours}
    assert foreign <= {*sys.stdlib_module_names, "numpy", "onnxruntime"}


def test_the_same_files_make_the_same_kit(packed: Packed, files: dict[str, Path]) -> None:
    facts = describe_all(files)
    content = {arm: (path, facts[arm]) for arm, path in files.items()}
    assert pack(content, Settings(budget_seconds=0.3)) == packed
    other = pack(content, Settings(budget_seconds=0.4))
    assert other.identity != packed.identity
    with pytest.raises(ConfigError, match="'base'"):
        pack(dict(reversed(content.items())), Settings())


def test_a_changed_file_and_wrong_options_are_told(unpacked: Path) -> None:
    with (unpacked / "files" / "1-small.onnx").open("ab") as file:
        file.write(b"x")
    ended = run(unpacked)
    assert ended.returncode == 3 and "not the file that was packed" in ended.stderr and "hint" in ended.stderr
    assert run(unpacked, "--no-such-option").returncode == 2
    assert not (unpacked.parent / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch", "one"], "no list of numbers"),
        (["--runtime", "abacus"], "no runtime is called"),
        (["--batch", "0"], "batch is 0"),
        (["--out", "nowhere/result.json"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_leaves_nothing(arguments: list[str], said: str, unpacked: Path) -> None:
    ended = run(unpacked, "--seconds", "0.05", *arguments)
    assert ended.returncode == 3 and said in ended.stderr and "Traceback" not in ended.stderr
    assert not list(unpacked.parent.glob("*.json"))


def test_without_the_packages_it_says_how_to_get_them(unpacked: Path) -> None:
    command = [sys.executable, "-S", str(unpacked / "bench.py")]
    ended = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin"}, timeout=60)
    assert ended.returncode == 3 and "numpy is missing" in ended.stderr and "pip install" in ended.stderr


def test_the_manifest_names_everything(unpacked: Path) -> None:
    manifest = json.loads((unpacked / "kit.json").read_text())
    there = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert there == {*manifest["digests"], "kit.json", "README.txt"}
