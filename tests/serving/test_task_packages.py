"""Networks that name no classes, packaged and deployed: every output as the file has it, no labels, no softmax on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import compress
from support.dense_nets import CLASSES, DETECTORS, SIDE, Pixels, squares
from support.tasked import network
from support.v2server import serving

from compress.data import Preprocessing
from compress.errors import ExportError
from compress.export import export, read_interface, serving_facts
from compress.serving import Client, Serving, package, triton
from compress.tasks import DenseDetector

PLAIN = Preprocessing((0.5,) * 3, (0.25,) * 3, (SIDE, SIDE))
TASKS = ("segmentation:void=9", "regression:unit=px", "detection")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each task a file that says what it is of."""
    torch.manual_seed(0)
    nets: dict[str, tuple[Any, tuple[int, ...]]] = {
        TASKS[0]: (Pixels(), (3, SIDE, SIDE)),
        TASKS[1]: (network(2), (1, 12, 12)),
        TASKS[2]: (DenseDetector(DETECTORS["fcos"](), (SIDE, SIDE)), (3, SIDE, SIDE)),
    }
    made, folder = {}, tmp_path_factory.mktemp("files")
    for task, (model, shape) in nets.items():
        file = folder / f"{task.partition(':')[0]}.onnx"
        facts = serving_facts(PLAIN if shape[0] == 3 else Preprocessing((0.5,), (0.5,), shape[1:]))
        export(model.eval(), torch.randn(2, *shape), file, metadata={"task": task, **facts}, exporter="legacy")
        made[task] = file
    return made


@pytest.mark.parametrize("task", TASKS)
def test_every_server_gets_all_outputs_and_no_labels(task: str, files: dict[str, Path], tmp_path: Path) -> None:
    interface = read_interface(files[task])
    for server in ("triton", "mlserver", "kserve"):
        made = package(files[task], tmp_path / server, server)  # type: ignore[arg-type]
        assert not made.notes and "labels.txt" not in made.files
    config = triton.parse(tmp_path / "triton" / files[task].stem / "config.pbtxt")
    assert {(o.name, tuple(o.dims)) for o in config.output} == {(o.name, o.row) for o in interface.outputs}
    said = compress("package", files[task], "--embed-preprocessing", "--out", tmp_path / "e")
    assert said.exit_code == 3 and f"of the task {task.partition(':')[0]}" in said.output and "random pixels" not in said.output


def test_a_map_of_classes_may_name_them(files: dict[str, Path], tmp_path: Path) -> None:
    """They lie behind the batch, and Triton's labels are of rows of numbers only."""
    names = ("nothing", "red", "green")
    made = package(files[TASKS[0]], tmp_path / "a", "triton", classes=names)
    assert (made.folder / "labels.txt").read_text().splitlines() == list(names)
    assert all(not o.label_filename for o in triton.parse(made.folder / "config.pbtxt").output)
    with pytest.raises(ExportError, match=f"{SIDE} class names for {CLASSES} outputs"):
        package(files[TASKS[0]], tmp_path / "b", "triton", classes=[str(i) for i in range(SIDE)])


def masked(folder: Path) -> Path:
    """Pictures and masks."""
    images, masks, _ = squares(40)
    for kind, arrays in (("images", ((images.clamp(-1, 1) + 1) * 127).byte().permute(0, 2, 3, 1)), ("masks", masks.byte())):
        (folder / kind).mkdir(parents=True)
        for number, array in enumerate(arrays):
            Image.fromarray(array.numpy()).save(folder / kind / f"{number}.png")
    return folder


def sorted_(folder: Path) -> Path:
    """Grey pictures in folders of three classes."""
    for number, picture in enumerate(np.random.default_rng(0).integers(0, 256, (42, 12, 12), dtype=np.uint8)):
        (folder / "abc"[number % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / "abc"[number % 3] / f"{number}.png")
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_a_deployment_compares_all_outputs(task: str, files: dict[str, Path], tmp_path: Path) -> None:
    """On images whatever they are answered with: masks, three classes where two numbers are answered, or nothing but noise."""
    repository, data = tmp_path / "repository", {TASKS[0]: masked, TASKS[1]: sorted_}.get(task)
    repository.mkdir()
    shown = [] if data is None else ["--data", data(tmp_path / "data")]
    with serving(repository) as world:
        done = compress("deploy", files[task], "--repository", repository, "--url", world.url, *shown, "-q")
        assert done.exit_code == 0 and "bit for bit" in done.output, done.output
        name, interface = files[task].stem, read_interface(files[task])
        row = np.zeros((3, *interface.inputs[0].row), np.float32)
        with Client(world.url, timeout=5) as client:
            answer = client.infer(name, {interface.inputs[0].name: row})
    assert {n: a.shape for n, a in answer.outputs.items()} == {o.name: (3, *o.row) for o in interface.outputs}
    assert Serving().max_batch >= 3
