"""Targets that a task cannot have: told by their split, before the search where the first batch shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tasked import squares, targets_of, trained
from torch import Tensor
from torch.utils.data import TensorDataset

from compress.data import Data, data_from
from compress.errors import CompressError, ConfigError, DataError
from compress.networks import network_of
from compress.pipeline import make_job, prune
from compress.tasks import Task

SIZES = {"train": 96, "validation": 240, "calibration": 32, "test": 96}
FLAGS = {
    "method": "uniform",
    "round_to": 4,
    "budget": 600,
    "value": 0.7,
    "epochs": 1,
    "distill": 0.5,
    "lr": 0.001,
    "latency_seconds": 0.0,
    "exporter": "legacy",
}
WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "classification": lambda t: t + 4,
    "binary": lambda t: 2 * t,
    "multilabel": lambda t: 2 * t,
    "regression": lambda t: t * torch.nan,
}


def data(name: str, split: str, change: Callable[[Tensor], Tensor], begins: int = 0) -> Data:
    """Pictures with their targets, in one split changed from some example on."""
    parts = {}
    for number, (part, count) in enumerate(SIZES.items()):
        pictures, centres = squares(count, seed=number)
        targets = targets_of(name, pictures, centres)
        if part == split:
            targets = torch.cat((targets[:begins], change(targets[begins:])))
        parts[part] = TensorDataset(pictures, targets)
    return data_from(**parts)


def run(task: Any, model: torch.nn.Module, given: Data, folder: Path, events: list[str], **more: Any) -> Any:
    network = network_of(model, example=torch.zeros(2, 1, 12, 12), task=task)
    return prune(network, given, make_job(flags=FLAGS | more), folder, listen=lambda e: events.append(getattr(e, "name", "")))


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", WRONG)
def test_the_first_targets_are_looked_at_before_the_search(name: str, split: str, tmp_path: Path) -> None:
    one, events = trained(name), list[str]()
    with pytest.raises(CompressError) as caught:
        run(one.task, one.model, data(name, split, WRONG[name]), tmp_path / "run", events)
    where = "" if split == "validation" else f"{split}: "
    assert caught.value.message.startswith(where) and caught.value.hint and "search" not in events


@pytest.mark.parametrize(
    ("name", "split"),
    [("multilabel", "train"), ("binary", "validation"), ("regression", "test"), ("classification", "test")],
)
def test_later_ones_are_never_scored_or_trained_on(name: str, split: str, tmp_path: Path) -> None:
    """A label of 2 among zeros and ones is neither right nor wrong: there would be a figure, and it would be untrue."""
    one = trained(name)
    with pytest.raises(CompressError, match=f"^{split}: ") as caught:
        run(one.task, one.model, data(name, split, WRONG[name], 40), tmp_path / "run", [])
    assert caught.value.hint


def test_whole_numbers_are_values_where_every_image_has_several() -> None:
    """Several labels an image as most people have them, in integers or truth values."""
    for kind in (torch.int64, torch.bool):
        assert data("multilabel", "train", lambda t: t).test.target_kind == "values"
        found = data_from(**{part: (torch.zeros(8, 1, 4, 4), torch.ones(8, 3, dtype=kind)) for part in SIZES})
        assert found.test.target_kind == "values"
        trained("multilabel").task.check(torch.zeros(8, 3), (None, torch.ones(8, 3, dtype=kind)))


def test_targets_of_another_kind_have_their_cure(tmp_path: Path) -> None:
    one = trained("regression")
    ages = data_from(**{part: (torch.zeros(30, 1, 12, 12), torch.arange(30)) for part in SIZES})
    with pytest.raises(DataError, match="answered with classes") as caught:
        run(one.task, one.model, ages, tmp_path / "a", [])
    assert "float32 if they are numbers" in caught.value.hint
    named = [{"image": torch.zeros(8, 1, 12, 12), "age": torch.zeros(8)} for _ in range(5)]
    own = data_from(**{part: list(named) for part in SIZES})
    with pytest.raises(DataError, match="of no kind that is known") as caught:
        run(one.task, one.model, own, tmp_path / "b", [])
    assert "a task of your own" in caught.value.hint


class Learning(Task):
    """A loss, and nothing that scores."""

    name = "learning"

    def __init__(self) -> None:
        self.losses = 0

    def loss(self, raw: Any, batch: Any) -> Tensor:
        self.losses += 1
        found: Tensor = (raw - batch[1]).abs().mean()
        return found


def test_a_loss_is_used_where_nothing_is_scored(tmp_path: Path) -> None:
    task = Learning()
    found = run(task, trained("regression").model, data("regression", "", WRONG["binary"]), tmp_path / "a", [], distill=0.0)
    assert task.losses > 1 and any(s.when == "fine-tuned" for s in found.report.steps)


def test_images_alone_train_nothing_without_imitation(tmp_path: Path) -> None:
    one, events = trained("regression"), list[str]()
    with pytest.raises(ConfigError, match="training images have no targets") as caught:
        run(one.task, one.model, one.data(targets=False), tmp_path / "a", events, distill=0.0)
    assert "--no-distill" in caught.value.hint and "search" not in events
