"""Only what a sigmoid or a softmax makes may be off by a runtime's own rounding, however small it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.export.exporting import export
from compress.export.file_comparison import compare
from compress.export.parity import ParityVerdict, channel_error
from compress.export.probabilities import probabilities


class Head(nn.Module):
    """A convolution and what makes its numbers small and not negative."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.convolution, self.last = nn.Conv2d(3, 4, 3, padding=1), last
        with torch.no_grad():
            self.convolution.weight.mul_(1e-3)

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.last(self.convolution(images))
        return made.flatten(2).transpose(1, 2)


@pytest.mark.parametrize(("last", "is_one"), [(nn.Sigmoid(), True), (nn.Softmax(1), True), (nn.ReLU(), False)])
def test_they_are_told_by_what_makes_them(last: nn.Module, is_one: bool, tmp_path: Path) -> None:
    path = export(Head(last).eval(), torch.randn(2, 3, 8, 8), tmp_path / "model.onnx", exporter="legacy").path
    assert bool(probabilities(path)) is is_one


class Detector(nn.Module):
    """Boxes in pixels and faint scores, in one output: as YOLO's heads give them."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes, self.scores = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        with torch.no_grad():
            self.scores.weight.mul_(0.01)
            self.scores.bias.copy_(torch.tensor([0.0, -12.0, -12.0, -12.0, -12.0]))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([640 * self.boxes(images).flatten(2), self.scores(images).flatten(2).sigmoid()], 1)


def test_scores_behind_boxes_are_probabilities_and_boxes_are_none(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images, model = torch.randn(8, 3, 8, 8), Detector().eval()
    path = export(model, images, tmp_path / "model.onnx", exporter="legacy").path
    (there,) = probabilities(path).values()
    assert there.shape == (1, 9, 1) and there.ravel().tolist() == [False] * 4 + [True] * 5
    assert compare(path, model, images).verdict is ParityVerdict.PASS
    with torch.no_grad():
        model.scores.bias[0] += 0.01
    assert compare(path, model, images).verdict is ParityVerdict.FAIL


def test_small_features_are_still_held_to_their_own_scale(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 8, 8)
    model = Head(nn.ReLU()).eval()
    with torch.no_grad():
        model.convolution.weight.mul_(1e-3)
        model.convolution.bias.mul_(1e-6)
    path = export(model, images, tmp_path / "model.onnx", exporter="legacy").path
    assert compare(path, model, images).verdict is ParityVerdict.PASS
    with torch.no_grad():
        model.convolution.weight[0] *= 1.01  # far below 5e-7, one hundredth of what that channel tells
    assert compare(path, model, images).verdict is ParityVerdict.FAIL


def test_an_error_within_the_least_is_none_and_one_beyond_is() -> None:
    wanted, got = np.zeros((2, 3)), np.full((2, 3), 4e-7)
    assert channel_error(wanted, got, least=5e-7)[0] == 0.0
    assert channel_error(wanted, got, least=3e-7)[0] == 1.0
    assert channel_error(wanted, got, least=np.array([[5e-7, 5e-7, 0.0]])) == (1.0, "[:, 2]")
