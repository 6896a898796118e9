"""A class for every pixel: what mIoU is, what bounds what, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.dense_nets import CLASSES, Pixels, squares, trained
from torch import Tensor, nn

from compress.core import resampled
from compress.errors import TaskError
from compress.tasks import Segmentation, task_named
from compress.tasks.segmentation import MIOU, PIXEL_ACCURACY


class Saying(nn.Module):
    """Answers with given classes, whatever it is shown."""

    def __init__(self, classes: Tensor, count: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.said = 5.0 * nn.functional.one_hot(classes, count).permute(0, 3, 1, 2).float()
        self.start = 0

    def forward(self, images: Tensor) -> Tensor:
        self.start += len(images)
        return self.scale * self.said[self.start - len(images) : self.start]


def score(said: Tensor, truth: Tensor, classes: int, batch: int = 4, **how: Any) -> Any:
    batches = [(torch.zeros(len(t), 3, 2, 2), t) for t in truth.split(batch)]
    return Segmentation(**how).score(Saying(said, classes), batches)


def test_a_case_by_hand() -> None:
    """Two images of four pixels; the last pixel of the first is void."""
    truth = torch.tensor([[[0, 0], [1, 255]], [[1, 1], [0, 2]]])
    said = torch.tensor([[[0, 1], [1, 0]], [[1, 0], [0, 2]]])
    found = score(said, truth, 4)
    # class 0: 2 of 4 (one missed, one wrong); class 1: 2 of 4; class 2: 1 of 1; class 3 does not occur
    assert found[MIOU.name].value == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert found[PIXEL_ACCURACY.name].value == pytest.approx((0.75 + 0.75) / 2)
    assert found[MIOU.name].images == 2


@given(seed=st.integers(0, 1000), void=st.sampled_from([255, 0, 5]))
def test_the_score_is_torchmetrics_and_the_interval_is_of_images(seed: int, void: int) -> None:
    from torchmetrics.classification import MulticlassJaccardIndex

    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 5, (12, 6, 6), generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = void
    said = torch.where(
        torch.rand(truth.shape, generator=generator) < 0.6, truth % 5, torch.randint(0, 5, truth.shape, generator=generator)
    )
    found = score(said, truth, 5, void=void)[MIOU.name]
    metric = MulticlassJaccardIndex(5, ignore_index=void)
    metric.update(said, truth)
    assert found.value == pytest.approx(float(metric.compute()), abs=1e-6)
    assert found.per_image is not None and found.low <= found.value <= found.high
    assert (found.low, found.high) == resampled(found.per_image, Segmentation().pooled)


@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_changed_pixels_bound_the_loss_of_pixel_accuracy(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth, said, noise = (torch.randint(0, 3, (6, 5, 5), generator=generator) for _ in range(3))
    truth[torch.rand(truth.shape, generator=generator) < 0.3] = 255
    after = torch.where(torch.rand(truth.shape, generator=generator) < share, noise, said)
    task = Segmentation()
    before, now = (score(each, truth, 3)[PIXEL_ACCURACY.name].value for each in (said, after))
    change = task.change(Saying(after, 3)(torch.zeros(6)), Saying(said, 3)(torch.zeros(6)))
    assert abs(before - now) <= float(change.mean()) + 1e-9


def test_a_tiny_network_learns_by_the_loss_and_the_score_sees_it() -> None:
    images, masks, _ = squares(64)
    masks[:, :, 0] = 255
    torch.manual_seed(0)
    task, model = Segmentation(), Pixels()
    held = [(images[48:], masks[48:])]
    before = task.score(model.eval(), held)[MIOU.name].value
    task.check(model(images[:4]), (images[:4], masks[:4]))
    trained(model, task, list(zip(images[:48].split(16), masks[:48].split(16), strict=True)), 60)
    found = task.score(model, held)[MIOU.name]
    assert before < 0.5 and found.value > 0.85 and found.low > 0.7
    raw = model(images[:4])
    assert float(task.imitate(raw, raw.detach()).detach()) == pytest.approx(0, abs=1e-6)
    assert float(task.imitate(raw + torch.tensor([3.0, 0, 0]).view(1, 3, 1, 1), raw).detach()) > 0.001
    assert task.error(model, held, 0.0) == pytest.approx(1 - found.value)


def test_void_pixels_have_no_gradient() -> None:
    images, masks, _ = squares(2)
    raw = torch.randn(2, CLASSES, *masks.shape[1:], requires_grad=True)
    masks[0] = 255
    masks[1, 4:] = 255
    Segmentation().loss(raw, (images, masks)).backward()
    assert raw.grad is not None and not raw.grad[0].any() and not raw.grad[1, :, 4:].any() and raw.grad[1, :, :4].any()
    assert float(Segmentation().loss(raw.detach(), (images, torch.full_like(masks, 255)))) == 0


def test_one_logit_a_pixel_and_lower_resolutions() -> None:
    task = Segmentation()
    raw = torch.tensor([[[[2.0, -1.0], [-3.0, 4.0]]]])
    assert task.pixel_classes(raw).tolist() == [[[1, 0], [0, 1]]]
    enlarged = task.pixel_classes(raw, torch.Size((4, 4)))
    assert enlarged.shape == (1, 4, 4) and enlarged[0, 0, 0] == 1
    task.check(raw, (torch.zeros(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.long)))


@pytest.mark.parametrize(
    ("raw", "masks", "message", "cure"),
    [
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), "logits .* are wanted", "classification"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.long), r"targets are \(2,\)", "own size"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4), "float32", "whole numbers"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 6, dtype=torch.long), r"\(2, 4, 6\)", "own size"),
        (torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), 11), "class 11 occurs in the masks, .* 3 classes", "void=11"),
        (torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), -1), "class -1", "void=-1"),
    ],
)
def test_masks_that_cannot_be_are_refused(raw: Tensor, masks: Tensor, message: str, cure: str) -> None:
    task = Segmentation()
    for look in (lambda: task.check(raw, (raw, masks)), lambda: task.score(nn.Identity(), [(raw, masks)])):
        with pytest.raises(TaskError, match=message) as caught:
            look()
        assert cure in caught.value.hint


def test_the_void_index_stands_behind_the_name() -> None:
    assert task_named("segmentation:void=11") == Segmentation(void=11)
    Segmentation(void=11).check(torch.zeros(2, 3, 4, 4), (None, torch.full((2, 4, 4), 11)))


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.tasks import extra

    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match="torchmetrics, which is not installed") as caught:
        Segmentation().check(torch.zeros(2, 3, 4, 4), (None, torch.zeros(2, 4, 4, dtype=torch.long)))
    assert "smaller-convnets[tasks]" in caught.value.hint
    with pytest.raises(TaskError, match="the task multilabel is scored by torchmetrics"):
        task_named("multilabel").check(torch.zeros(2, 3), (None, torch.zeros(2, 3)))
