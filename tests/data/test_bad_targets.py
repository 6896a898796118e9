"""Targets that cannot be, each told before any work: what, where, the numbers, the cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import layouts as on_disk

from compress.data import Preprocessing, open_data
from compress.errors import DataError

PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3, (16, 20))
Tree = dict[str, bytes]


def voc(box: tuple[int, ...]) -> Tree:
    return on_disk.voc(on_disk.some_boxes()) | {"d/Annotations/003.xml": on_disk.voc_xml([("blob", box)])}  # type: ignore[list-item]


def without(tree: Tree, *names: str) -> Tree:
    return {k: v for k, v in tree.items() if k not in names}


def masks(changes: Tree) -> Tree:
    return on_disk.with_masks(on_disk.some_masks()) | changes


def coco(**changes: Any) -> Tree:
    found = on_disk.some_boxes()
    return on_disk.coco(found) | {"d/annotations/instances_all.json": json.dumps(on_disk.coco_json(found) | changes).encode()}


def sets(**lists: str) -> Tree:
    return on_disk.voc(on_disk.some_boxes()) | {f"d/ImageSets/Main/{k}.txt": v.encode() for k, v in lists.items()}


def restored(width: int, height: int) -> Tree:
    tree = {f"d/inputs/{i:03}.png": on_disk.photo(i) for i in range(30)}
    return tree | {f"d/targets/{i:03}.png": on_disk.photo(i, (width, height)) for i in range(30)}


HIGH = np.full((16, 20), 7, np.uint8)
SMALL = np.zeros((8, 10), np.uint8)
BAD: dict[str, tuple[Callable[[], Tree], str, str]] = {
    "outside": (lambda: voc((1, 2, 30, 8)), r"003\.png has a box .* 1, 2, 30, 8; the image is 20 x 16 pixels", "correct"),
    "no area": (lambda: voc((5, 5, 5, 9)), r"1 of \d+ boxes have no area .*003\.png: 5, 5, 5, 9", "correct or remove"),
    "no boxes at all": (lambda: on_disk.voc([[]] * 30), "none of 30 images has a box", "belong together"),
    "no xml": (
        lambda: without(on_disk.voc(on_disk.some_boxes()), "d/Annotations/004.xml"),
        r"1 of 30 images have no XML in Annotations/, the first: d/JPEGImages/004\.png",
        "without an object",
    ),
    "another size": (
        lambda: {f"{n}": on_disk.photo(1, (9, 9)) if n.endswith(".png") else v for n, v in voc((1, 1, 5, 5)).items()},
        "20 x 16 pixels, its file has 9 x 9",
        "annotations again",
    ),
    "list names nothing": (lambda: sets(train="000\n", val="900\n"), "names '900', which is no image", "remove the line"),
    "in two parts": (lambda: sets(train="000\n001\n", val="001\n002\n"), "names '001', which is in", "divide them anew"),
    "mask of another size": (
        lambda: masks({"d/masks/004.png": on_disk.encoded(SMALL)}),
        r"mask d/masks/004\.png is 10 x 8, its image 20 x 16",
        "own size",
    ),
    "mask in colour": (lambda: masks({"d/masks/004.png": on_disk.photo(3)}), r"004\.png holds colours \(RGB\)", "palette"),
    "index beyond the names": (
        lambda: masks({"d/masks/004.png": on_disk.encoded(HIGH), "d/classes.txt": b"a\nb\nc\n"}),
        r"004\.png has class index 7, 3 classes are named \(0 to 2\)",
        "255",
    ),
    "image without a mask": (
        lambda: without(masks({}), "d/masks/004.png"),
        r"d/images/004\.png has no target in d/masks/",
        "same name",
    ),
    "image of coco that is not there": (
        lambda: without(coco(), "d/photos/004.png"),
        r"names the image '004\.png', which is not there",
        "put the images",
    ),
    "target no multiple": (lambda: restored(30, 16), "is 30 x 16, its image 20 x 16: neither", "two, three"),
    "two tables": (
        lambda: (
            {f"d/{p}/{i}.png": on_disk.photo(i) for p in ("train", "val") for i in range(20)}
            | {f"d/{p}/targets.csv": f"file,{p}\n0.png,1".encode() for p in ("train", "val")}
        ),
        r"has the columns \('val',\), .* \('train',\)",
        "same columns",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_targets_that_cannot_be_are_told_before_any_work(name: str, tmp_path: Path) -> None:
    tree, message, cure = BAD[name]
    with pytest.raises(DataError, match=message) as caught:
        data = open_data(on_disk.written(tmp_path, tree(), True), preprocessing=PLAIN)
        data.validation.images(1)  # what only an image's file can tell is told by the first one
    assert cure in caught.value.hint


def test_one_box_in_a_hundred_without_an_area_is_left_out_and_said(tmp_path: Path) -> None:
    found = on_disk.some_boxes(120)
    total = sum(map(len, found)) + 1
    assert total > 100
    found[7] = [*found[7], ("bar", (5, 5, 5, 9))]
    data = open_data(on_disk.written(tmp_path, on_disk.voc(found), True), preprocessing=PLAIN)
    assert f"1 of {total} boxes have no area and are left out" in data.warnings[0] and "007.png" in data.warnings[0]
    assert sum(len(t["boxes"]) for s in data.splits for _, ts in s.batches(8) for t in ts) == total - 1


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full((30, 2), np.inf), "not finite"),
        (np.zeros((30, 0)), "are no values"),
        (np.arange(60).reshape(30, 2), "one integer from 0 up"),
        (np.zeros((30, 2), complex), "one integer from 0 up"),
        (np.full((30, 9, 9), -1), "indices from -1 to -1"),
        (np.full((30, 9, 9), 70_000), "to 70000"),
        (np.zeros((30, 8, 8), int), "is 8 x 8, its image 9 x 9"),
        (np.zeros((30, 3, 10, 10)), "is 10 x 10, its image 9 x 9"),
        (np.zeros((29, 2)), "29 labels"),
        (np.zeros((30, 2, 2, 2, 2)), "one integer"),
    ],
)
def test_arrays_that_are_no_targets(y: np.ndarray, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).integers(0, 256, (30, 9, 9, 3), dtype=np.uint8), y=y)
    with pytest.raises(DataError, match=message) as caught:
        open_data(str(tmp_path / "d.npz")).validation.images(1)
    assert caught.value.hint


def test_parts_with_different_kinds_of_targets_are_refused(tmp_path: Path) -> None:
    x = np.zeros((30, 9, 9, 3), np.uint8)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=np.arange(30) % 3, x_test=x, y_test=np.zeros((30, 2)))
    with pytest.raises(DataError, match="classes and values as targets"):
        open_data(str(tmp_path / "d.npz"))
