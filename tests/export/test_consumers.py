"""Runtimes that are not ours, and the example page in a real browser; `make consumers` sets them up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from compress_models import MODELS
from PIL import Image

from benchmarks.consumers import CONSUMERS, consume, facts
from compress.data import open_data
from compress.export.embedding import embed, pixels_of
from compress.export.exporting import export
from compress.export.interface import serving_facts
from compress.networks.checkpoint import load

pytestmark = pytest.mark.consumers
ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("CONSUMERS_PYTHON", str(ROOT / ".venv-consumers" / "bin" / "python"))
NODE = Path(os.environ.get("CONSUMERS_NODE", ROOT / ".node-consumers"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits-net as it is exported, and with its pre-processing inside."""
    folder, data = tmp_path_factory.mktemp("consumers"), open_data("digits")
    images = data.test.images(8)
    known = serving_facts(data.preprocessing, data.classes)
    export(
        load(ROOT / "models/checkpoints/digits-net.safetensors", zoo=MODELS).model,
        images[:2],
        folder / "net.onnx",
        metadata=known,
    )
    facts(folder, "net", images, {})
    pixels = pixels_of(images, data.preprocessing)
    embed(folder / "net.onnx", folder / "inside.onnx", pixels)
    facts(folder, "inside", pixels, {})
    return folder


@pytest.mark.parametrize("name", ["net", "inside"])
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_others_compute_the_same(consumer: str, name: str, files: Path) -> None:
    found = consume(consumer, files, name, PYTHON, NODE)
    assert found["verdict"] == "equal" and found["deviation"] < 1e-5, found


@pytest.fixture(scope="module")
def site(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    run, place = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("site")
    for name in ("base.onnx", "model.onnx"):
        (run / name).write_bytes((files / "net.onnx").read_bytes())
    runtime = NODE / "node_modules" / "onnxruntime-web" / "dist"
    subprocess.run([sys.executable, ROOT / "examples/browser/prepare.py", run, runtime, place], check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(place)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", place
    server.shutdown()
    server.server_close()


def on_the_page(url: str, file: Path, screenshot: Path) -> dict[str, object]:
    command = ["node", str(ROOT / "tests/browser/page.cjs"), url, str(file), str(screenshot)]
    env = os.environ | {"NODE_PATH": str(NODE / "node_modules")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_page_answers_as_onnx_runtime_does(site: tuple[str, Path], files: Path, tmp_path: Path) -> None:
    pixels = np.fromfile(files / "inside.input.bin", np.uint8).reshape(-1, 8, 8)[0]
    wanted = np.fromfile(files / "inside.expected.bin", np.float32).reshape(-1, 10)[0]
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    said = on_the_page(site[0], tmp_path / "digit.png", tmp_path / "page.png")
    assert not said["errors"] and str(said["verdict"]).startswith("the same answer")
    for name in ("base", "model"):
        part = said[name]
        assert isinstance(part, dict) and part["latency"].endswith("ms")
        assert part["rows"][0] == [str(wanted.argmax()), f"{100 * wanted.max():.1f} %"]
    assert (tmp_path / "page.png").stat().st_size > 5000


def test_the_page_says_what_is_no_image(site: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("not an image")
    assert "no image" in str(on_the_page(site[0], tmp_path / "no.png", tmp_path / "page.png")["verdict"])
