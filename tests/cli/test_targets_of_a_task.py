"""Where a folder may be read in several ways, the task says how; where it shows nothing for the task, the layout does."""

from __future__ import annotations

from pathlib import Path

import pytest
from compress_cli.inputs import Inputs
from support import layouts as on_disk
from support.dense_nets import Pixels
from torch import nn

from compress import Preprocessing, network_of
from compress.errors import DataError

PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3, (16, 20))


def both(tmp_path: Path) -> str:
    """VOC's layout with boxes and masks."""
    tree = on_disk.voc(on_disk.some_boxes())
    tree |= {f"d/SegmentationClass/{i:03}.png": on_disk.encoded(mask) for i, mask in enumerate(on_disk.some_masks())}
    return on_disk.written(tmp_path, tree, True)


@pytest.mark.parametrize(("task", "kind"), [("segmentation", "masks"), ("outputs", "boxes"), ("regression", "boxes")])
def test_the_task_goes_before_the_layout(task: str, kind: str, tmp_path: Path) -> None:
    network = network_of(Pixels(), PLAIN, task=task)
    data = Inputs(model="", data=both(tmp_path)).images_of(network, 0)
    assert data is not None and data.validation.target_kind == kind


def test_without_data_a_task_asks_for_none() -> None:
    assert Inputs(model="").images_of(network_of(Pixels(), PLAIN, task="segmentation"), 0) is None


def test_what_was_typed_goes_before_the_task(tmp_path: Path) -> None:
    network = network_of(Pixels(), PLAIN, task="segmentation")
    data = Inputs(model="", data=both(tmp_path), labels="boxes").images_of(network, 0)
    assert data is not None and data.validation.target_kind == "boxes"


def test_targets_that_are_there_and_cannot_be_are_not_passed_over(tmp_path: Path) -> None:
    tree = on_disk.with_masks(on_disk.some_masks()) | {"d/masks/004.png": on_disk.photo(3)}
    network = network_of(nn.Sequential(Pixels()), PLAIN, task="segmentation")
    with pytest.raises(DataError, match="holds colours"):
        Inputs(model="", data=on_disk.written(tmp_path, tree, True)).images_of(network, 0)
