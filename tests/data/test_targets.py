"""What images are answered with: read as it was written, and moved with its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import layouts as on_disk

from compress.data import Data, Preprocessing, Split, open_data
from compress.data.pixels import mask_pixels, placed_boxes, to_pixels
from compress.errors import DataError

PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3, (16, 20))


def by_name(data: Data) -> dict[str, Any]:
    """The target of every image by the name of its file."""
    return {Path(name).stem: split[place][1] for split in data.splits for place, name in enumerate(split.members())}


def drawn(numbers: int, seed: int) -> np.ndarray | None:
    return np.random.default_rng(seed).random(numbers) if numbers else None


@given(
    seed=st.integers(0, 10_000),
    numbers=st.sampled_from([0, 1, 5]),
    extent=st.tuples(st.integers(30, 90), st.integers(30, 90)),
    size=st.tuples(st.integers(32, 80), st.integers(32, 80)),
    resize=st.booleans(),
)
def test_masks_and_boxes_go_where_their_image_goes(
    seed: int, numbers: int, extent: tuple[int, int], size: tuple[int, int], resize: bool
) -> None:
    """One bright rectangle: what is bright afterwards, what the mask says and what the box says are the same place."""
    rng = np.random.default_rng(seed)
    width, height = extent
    left, top = int(rng.integers(0, width - 12)), int(rng.integers(0, height - 12))
    right, bottom = int(rng.integers(left + 8, width + 1)), int(rng.integers(top + 8, height + 1))
    mask = np.zeros((height, width), np.int32)
    mask[top:bottom, left:right] = 7
    picture = Image.fromarray(np.repeat((mask > 0).astype(np.uint8)[..., None] * 255, 3, axis=2))
    to = Preprocessing((0.0,) * 3, (1.0,) * 3, size, resize=max(size) + 4 if resize else None, interpolation="nearest")
    draw = drawn(numbers, seed)
    pixels = to_pixels(picture, to, draw)[0] > 0
    placed = mask_pixels(mask, to, draw)
    assert torch.equal(placed > 0, pixels) and set(placed.unique().tolist()) <= {0, 7}
    boxes, kept = placed_boxes(np.array([[left, top, right, bottom]], np.float64), extent, to, draw)
    seen = pixels.nonzero()
    if not kept[0]:  # its middle left the picture
        assert not len(seen) or len(seen) < pixels.numel() / 2
        return
    low, high = seen.min(0).values, seen.max(0).values + 1
    scale = max(size) / min(extent)  # a pixel of the picture is so many of the input's
    around = np.array([low[1], low[0], high[1], high[0]], np.float64)
    assert np.abs(boxes[0] - around).max() <= 1 + scale


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("layout", on_disk.BOX_LAYOUTS)
def test_the_same_boxes_come_from_every_layout(layout: str, archived: bool, tmp_path: Path) -> None:
    found = on_disk.some_boxes()
    data = open_data(on_disk.written(tmp_path, on_disk.BOX_LAYOUTS[layout](found), archived), preprocessing=PLAIN)
    assert data.classes == ("__background__", "bar", "blob") and not data.labelled
    assert {s.target_kind for s in data.splits} == {"boxes"} and len(data.digests) == 4
    read = by_name(data)
    assert len(read) == len(found)
    for place, boxes in enumerate(found):
        target = read[f"{place:03}"]
        wanted = torch.tensor([box for _, box in boxes], dtype=torch.float32).reshape(-1, 4)
        torch.testing.assert_close(target["boxes"], wanted, atol=1e-4, rtol=0)
        assert target["labels"].tolist() == [1 + sorted(on_disk.NAMES).index(name) for name, _ in boxes]
        assert target["labels"].dtype == torch.int64 and not target["iscrowd"].any()


def test_batches_of_boxes_are_torchvisions(tmp_path: Path) -> None:
    data = open_data(on_disk.written(tmp_path, on_disk.voc(on_disk.some_boxes()), False), preprocessing=PLAIN)
    assert data.train is not None
    plain = list(data.train.batches(4, shuffle_seed=1))
    images, targets = plain[0]
    assert images.shape == (4, 3, 16, 20) and isinstance(targets, list) and len(targets) == 4
    mirrored = next(data.train.batches(4, shuffle_seed=1, augment=True))
    flipped = [not torch.equal(a, b) for a, b in zip(images, mirrored[0], strict=True)]
    assert any(flipped) and not all(flipped)
    for i, turned in enumerate(flipped):
        assert torch.equal(mirrored[0][i].flip(2) if turned else mirrored[0][i], images[i])
        boxes = mirrored[1][i]["boxes"].clone()
        if turned:
            boxes[:, [0, 2]] = 20 - boxes[:, [2, 0]]
        torch.testing.assert_close(boxes, targets[i]["boxes"])


def test_an_image_without_a_label_file_shows_no_object_and_that_is_said(tmp_path: Path) -> None:
    tree = on_disk.yolo(on_disk.some_boxes())
    bare = [n for n in tree if n.endswith(".png") and n.replace("images", "labels").replace(".png", ".txt") not in tree]
    empty = [n for n in tree if n.endswith(".txt") and not tree[n]]
    assert bare and empty
    data = open_data(on_disk.written(tmp_path, tree, True), preprocessing=PLAIN)
    assert f"{len(bare)} of 30 images have no label file" in data.warnings[0] and bare[0] in data.warnings[0]
    assert all(len(by_name(data)[Path(n).stem]["boxes"]) == 0 for n in (*bare, *empty))


def test_polygons_become_the_boxes_around_them(tmp_path: Path) -> None:
    tree = on_disk.yolo(on_disk.some_boxes())
    tree["d/labels/000.txt"] = b"1 0.1 0.5 0.3 0.25 0.5 0.75"
    target = by_name(open_data(on_disk.written(tmp_path, tree, True), preprocessing=PLAIN))["000"]
    torch.testing.assert_close(target["boxes"], torch.tensor([[2.0, 4.0, 10.0, 12.0]]))
    assert target["labels"].tolist() == [2]


def test_parts_are_those_of_voc_and_of_coco(tmp_path: Path) -> None:
    tree = on_disk.voc(on_disk.some_boxes())
    sets = {"train": range(12), "val": range(12, 28)}
    tree |= {f"d/ImageSets/Main/{k}.txt": "\n".join(f"{i:03}" for i in v).encode() for k, v in sets.items()}
    data = open_data(on_disk.written(tmp_path, tree, True), preprocessing=PLAIN)
    assert sorted(Path(n).stem for n in data.test.members()) == [f"{i:03}" for i in sets["val"]]
    assert "2 images that no list" in data.warnings[0]
    (tmp_path / "coco").mkdir()
    tree = {}
    for part in ("train", "valid"):
        named = on_disk.coco(on_disk.some_boxes())
        tree |= {f"r/{part}/{Path(n).name}": v for n, v in named.items() if n.endswith("png")}
        tree[f"r/{part}/_annotations.coco.json"] = named["d/annotations/instances_all.json"]
    data = open_data(on_disk.written(tmp_path / "coco", tree, False), preprocessing=PLAIN)
    assert len(data.test) == 30 and all("/valid/" in f"/{n}" for n in data.test.members())


MASK_LAYOUTS = {
    "images and masks": ("d/images", "d/masks", ""),
    "camvid": ("d/train", "d/trainannot", ""),
    "with suffix": ("d/imgs", "d/masks", "_mask"),
    "under parts": ("d/train/images", "d/train/labels", ""),
    "voc": ("d/JPEGImages", "d/SegmentationClass", ""),
}


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("layout", MASK_LAYOUTS)
def test_masks_are_read_as_they_are(layout: str, archived: bool, tmp_path: Path) -> None:
    found = on_disk.some_masks()
    found[1][0, 0] = 255
    tree = on_disk.with_masks(found, *MASK_LAYOUTS[layout]) | {"d/classes.txt": b"a\nb\nc\n(3 = nothing)\n"}
    data = open_data(on_disk.written(tmp_path, tree, archived), preprocessing=PLAIN)
    assert data.classes == ("a", "b", "c") and data.validation.target_kind == "masks"
    read = by_name(data)
    assert len(read) == len(found)
    for place, mask in enumerate(found):
        assert read[f"{place:03}"].dtype == torch.int64 and np.array_equal(read[f"{place:03}"], mask)
    images, masks = next(data.test.batches(3))
    assert images.shape == (3, 3, 16, 20) and masks.shape == (3, 16, 20)


def test_a_palette_is_read_as_its_numbers(tmp_path: Path) -> None:
    found = on_disk.some_masks()
    tree = on_disk.with_masks(found)
    for place, mask in enumerate(found):
        image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
        image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
        image.save(tmp_path / "m.png")
        tree[f"d/masks/{place:03}.png"] = (tmp_path / "m.png").read_bytes()
    data = open_data(on_disk.written(tmp_path, tree, True), preprocessing=PLAIN)
    read = by_name(data)
    assert all(np.array_equal(read[f"{i:03}"], mask) for i, mask in enumerate(found))


@pytest.mark.parametrize("times", [1, 2])
def test_images_to_be_restored(times: int, tmp_path: Path) -> None:
    tree = {f"d/inputs/{i:03}.png": on_disk.photo(i) for i in range(30)}
    tree |= {f"d/targets/{i:03}.png": on_disk.photo(100 + i, (20 * times, 16 * times)) for i in range(30)}
    data = open_data(on_disk.written(tmp_path, tree, True), preprocessing=PLAIN)
    assert data.validation.target_kind == "images"
    read = by_name(data)
    with Image.open(on_disk.io.BytesIO(tree["d/targets/004.png"])) as image:
        wanted = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    torch.testing.assert_close(read["004"], wanted)
    assert data.train is not None
    plain, varied = (next(data.train.batches(4, shuffle_seed=1, augment=a)) for a in (False, True))
    for i in range(4):
        turned = not torch.equal(plain[0][i], varied[0][i])
        assert torch.equal(varied[1][i], plain[1][i].flip(2) if turned else plain[1][i])


def test_values_of_a_table(tmp_path: Path) -> None:
    tree = {f"d/{i % 2}/{i:03}.png": on_disk.photo(i) for i in range(30)}
    rows = "\n".join(f"{i % 2}/{i:03}.png,{i / 10},{-i}" for i in range(28))
    data = open_data(
        on_disk.written(tmp_path, tree | {"d/targets.csv": f"file,x,y\n{rows}\n".encode()}, True), preprocessing=PLAIN
    )
    assert data.classes == ("x", "y") and "2 images without a row" in data.warnings[0]
    read = by_name(data)
    assert len(read) == 28
    for i in range(28):
        torch.testing.assert_close(read[f"{i:03}"], torch.tensor([i / 10, -i]))


ROWS = np.random.default_rng(0)
TARGETS = {
    "values": (ROWS.normal(size=(40, 2)), "values"),
    "one value": (ROWS.normal(size=40), "values"),
    "labels of 0 and 1": (ROWS.integers(0, 2, (40, 5)), "values"),
    "masks": (ROWS.integers(0, 4, (40, 9, 9)), "masks"),
    "masks with a channel": (ROWS.integers(0, 4, (40, 1, 9, 9), dtype=np.uint8), "masks"),
    "images": (ROWS.random((40, 3, 9, 9)), "images"),
    "larger images": (ROWS.integers(0, 256, (40, 18, 18, 3), dtype=np.uint8), "images"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_arrays_say_what_their_targets_are(name: str, tmp_path: Path) -> None:
    y, kind = TARGETS[name]
    x = np.random.default_rng(1).random((40, 9, 9, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    data = open_data(str(tmp_path / "d.npz"))
    assert {s.target_kind for s in data.splits} == {kind} and not data.labelled
    inputs, targets = next(data.test.batches(4))
    row = y[30 + data.test.indices[:4]]
    wanted = row if kind == "images" else row.reshape(4, *((-1,) if kind == "values" else (9, 9)))
    if name == "larger images":
        wanted = wanted.transpose(0, 3, 1, 2) / 255
    assert np.allclose(targets.numpy(), wanted, atol=1e-6) and len(inputs) == 4
    assert targets.dtype == (torch.int64 if kind == "masks" else torch.float32)
    if kind != "values":
        return
    assert data.train is not None
    plain, varied = (torch.cat([x for x, _ in data.train.batches(8, augment=a)]) for a in (False, True))
    assert torch.equal(plain, varied)  # of 9 pixels; and landmarks are never mirrored


def test_values_vary_only_where_they_say_what_is_there() -> None:
    from compress.data.targets import RowTargets

    assert RowTargets("values", np.array([[0, 1.0]], np.float32), "x").draws == 5
    assert RowTargets("values", np.array([[0.5, 1.0]], np.float32), "x").draws == 0


def test_a_digest_sees_a_changed_target(tmp_path: Path) -> None:
    digests = []
    for name, change in (("one", 0), ("two", 1)):
        (tmp_path / name).mkdir()
        found = on_disk.some_boxes()
        found[0][0] = ("blob", (1 + change, 2, 9, 8))
        data = open_data(on_disk.written(tmp_path / name, on_disk.yolo(found), True), preprocessing=PLAIN)
        digests.append(set(data.digests.values()))
    assert len(digests[0] & digests[1]) == 3


def test_what_is_wanted_goes_before_what_is_recognised(tmp_path: Path) -> None:
    tree = on_disk.voc(on_disk.some_boxes())
    tree |= {f"d/SegmentationClass/{i:03}.png": on_disk.encoded(m) for i, m in enumerate(on_disk.some_masks())}
    source = on_disk.written(tmp_path, tree, True)
    assert open_data(source, preprocessing=PLAIN).validation.target_kind == "boxes"
    assert open_data(source, preprocessing=PLAIN, labels="masks").validation.target_kind == "masks"
    assert open_data(source, preprocessing=PLAIN, labels="none").validation.target_kind == "none"
    with pytest.raises(DataError, match=r"has no values that are recognised") as caught:
        open_data(source, preprocessing=PLAIN, labels="values")
    assert "targets.csv" in caught.value.hint


def test_a_split_of_masks_trains_as_one_of_labels(tmp_path: Path) -> None:
    """Streams with several threads give what one by one gives."""
    data = open_data(on_disk.written(tmp_path, on_disk.with_masks(on_disk.some_masks()), True), preprocessing=PLAIN)
    split = data.test
    assert isinstance(split, Split)
    masks = torch.cat([y for _, y in split.batches(4)])
    assert torch.equal(masks, torch.stack([split[i][1] for i in range(len(split))]))
