"""An output's channels of very different sizes: each of them counts, and float noise does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from support.nets import block, head
from torch import Tensor, nn

from compress.errors import ParityError
from compress.evaluation.output_error import balanced, output_error, relative
from compress.export import ParityVerdict, convert, export_verified
from compress.export.file_comparison import compare

CHANNELS = 6
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "second": lambda y: y, "last": lambda y: y.movedim(1, -1), "flat, last": lambda y: y.flatten(2).transpose(1, 2),
    "vector": lambda y: y.mean((2, 3)),
}  # fmt: skip


class Scaled(nn.Module):
    """Boxes of hundreds beside scores of thousandths, in one tensor."""

    def __init__(self, seed: int, layout: str) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.head, self.layout = block(3, 8), nn.Conv2d(8, CHANNELS, 1), layout
        self.scales = nn.Parameter(10 ** (torch.rand(1, CHANNELS, 1, 1) * 10 - 5))

    def forward(self, x: Tensor) -> Tensor:
        return LAYOUTS[self.layout](self.head(self.a(x)) * self.scales)


def images(seed: int = 0) -> Tensor:
    return torch.randn(8, 3, 6, 5, generator=torch.Generator().manual_seed(seed))


def with_scales(path: Path, to: Path, change: Callable[[np.ndarray], None]) -> Path:
    """A copy of a file whose scales are others."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "scales":
            array = numpy_helper.to_array(tensor).copy()
            change(array)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
            break
    else:
        raise AssertionError([t.name for t in model.graph.initializer])
    to.write_bytes(model.SerializeToString())
    return to


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.0, 0.99, 1.002, -1.0]))
@settings(max_examples=3, deadline=None)
def test_one_wrong_channel_fails_whatever_stands_beside_it(
    layout: str, seed: int, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, model = tmp_path_factory.mktemp("m"), Scaled(seed, layout).eval()
    _, parity = export_verified(model, images(seed), folder / "m.onnx", exporter="legacy")
    assert parity.verdict is ParityVerdict.PASS, parity.message
    for channel in range(CHANNELS):

        def change(scales: np.ndarray, channel: int = channel) -> None:
            scales[0, channel] *= share

        wrong = with_scales(folder / "m.onnx", folder / "wrong.onnx", change)
        found = compare(wrong, model, images(seed))
        assert found.verdict is ParityVerdict.FAIL, (channel, found.message)
        half = compare(wrong, folder / "m.onnx", images(seed), tolerance=5e-3, warn=5e-3)
        assert half.verdict is ParityVerdict.FAIL or share in (0.99, 1.002), (channel, half.message)


class Cancelling(nn.Module):
    """Channels that are nothing but the rounding of a difference of equals."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.a, self.b, self.large = block(3, 8), nn.Conv2d(8, 4, 1), large

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        return torch.cat([y, (y + self.large) - self.large], 1)


@pytest.mark.parametrize("large", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_float_noise_passes(large: float, seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    for number, model in enumerate((Cancelling(large).eval(), nn.Sequential(block(3, 8), head(8, 200)).eval())):
        _, parity = export_verified(model, images(seed), tmp_path / f"{number}.onnx", exporter="legacy")
        assert parity.verdict is ParityVerdict.PASS, parity.message


@pytest.mark.parametrize("seed", range(2))
def test_half_precision_of_every_channel_passes(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(block(3, 8), block(8, 8), nn.Conv2d(8, 6, 1)).eval()
    export_verified(model, images(seed), tmp_path / "m.onnx", exporter="legacy")
    found = convert(tmp_path / "m.onnx", tmp_path / "m.fp16.onnx", "fp16", None, inputs=images(seed))
    assert found.verdict in (ParityVerdict.PASS, ParityVerdict.INCONCLUSIVE), found.message


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_a_search_sees_every_channel(layout: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scales = 10 ** (torch.rand(1, CHANNELS, 1, 1, generator=generator) * 10 - 5)
    wanted = torch.randn(8, CHANNELS, 4, 5, generator=generator) * scales
    for channel in range(CHANNELS):
        got = wanted.clone()
        got[:, channel] = got[:, channel].mean()
        whole, wrong = LAYOUTS[layout](wanted), LAYOUTS[layout](got)
        if layout == "vector":
            assert output_error([whole], [wrong]) == relative(whole, wrong)  # one table of logits: as it always was
            continue
        assert balanced(whole, wrong) > 0.5 / CHANNELS
    assert output_error([wanted, wanted[:, :, 0, 0]], [wanted, wanted[:, :, 0, 0]]) == 0


def test_a_wrong_file_is_not_left(tmp_path: Path, monkeypatch: Any) -> None:
    from compress.export import exporting

    model, canonicalise = Scaled(0, "second").eval(), exporting.canonicalise

    def spoil(proto: onnx.ModelProto, **more: Any) -> None:
        canonicalise(proto, **more)
        tensor = next(t for t in proto.graph.initializer if t.name == "scales")
        array = numpy_helper.to_array(tensor).copy()
        array[0, int(np.abs(array).argmin())] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, "scales"))

    monkeypatch.setattr(exporting, "canonicalise", spoil)
    with pytest.raises(ParityError, match="computes something else"):
        export_verified(model, images(), tmp_path / "m.onnx", exporter="legacy")
    assert not list(tmp_path.iterdir())
