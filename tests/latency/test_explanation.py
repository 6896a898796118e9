from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compress_cli.app import app
from torch import nn
from typer.testing import CliRunner

from compress.core.cost import count
from compress.core.environment import capture
from compress.coupling.tracer import trace
from compress.export.exporting import export
from compress.latency.explanation import Explained, LayerTiming, block, changes, explain, outweighed, summarise
from compress.latency.layer_shapes import widths
from compress.latency.profiling import KernelTime, Profile, profile, read_graph


def net(wide: int, hidden: int) -> nn.Module:
    """Dense, depthwise, dense, linear; all channel counts are given."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(),
        nn.Conv2d(wide, wide, 3, padding=1, groups=wide), nn.ReLU(),
        nn.Conv2d(wide, hidden, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden, 10),
    )  # fmt: skip
    return nn.Sequential(*layers).eval()


SHAPES = {"even": (64, 32), "odd": (51, 27)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("explain")
    example = torch.randn(2, 3, 32, 32)
    return {n: export(net(*s), example, folder / f"{n}.onnx", exporter="legacy").path for n, s in SHAPES.items()}


@pytest.fixture(scope="module")
def explained(files: dict[str, Path]) -> dict[str, Explained]:
    found = [(profile(path, seconds=0.5, batch=2), read_graph(path)) for path in files.values()]
    return dict(zip(files, explain(found), strict=True))


@pytest.mark.parametrize("name", SHAPES)
def test_widths_are_the_networks_own(name: str, files: dict[str, Path]) -> None:
    wide, hidden = SHAPES[name]
    found = widths(read_graph(files[name]))
    assert {module: (held.inputs, held.outputs, held.cardinality) for module, held in found.items()} == {
        "0": (3, wide, 1), "3": (wide, wide, wide), "5": (wide, hidden, 1), "9": (hidden, 10, 1),
    }  # fmt: skip
    assert [held.depthwise for held in found.values()] == [False, True, False, False]
    assert found["5"].weights == wide * hidden and found["5"].itemsize == 4


def test_modules_inside_each_other_keep_their_names(tmp_path: Path) -> None:
    """The older exporter repeats, in a member of a Sequential, the name of what holds it."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inner = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), nn.Conv2d(4, 4, 1))
            self.features = nn.Sequential(nn.Sequential(inner), nn.Conv2d(4, 5, 1))
            self.head = nn.Conv2d(5, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.features(x))

    path = export(Outer().eval(), torch.randn(2, 3, 8, 8), tmp_path / "n.onnx", exporter="legacy").path
    assert list(widths(read_graph(path))) == ["features.0.0.0.0", "features.0.0.1", "features.1", "head"]


@pytest.mark.parametrize("name", SHAPES)
def test_macs_are_those_of_the_real_channels(name: str, explained: dict[str, Explained]) -> None:
    """Whatever the kernels pad: twice what ``count`` says of one image, for a batch of two."""
    assert explained[name].macs == 2 * count(trace(net(*SHAPES[name]), torch.randn(1, 3, 32, 32))).macs
    layers = explained[name].layers
    assert sum(layer.share for layer in layers) == pytest.approx(1.0)
    assert all(layer.compute <= explained[name].best_compute * 1.001 for layer in layers if layer.seconds > 1e-5)
    assert all(layer.why or layer.binds == "layout" for layer in layers)


def test_a_lost_kernel_is_told_from_a_kept_one(explained: dict[str, Explained]) -> None:
    """51 channels fit no block of any machine; 64 fit every one. It holds where there are such kernels at all."""
    even, odd = ({layer.name: layer for layer in explained[name].layers} for name in ("even", "odd"))
    if not even["3"].blocked:
        pytest.skip("this processor has no blocked kernels")
    assert even["3"].binds in {"memory", "compute", "launch"} and even["3"].padding == 0.0
    assert odd["3"].binds == "alignment" and "51 channels" in odd["3"].why and not odd["3"].blocked
    told = summarise(explained["even"], explained["odd"])
    assert "fewer MACs" in told[0]


def layer(name: str, seconds: float, macs: int, **more: object) -> LayerTiming:
    given: dict[str, object] = {
        "name": name, "op": "Conv", "seconds": seconds, "share": 0.5, "widths": None, "macs": macs, "padding": 0.0,
        "activations": 1, "compute": macs / seconds, "traffic": 1.0, "blocked": True, "binds": "compute", "cause": "c",
    }  # fmt: skip
    return LayerTiming(**(given | more))  # type: ignore[arg-type]


def file(*layers: LayerTiming) -> Explained:
    empty = Profile("f", "ort-cpu", 1, (3, 4, 4), 1, 0.1, (), False, "", capture(threads=1))
    return Explained("f", empty, layers, 1.0, 1.0, 16)


def test_the_excess_is_what_the_macs_did_not_promise() -> None:
    before = file(layer("a", 4.0, 100), layer("b", 2.0, 100), layer("gone", 1.0, 0))
    after = file(
        layer("a", 2.0, 50), layer("b", 3.0, 50, binds="alignment", cause="lost"), layer("new", 0.5, 0, binds="layout")
    )
    found = {change.name: change for change in changes(before, after)}
    assert list(found) == ["a", "b", "gone", "new"]
    assert {name: change.excess for name, change in found.items()} == {"a": 0.0, "b": 2.0, "gone": 0.0, "new": 0.5}
    assert found["gone"].after is None and found["new"].before is None
    first, *causes = summarise(before, after)
    assert "1.27x the speed for 2.00x fewer MACs" in first and "3500.00 ms" in first
    assert causes[0].startswith("2000.00 ms of the 2000.00 ms beyond that: alignment, lost")
    assert summarise(before, before) == (summarise(before, before)[0],)
    # Beside a measured latency: shares, and no time or speed-up of the profiler's.
    said = outweighed(before, after)
    assert [line.partition(" of ")[0] for line in said] == ["80 %", "20 %"]
    assert said[0].startswith("80 % of the time beyond what the MACs promise: alignment, lost (1 row,")
    assert not any(" ms" in line or "x " in line.replace("GMAC/s", "") for line in said)
    assert outweighed(before, before) == ("no layer takes longer than its own MACs promise",)


def kernel(op: str = "Conv", **more: object) -> KernelTime:
    given: dict[str, object] = {
        "name": "k", "op": op, "module": "m", "layout": False, "blocked": True, "seconds": 1e-3, "share": 1.0,
        "inputs": ((1, 16, 4, 4), (16, 16, 1, 1)), "output": (1, 16, 4, 4), "activations": 256, "read": 1024, "weights": 1024,
        "written": 1024, "macs": 4096,
    }  # fmt: skip
    return KernelTime(**(given | more))  # type: ignore[arg-type]


def test_what_binds_is_what_a_layer_comes_closer_to(files: dict[str, Path]) -> None:
    busy = kernel(module="busy", macs=10**9)
    streaming = kernel(module="streaming", macs=1, written=10**9)
    short = kernel("Relu", module="", name="r", seconds=2e-6, macs=0)
    moved = kernel("ReorderInput", module="", name="o", seconds=5e-3, macs=0, layout=True)
    one = Profile("f", "ort-cpu", 1, (3, 4, 4), 9, 0.1, (busy, streaming, short, moved), False, "", capture(threads=1))
    (found,) = explain([(one, read_graph(files["even"]))])
    assert {layer.name: layer.binds for layer in found.layers} == {
        "busy": "compute", "streaming": "memory", "(Relu)": "launch", "(ReorderInput)": "layout",
    }  # fmt: skip
    assert json.dumps(found.to_json())


def test_the_block_is_the_processors() -> None:
    here = Profile("f", "ort-cpu", 1, (3, 4, 4), 1, 0.1, (), False, "", capture(threads=1))
    for flags, wanted in ((("avx512f", "avx2"), 16), (("avx2",), 8), (("asimd",), 16)):
        assert block(replace(here, environment=replace(here.environment, flags=flags))) == wanted


def test_the_command_sets_both_side_by_side(files: dict[str, Path], tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        ended = CliRunner().invoke(app, ["profile", *arguments, "--seconds", "0.05"])
        return ended.exit_code, ended.stdout, ended.stderr

    both = (str(files["even"]), str(files["odd"]))
    code, shown, _ = run(*both, "--out", str(tmp_path / "p.json"))
    assert code == 0 and "64 dw" in shown and "51 dw" in shown and "fewer MACs" in shown
    facts = json.loads((tmp_path / "p.json").read_text())
    assert [entry["file"] for entry in facts["files"]] == ["even.onnx", "odd.onnx"] and facts["summary"]
    code, shown, _ = run(*both, "--markdown", "--top", "0")
    assert code == 0 and "| 3 | 64 dw → 51 dw |" in shown
    code, shown, _ = run(str(files["even"]), "--json")
    assert code == 0 and json.loads(shown)["files"][0]["layers"]
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    for arguments, said in (
        ((str(tmp_path / "bad.onnx"),), "is no ONNX file"),
        ((str(files["even"]), "nowhere.onnx"), "nowhere.onnx"),
        ((str(files["even"]), "--runtime", "abacus"), "no runtime is called"),
    ):
        code, shown, complaint = run(*arguments, "--out", str(tmp_path / "q.json"))
        assert code == 3 and said in complaint and "hint" in complaint and not (tmp_path / "q.json").exists()


def test_a_transposed_convolution_whose_weight_is_packed_is_counted_by_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False)
    up = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), wide, nn.Conv2d(4, 2, 1)).eval()
    path = export(up, torch.randn(2, 3, 12, 12), tmp_path / "up.onnx", exporter="legacy").path
    (told,) = explain([(profile(path, seconds=0.05, batch=2), read_graph(path))])
    assert told.macs == 2 * count(trace(up, torch.zeros(1, 3, 12, 12))).macs
