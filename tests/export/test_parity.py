from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from compress.errors import ExportError, ModelError, ParityError
from compress.export import verified_export
from compress.export.exporting import export
from compress.export.file_comparison import compare
from compress.export.parity import ParityVerdict, judge
from compress.export.verified_export import export_verified


def net() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )
    return made.eval()


class Outputs(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.a, self.b, self.kind = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 3), kind

    def forward(self, x: Tensor) -> object:
        a, b = self.a(x).flatten(2).sum(-1), self.b(x).flatten(2).sum(-1)
        return {"zeta": a, "alpha": b} if self.kind == "dict" else (a, b)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> Path:
    path = tmp_path_factory.mktemp("parity") / "net.onnx"
    export(net(), images, path, exporter="legacy")
    return path


def scale(weight: np.ndarray) -> None:
    weight[3] *= 1.01


def swap(weight: np.ndarray) -> None:
    weight[[0, 1]] = weight[[1, 0]]


def spoil(weight: np.ndarray) -> None:
    weight.flat[0] = np.nan


def nothing(weight: np.ndarray) -> None:
    pass


def damaged(path: Path, to: Path, change: Callable[[np.ndarray], None], name: str = "2.weight") -> Path:
    model = onnx.load(path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    weight = numpy_helper.to_array(tensor).copy()
    change(weight)
    tensor.CopyFrom(numpy_helper.from_array(weight, name))
    onnx.save(model, to)
    return to


@pytest.mark.parametrize(
    ("change", "verdict"),
    [(nothing, ParityVerdict.PASS), (scale, ParityVerdict.FAIL), (swap, ParityVerdict.FAIL), (spoil, ParityVerdict.FAIL)],
)
def test_what_was_done_to_a_weight_is_seen(
    change: Callable[[np.ndarray], None], verdict: ParityVerdict, exported: Path, images: Tensor, tmp_path: Path
) -> None:
    found = compare(damaged(exported, tmp_path / "damaged.onnx", change), net(), images)
    assert found.verdict is verdict, found.message
    if verdict is ParityVerdict.PASS:
        assert found.error < 2e-6 and found.discrimination > 1e4 and found.batches == (1, 2, 5)


def test_a_network_that_ignores_its_input_is_inconclusive_and_kept(images: Tensor, tmp_path: Path) -> None:
    constant = net()
    with torch.no_grad():
        constant[5].weight.zero_()
    written, found = export_verified(constant, images, tmp_path / "net.onnx", exporter="legacy")
    assert found.verdict is ParityVerdict.INCONCLUSIVE and "any file would pass" in found.message
    assert written.path.exists() and [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_one_image_repeated_says_nothing(exported: Path, images: Tensor) -> None:
    assert compare(exported, net(), images[:1]).verdict is ParityVerdict.INCONCLUSIVE
    assert compare(exported, net(), images[:1].repeat(8, 1, 1, 1)).verdict is ParityVerdict.INCONCLUSIVE
    with pytest.raises(ExportError, match="no images"):
        compare(exported, net(), images[:0])


def test_spread_counts_every_image_once(exported: Path, images: Tensor) -> None:
    """Four images fill eight places: their repetitions may not pull the spread down."""
    with torch.no_grad():
        rows = net()(images[:4]).double()
    apart = [float((rows[i] - rows[j]).abs().max()) for i in range(4) for j in range(i)]
    assert compare(exported, net(), images[:4]).spread == pytest.approx(np.median(apart) / float(rows.abs().max()), rel=1e-4)


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_every_output_is_compared(kind: str, exporter: str, images: Tensor, tmp_path: Path) -> None:
    model = Outputs(kind).eval()
    export_verified(model, images, tmp_path / "net.onnx", exporter=exporter)
    with torch.no_grad():
        model.b.weight[0, 0, 0, 0] += 0.1  # only the second output sees it
    found = compare(tmp_path / "net.onnx", model, images)
    assert found.verdict is ParityVerdict.FAIL and ("alpha" if kind == "dict" else "output_1") in found.message


def test_another_network_altogether(exported: Path, images: Tensor) -> None:
    found = compare(exported, nn.Sequential(nn.Flatten(), nn.Linear(192, 7)).eval(), images)
    assert found.verdict is ParityVerdict.FAIL and "[1, 5] in the file and [1, 7] in the network" in found.message
    with pytest.raises(ModelError, match="training mode"):
        compare(exported, net().train(), images)


def test_failed_parity_leaves_nothing_and_tries_the_other_exporter(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter whose file runs but is wrong: the older one's turn; both wrong: no file."""
    real, wrong = verified_export.export, {"legacy", "dynamo"}

    def broken(model: nn.Module, example: Tensor, path: Path, **options: object) -> object:
        choice = options["exporter"]
        written = real(model, example, path, **(options | {"exporter": "legacy"}))  # type: ignore[arg-type]
        if choice in wrong:
            damaged(path, path, scale)
        return written

    monkeypatch.setattr(verified_export, "export", broken)
    with pytest.raises(ParityError, match="computes something else") as caught:
        export_verified(net(), images, tmp_path / "net.onnx")
    assert caught.value.exit_code == 4 and not list(tmp_path.iterdir())
    wrong.remove("legacy")
    written, found = export_verified(net(), images, tmp_path / "net.onnx")
    assert (
        found.verdict is ParityVerdict.PASS and "dynamo exporter: the ONNX file computes something else" in written.warnings[0]
    )


def test_an_older_good_file_survives_a_failed_export(images: Tensor, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("the last good one")
    with pytest.raises(ExportError):
        export_verified(net().train(), images, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_text() == "the last good one"


positive = st.floats(1e-12, 1e3)


@given(error=positive, spread=positive)
def test_verdicts_follow_the_two_numbers(error: float, spread: float) -> None:
    found = judge([("y", error, spread)])
    if error > 1e-4:
        assert found.verdict is ParityVerdict.FAIL
    elif spread / error < 100:
        assert found.verdict is ParityVerdict.INCONCLUSIVE
    else:
        assert found.verdict is (ParityVerdict.WARN if error > 1e-5 else ParityVerdict.PASS)
    assert error <= found.would_pass_at * (1 + 1e-6) and found.would_pass_at <= 2 * error
    assert judge([("y", error, spread)], tolerance=found.would_pass_at * 1.001, warn=1e4).verdict is not ParityVerdict.WARN


@given(st.lists(st.tuples(st.just("y"), positive, positive), min_size=1, max_size=4))
def test_the_worst_output_decides(outputs: list[tuple[str, float, float]]) -> None:
    order = [ParityVerdict.PASS, ParityVerdict.WARN, ParityVerdict.INCONCLUSIVE, ParityVerdict.FAIL]
    worst = max((judge([output]).verdict for output in outputs), key=order.index)
    assert judge(outputs).verdict is worst
    assert judge([*outputs, ("nan", math.nan, 1.0)]).verdict is ParityVerdict.FAIL
