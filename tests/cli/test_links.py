"""A folder from a stranger may hold links: no command writes, empties or removes anything where they lead."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.commands import DIGITS, compress, text
from support.covering import thinned
from support.v2server import serving

STATES = ("finetune", "csgd", "stage-0", "picks", "imported", "front")
RUN = [DIGITS, "--data", "digits", "--method", "uniform", "--set", "options.points=4", "--exporter", "legacy", "--quiet"]
PRUNE = ["prune", *RUN, "--epochs", "1", "--latency-seconds", "0", "--recover", "none", "--macs", "0.5"]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"folder" for p in sorted(folder.rglob("*"))}


def linked(folder: Path, outside: Path, names: Sequence[str] = ()) -> dict[str, bytes]:
    """Every entry of a folder, and each further name, becomes a link to the same outside; returns what lies there."""
    outside.mkdir()
    for entry in list(folder.iterdir()):
        if entry.name != ".lock":  # a lock that is a link holds every command up
            shutil.move(entry, outside / entry.name)
    for name in names:
        if not (outside / name).exists():
            (outside / name).mkdir()
            for victim in ("fit.safetensors", "model.onnx", "precious.json", ".x.tmp"):
                (outside / name / victim).write_bytes(b"precious")
    for entry in outside.iterdir():
        (folder / entry.name).symlink_to(entry)
    return tree(outside)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "r"
    done = compress(*PRUNE, "--out", folder)
    assert done.exit_code in (0, 6), text(done)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "r")
    return tmp_path / "r"


def commands(run: Path, other: Path) -> Iterator[tuple[str | Path, ...]]:
    """Whatever writes into a run's folder."""
    yield (*PRUNE, "--out", run)
    yield ("pick", run, "--macs", "0.6", "--epochs", "1", "--quiet")
    yield ("bench", run, "--front", "--points", "2", "--seconds", "0.1", "--quiet")
    yield ("export", run, "--precision", "fp16", "--latency-seconds", "0", "--quiet")
    yield ("report", run, "--html")
    yield ("report", run, "--out", run / "report.md")
    yield (*PRUNE, "--seed", "1", "--fresh", "--out", run)


@pytest.mark.parametrize("number", thinned(range(7), of=3))
def test_nothing_is_written_where_a_link_in_a_run_leads(run: Path, tmp_path: Path, number: int) -> None:
    command = list(commands(run, tmp_path))[number]
    before = linked(run, tmp_path / "outside", STATES)
    done = compress(*command)
    assert tree(tmp_path / "outside") == before, (done.exit_code, text(done)[-300:])
    assert done.exit_code in (0, 2, 3, 6), text(done)
    if "--fresh" in command:  # the links are what an earlier run left
        assert done.exit_code in (0, 6), text(done)
        assert not [p for p in run.rglob("*") if p.is_symlink()]


@pytest.mark.parametrize("name", STATES)
def test_a_run_that_goes_on_refuses_a_linked_folder(run: Path, tmp_path: Path, name: str) -> None:
    shutil.rmtree(run / name, ignore_errors=True)
    (tmp_path / "outside").mkdir()
    (run / name).symlink_to(tmp_path / "outside")
    (run / "report.json").unlink()
    done = compress(*PRUNE, "--out", run)
    assert done.exit_code == 3
    assert f"{run / name} is a link" in done.stderr
    assert tree(tmp_path / "outside") == {}


@pytest.mark.parametrize("kind", ["finetune", "train"])
@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
def test_a_linked_training_state_is_not_written(tmp_path: Path, kind: str, fresh: tuple[str, ...]) -> None:
    target, outside = tmp_path / "t.safetensors", tmp_path / "outside"
    outside.mkdir()
    (outside / "fit.safetensors").write_bytes(b"precious")
    (tmp_path / ".t.safetensors.training").symlink_to(outside)
    model = DIGITS if kind == "finetune" else "digits_net"
    done = compress(kind, model, "--data", "digits", "--epochs", "1", "--out", target, "--quiet", *fresh)
    assert tree(outside) == {"fit.safetensors": b"precious"}
    assert done.exit_code == (0 if fresh else 3), text(done)


@pytest.mark.parametrize(
    "names",
    [
        ("uniform-seed-0",),
        pytest.param(("fpgm-seed-0",), marks=pytest.mark.slow),
        ("comparison.json", "comparison.md", "comparison.svg"),
    ],
    ids=" ".join,
)
def test_a_comparison_does_not_follow_its_runs(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder, outside = tmp_path / "c", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    precious = dict.fromkeys(("report.json", *names), b"precious")
    for name, content in precious.items():
        (outside / name).write_bytes(content)
    for name in names:
        (folder / name).symlink_to(outside if "seed" in name else outside / name)
    options = ["--epochs", "0", "--recover", "none", "--latency-seconds", "0", "--set", "uniform.points=4", "--quiet"]
    options += [
        "--set",
        "exporter=legacy",
        "--methods",
        "uniform,fpgm",
        "--against",
        "uniform",
        "--seeds",
        "0",
        "--fresh",
        "--out",
        folder,
    ]
    done = compress("compare-methods", DIGITS, "--data", "digits", *options)
    assert tree(outside) == precious, text(done)[-300:]
    if "comparison.json" in names:
        assert done.exit_code == 0 and not [name for name in names if (folder / name).is_symlink()], text(done)[-300:]


@pytest.mark.parametrize("target", ["file", "nothing", "folder"])
@pytest.mark.parametrize("place", [".compress-deploy.lock", "r/.incoming-x", ".incoming-x", ".m-abc", "r/2"])
def test_a_repository_with_links_loses_nothing(run: Path, tmp_path: Path, place: str, target: str) -> None:
    repository, outside = tmp_path / "repository", tmp_path / "outside"
    assert compress("package", run, "--out", repository, "--name", "r").exit_code == 0
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    (outside / "folder").mkdir()
    (outside / "folder" / "file").write_bytes(b"precious")
    before = tree(outside)
    with serving(repository) as world:
        (repository / place).symlink_to(outside / target)
        options = ["--data", "digits", "--repository", repository, "--url", world.url, "--timeout", "5", "--quiet"]
        done = compress("deploy", run, *options, "--name", "r")
        new = compress("package", run, "--out", repository, "--name", "m")
    assert tree(outside) == before
    assert done.exit_code in (0, 3), text(done)
    assert new.exit_code == 0, text(new)
