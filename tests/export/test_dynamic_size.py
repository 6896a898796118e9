"""Heights and widths left open: proven at a second size, or refused, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.covering import in_turns
from support.interfaces import Shared, image, statistics
from support.nets import block, conv, head
from torch import Tensor, nn
from torch.nn import functional as F

from compress import network_of
from compress.errors import CompressError, ExportError
from compress.export import ParityVerdict, export_verified, read_interface


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.up, self.out = block(3, 8), block(8, 8), nn.ConvTranspose2d(8, 8, 2, 2), conv(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return self.out(torch.cat([a, self.up(self.b(F.max_pool2d(a, 2)))], 1))


class Upscaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.tail = block(3, 8), nn.Sequential(conv(8, 12), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.a(x)) + F.interpolate(x, scale_factor=2, mode="bilinear")


class Resized(nn.Module):
    """Back to the input's own size, which the code reads off the input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = block(3, 8, stride=2), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.b(self.a(x)), size=x.shape[2:], mode="nearest")


class Positions(nn.Module):
    """A table of one size is added."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.table = block(3, 8), conv(8, 2), nn.Parameter(torch.randn(1, 8, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) + self.table)


class Constant(nn.Module):
    """What the code computes from the size with numbers of Python, where it is traced, stays that number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = block(3, 8), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) * torch.tensor(float(np.sqrt(int(x.shape[2]) * int(x.shape[3]))))


def flat() -> nn.Module:
    return nn.Sequential(block(3, 8), nn.Flatten(), nn.Linear(512, 3))


def small_image(size: int = 8) -> Tensor:
    return torch.randn(10, 3, size, size, generator=torch.Generator().manual_seed(0))


OPEN: dict[str, Callable[[], nn.Module]] = {
    "segmentation": UNet, "super-resolution": Upscaled, "resized": Resized,
    "pooled": lambda: nn.Sequential(block(3, 8), head(8)),
}  # fmt: skip


@pytest.mark.parametrize("exporter", ["legacy", "dynamo", pytest.param("auto", marks=pytest.mark.slow)])
@in_turns(OPEN, of=2, turn=0)
def test_what_takes_any_size_is_written_for_any(name: str, exporter: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, file = statistics(OPEN[name]()), tmp_path / "m.onnx"
    try:
        _, parity = export_verified(model, small_image(), file, exporter=exporter, dynamic_size=True)
    except CompressError:
        assert exporter != "auto" and not file.exists()  # one of the two may not be able to; it says so and leaves nothing
        return
    assert parity.verdict is ParityVerdict.PASS and "at 12x10" in parity.message
    assert read_interface(file).inputs[0].dims == (-1, 3, -1, -1)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for size in ((8, 8), (10, 6), (16, 24)):
        x = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], model(x).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("make", "said"),
    [(flat, "takes no other size"), (Positions, "takes no other size"), (lambda: nn.Sequential(nn.Flatten(2), nn.Flatten(),
     nn.Linear(192, 3)), "takes no other size")],
)  # fmt: skip
@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_what_takes_one_size_is_refused_with_the_reason(
    make: Callable[[], nn.Module], said: str, exporter: Any, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as caught:
        export_verified(statistics(make()), small_image(), tmp_path / "m.onnx", exporter=exporter, dynamic_size=True)
    assert said in caught.value.message and "leave --dynamic-size out" in caught.value.hint
    assert not list(tmp_path.iterdir())
    export_verified(statistics(make()), small_image(), tmp_path / "m.onnx", exporter="legacy")  # the cure works


def test_a_size_that_tracing_froze_is_found_by_the_second_size(tmp_path: Path) -> None:
    with pytest.raises(CompressError) as caught:
        export_verified(statistics(Constant()), small_image(), tmp_path / "m.onnx", exporter="legacy", dynamic_size=True)
    assert "12x10" in caught.value.message and not list(tmp_path.iterdir())
    export_verified(statistics(Constant()), small_image(), tmp_path / "m.onnx", exporter="legacy")


def test_two_images_of_any_size(tmp_path: Path) -> None:
    network, file = network_of(statistics(Shared()), example=(image(), image())), tmp_path / "m.onnx"
    assert network.signature is not None
    export_verified(network.model, network.signature.rows(10), file, exporter="legacy", dynamic_size=True)
    assert [port.dims for port in read_interface(file).inputs] == [(-1, 3, -1, -1)] * 2


def test_sizes_stay_fixed_unless_they_are_asked_to_be_open(tmp_path: Path) -> None:
    export_verified(statistics(UNet()), small_image(), tmp_path / "m.onnx", exporter="legacy")
    metadata = {p.key for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert read_interface(tmp_path / "m.onnx").inputs[0].dims == (-1, 3, 8, 8) and "inputs" not in metadata
