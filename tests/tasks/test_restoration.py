"""An image for an image: what PSNR is, what bounds the RMSE, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.dense_nets import Pixels, squares, trained
from torch import Tensor, nn

from compress.errors import TaskError
from compress.tasks import Restoration, task_named
from compress.tasks.restoration import PSNR, RMSE


class Given(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images


def test_a_case_by_hand() -> None:
    targets = torch.zeros(2, 1, 2, 2)
    said = torch.stack((torch.full((1, 2, 2), 0.1), torch.full((1, 2, 2), 0.01)))
    found = Restoration().score(Given(), [(said[:1], targets[:1]), (said[1:], targets[1:])])
    assert found[PSNR.name].value == pytest.approx((20 + 40) / 2, abs=1e-4)
    assert found[RMSE.name].value == pytest.approx(math.sqrt((0.01 + 0.0001) / 2), rel=1e-5)
    assert found[PSNR.name].images == 2
    exact = Restoration().score(Given(), [(targets, targets)])
    assert exact[PSNR.name].value == 100
    scaled = Restoration(range=255.0).score(Given(), [(255 * said, 255 * targets)])
    assert scaled[PSNR.name].value == pytest.approx(30, abs=1e-4)


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 2))
def test_what_answers_change_by_bounds_the_rise_of_the_rmse(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth, said, noise = (torch.rand(5, 3, 4, 4, generator=generator) for _ in range(3))
    after, task = said + scale * (noise - 0.5), Restoration()
    before, now = (task.score(Given(), [(each, truth)])[RMSE.name].value for each in (said, after))
    assert now - before <= float(task.change(after, said).mean()) ** 0.5 + 1e-6
    exact = task.score(Given(), [(after, said)])[RMSE.name].value  # of a network without errors the bound is the truth
    assert exact == pytest.approx(float(task.change(after, said).mean()) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("distance", ["L1", "L2"])
def test_a_tiny_network_takes_noise_away(distance: str) -> None:
    clean = squares(48)[0].clamp(0, 1)
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    task, model = task_named(f"restoration:distance={distance}"), Pixels(3)
    held = [(noisy[32:], clean[32:])]
    start = task.score(Given(), held)[PSNR.name].value
    trained(model, task, list(zip(noisy[:32].split(16), clean[:32].split(16), strict=True)), 60)
    found = task.score(model, held)[PSNR.name]
    assert found.value > start + 2 and found.low <= found.value <= found.high
    assert task.error(model, held, found.value + 1.5) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("raw", "targets", "message", "cure"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3), "images .* are wanted", "outputs"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4), r"\(2, 3, 4, 4\)", "shape"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "uint8", "float"),
        (torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 200.0), "run from 200 to 200", "range=255"),
        (torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), math.nan), "nan", "scale"),
    ],
)
def test_targets_that_cannot_be_are_refused(raw: Tensor, targets: Tensor, message: str, cure: str) -> None:
    task = Restoration()
    for look in (lambda: task.check(raw, (raw, targets)), lambda: task.score(nn.Identity(), [(raw, targets)])):
        with pytest.raises(TaskError, match=message) as caught:
            look()
        assert cure in caught.value.hint
