from __future__ import annotations

import io
import math
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from support.covering import thinned

from compress.core.statistics import near_chance
from compress.data import Data, Preprocessing, Split, open_data, preset_for
from compress.data.dataset import _divide
from compress.data.labels import _pair, label_map
from compress.data.listing import Listing, Part
from compress.data.pixels import crop_and_flip
from compress.data.preprocessing import PRESETS
from compress.data.sources import ArrayImages, Unreadable
from compress.errors import DataError

PLAIN = Preprocessing((0.5,) * 3, (0.25,) * 3, (8, 8))


def picture(colour: int, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour, colour, colour)).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root: Path, names: Sequence[str], broken: Sequence[str] = ()) -> Path:
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image" if name in broken else picture(i % 256))
    return root


def tree(*parts: str, classes: Sequence[str] = ("cat", "dog"), each: int = 20) -> list[str]:
    return [f"{part}{c}/{i:03}.png" for part in parts for c in classes for i in range(each)]


def packed(path: Path, names: Sequence[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(name, picture(i % 256))
    return path


def names(data: Data) -> dict[str, list[str]]:
    return {s.name: sorted(s.members()) for s in data.splits}


LAYOUTS = {
    "train and val": (tree("train/", "val/"), {"train", "validation", "calibration", "test"}),
    "train and test": (tree("train/", "test/"), {"train", "validation", "calibration", "test"}),
    "all three": (tree("train/", "val/", "test/"), {"train", "validation", "calibration", "test"}),
    "val alone": (tree("val/"), {"validation", "calibration", "test"}),
    "val and test": (tree("val/", "test/"), {"validation", "calibration", "test"}),
    "classes": (tree(""), {"train", "validation", "calibration", "test"}),
    "train alone": (tree("train/"), {"train", "validation", "calibration", "test"}),
    "in a folder": (tree("pets/train/", "pets/valid/"), {"train", "validation", "calibration", "test"}),
}


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_are_disjoint_and_complete_in_every_layout(layout: str, archived: bool, tmp_path: Path) -> None:
    files, wanted = LAYOUTS[layout]
    source = packed(tmp_path / "d.zip", files) if archived else folder(tmp_path / "d", files)
    data = open_data(str(source), preprocessing=PLAIN)
    found = names(data)
    assert set(found) == wanted
    everything = [n for members in found.values() for n in members]
    assert sorted(everything) == sorted(files)
    if "test/" in files[-1]:
        assert found["test"] == [f for f in files if "test/" in f]
    elif layout in ("train and val", "in a folder"):
        assert found["test"] == [f for f in files if "/val" in "/" + f]
    if layout == "all three":
        assert found["validation"] == [f for f in files if f.startswith("val/")]
    assert data.classes == ("cat", "dog")
    for split in data.splits:
        assert [("dog" in n) for n in split.members()] == [bool(v) for v in split.labels]


@given(
    sizes=st.dictionaries(st.sampled_from(["train", "val", "test", ""]), st.integers(1, 60), min_size=1),
    seed=st.integers(0, 5),
    validation=st.sampled_from([None, 3, 0.2]),
    calibration=st.sampled_from([None, 2, 0.3]),
)
def test_no_image_is_ever_in_two_splits(sizes: dict[str, int], seed: int, validation: Any, calibration: Any) -> None:
    sizes = {k: v for k, v in sizes.items() if k or len(sizes) == 1}
    parts = {}
    start = 0
    images = ArrayImages("x", 1000, lambda: None)
    for name, n in sizes.items():
        parts[name] = Part(images, np.arange(start, start + n), np.zeros(n, np.int64))
        start += n
    try:
        drawn = _divide(Listing(parts, ()), np.random.default_rng(seed), validation, calibration, "x")
    except DataError:
        return
    everything = np.concatenate([p.indices for p in drawn.values()])
    assert sorted(everything) == list(range(start))
    assert {"validation", "calibration", "test"} <= set(drawn)


def test_the_division_depends_on_the_seed_alone(tmp_path: Path) -> None:
    source = str(packed(tmp_path / "d.zip", tree("train/", "val/")))
    first, second, other = (open_data(source, preprocessing=PLAIN, seed=s) for s in (1, 1, 2))
    assert first.digests == second.digests and names(first) == names(second)
    assert names(first)["validation"] != names(other)["validation"]
    assert names(first)["test"] == names(other)["test"]
    assert len(set(first.digests.values())) == 4


def test_a_digest_sees_a_changed_image(tmp_path: Path) -> None:
    files = tree("train/", "val/")
    before = open_data(str(packed(tmp_path / "d.zip", files)), preprocessing=PLAIN).test.digest
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for i, name in enumerate(files):
            archive.writestr(name, picture(i + 1 if i == len(files) - 1 else i))
    assert open_data(str(tmp_path / "d.zip"), preprocessing=PLAIN).test.digest != before


class Counting(ArrayImages):
    def __init__(self, count: int) -> None:
        super().__init__("counted", count, lambda: np.zeros((count, 8, 8, 3), np.uint8))
        self.read_indices: list[int] = []

    def read(self, index: int) -> Any:
        self.read_indices.append(index)
        return super().read(index)


def test_test_is_not_read_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Counting] = []

    def counting(label: str, count: int, load: Any) -> Counting:
        made.append(Counting(count))
        return made[-1]

    monkeypatch.setattr("compress.data.listing.ArrayImages", counting)
    data = open_data("digits")
    images = made[0]
    for split in (data.train, data.validation, data.calibration):
        assert split is not None
        for _ in split.batches(64):
            pass
    _ = data.digests, data.test.members(), len(data.test), data.test.labelled
    seen = set(images.read_indices)
    assert len(seen) == 1797 - len(data.test)
    assert not seen & set(data.test.indices.tolist())
    next(data.test.batches(8))
    assert set(images.read_indices) & set(data.test.indices.tolist())


def test_opening_reads_nothing_when_the_preprocessing_is_known(tmp_path: Path) -> None:
    files = tree("train/", "val/")
    data = open_data(str(folder(tmp_path / "d", files, broken=files)), preprocessing=PLAIN)
    assert len(data.test) == 40 and data.digests


def split_of(n: int = 50, size: int = 8, preprocessing: Preprocessing = PLAIN) -> Split:
    rows = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return Split("train", ArrayImages("x", n, lambda: rows), np.arange(n), np.arange(n) % 10, preprocessing)


def test_pixels_are_normalised_as_torchvision_does() -> None:
    from torchvision.transforms import v2

    preprocessing = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.25), (24, 20), resize=28)
    rows = np.random.default_rng(1).integers(0, 256, (3, 40, 33, 3), dtype=np.uint8)
    split = Split("test", ArrayImages("x", 3, lambda: rows), np.arange(3), np.zeros(3, np.int64), preprocessing)
    reference = v2.Compose(
        [
            v2.Resize(28),
            v2.CenterCrop((24, 20)),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]),
        ]
    )
    wanted = torch.stack([reference(Image.fromarray(row)) for row in rows])
    torch.testing.assert_close(split.images(3), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(split[2][0], wanted[2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("size", [32, 96])  # kept decoded, and decoded on the fly
def test_batches_depend_on_seed_and_epoch_alone(size: int, augment: bool) -> None:
    preprocessing = Preprocessing((0.5,) * 3, (0.25,) * 3, (size, size), resize=None if size == 32 else size)
    split = split_of(50, size, preprocessing)

    def epoch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        batches = list(split.batches(16, shuffle_seed=(7, number), augment=augment))
        assert [len(y) for _, y in batches] == [16, 16, 16, 2]
        return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    first, again, other = epoch(0), epoch(0), epoch(1)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[1].bincount().tolist() == other[1].bincount().tolist() == [5] * 10
    plain = torch.cat([x for x, _ in split.batches(16, shuffle_seed=(7, 0))])
    assert torch.equal(plain, first[0]) != augment


def test_kept_and_streamed_images_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = torch.cat([x for x, _ in split_of().batches(7, shuffle_seed=3)])
    monkeypatch.setattr("compress.data.split.CACHE_BYTES", 0)
    assert torch.equal(kept, torch.cat([x for x, _ in split_of().batches(7, shuffle_seed=3)]))


def test_a_limit_takes_the_first_images_of_the_order() -> None:
    split = split_of()
    everything = torch.cat([x for x, _ in split.batches(16)])
    for limit in (0, 1, 9, 50, 99):
        got = [x for x, _ in split.batches(16, limit=limit)]
        assert sum(map(len, got)) == min(limit, 50)
        if got:
            assert torch.equal(torch.cat(got), everything[:limit])
    assert torch.equal(split.images(9), everything[:9])
    assert len(split.images(500)) == 50
    with pytest.raises(DataError, match="batch of 0"):
        next(split.batches(0))


@given(seed=st.integers(0, 1000), margin=st.integers(0, 3))
def test_crops_and_mirrors_are_windows_of_the_padded_image(seed: int, margin: int) -> None:
    batch = torch.arange(1, 1 + 4 * 2 * 5 * 6).view(4, 2, 5, 6)
    padded = torch.nn.functional.pad(batch, (margin,) * 4)
    for image, whole in zip(crop_and_flip(batch, np.random.default_rng(seed), margin), padded, strict=True):
        windows = [whole[:, i : i + 5, j : j + 6] for i in range(2 * margin + 1) for j in range(2 * margin + 1)]
        assert any(torch.equal(image, w) or torch.equal(image, w.flip(2)) for w in windows)


def test_digits_are_never_mirrored() -> None:
    train = open_data("digits").train
    assert train is not None
    plain, augmented = (torch.cat([x for x, _ in train.batches(64, augment=a)]) for a in (False, True))
    assert torch.equal(plain, augmented)
    assert plain.shape[1:] == (1, 8, 8)


def test_damaged_images_are_named_and_skipped_up_to_a_limit(tmp_path: Path) -> None:
    files = tree("train/", "val/")
    broken = [f for f in files if f.startswith("val/")][::8]
    data = open_data(str(folder(tmp_path / "few", files, broken)), preprocessing=PLAIN)
    assert sum(len(y) for _, y in data.test.batches(8)) == 35
    assert len(data.test.skipped) == 5 and data.test.skipped[0].split(":")[0] in broken
    assert sum(len(y) for _, y in data.test.batches(8)) == 35 and len(data.test.skipped) == 5
    assert len(data.test.images(100)) == 35
    data = open_data(
        str(folder(tmp_path / "many", files, [f for f in files if f.startswith("val/")][::6])), preprocessing=PLAIN
    )
    with pytest.raises(DataError, match=r"6 of 40 images cannot be read, at most 5.*val/") as caught:
        list(data.test.batches(8))
    assert caught.value.hint


def test_a_row_that_cannot_be_read_is_an_error_by_position() -> None:
    class Broken(ArrayImages):
        def read(self, index: int) -> Any:
            raise Unreadable("gone")

    split = Split("train", Broken("x", 3, lambda: None), np.arange(3), np.zeros(3, np.int64), PLAIN)
    with pytest.raises(DataError, match=r"x\[1\]: gone"):
        split[1]
    with pytest.raises(DataError, match="none of 3"):
        split.images(2)


def test_labels_by_index_and_by_file(tmp_path: Path) -> None:
    files = tree("val/", classes=("0002_dog", "0000_cat"))
    source = str(packed(tmp_path / "d.zip", files))
    data = open_data(source, preprocessing=PLAIN, labels="index-prefix", num_classes=4)
    assert data.classes == ("0000_cat", "1", "0002_dog", "3")
    assert set(data.test.labels.tolist()) == {0, 2} and data.warnings == ()
    for text in ('{"0002_dog": 1, "0000_cat": 3}', "0002_dog 1\n0000_cat 3\n", "0002_dog,1\n0000_cat,3"):
        (tmp_path / "labels").write_text(text)
        data = open_data(source, preprocessing=PLAIN, labels=str(tmp_path / "labels"), num_classes=4)
        assert (data.classes[1], data.classes[3]) == ("0002_dog", "0000_cat")
    (tmp_path / "labels").write_text("other\n0002_dog\n0000_cat\n")
    assert open_data(source, preprocessing=PLAIN, labels=str(tmp_path / "labels")).classes[1:] == ("0002_dog", "0000_cat")
    assert "index-prefix" in open_data(source, preprocessing=PLAIN, num_classes=4).warnings[0]


@pytest.mark.parametrize("kind", thinned(["lines", "spaces", "commas", "digits", "names", "json"], of=2, turn=1))
def test_a_large_file_of_labels_is_read_or_refused_at_once(kind: str, tmp_path: Path) -> None:
    many, (zero, one) = 20 * 2**20, ("a 0", "b 1")
    text = {
        "lines": f"{zero}\n{one}\n" + "".join(f"class{i} {i % 1000}\n" for i in range(many // 14)),
        "spaces": f"{zero}\n{one}\nc{' ' * many}x\n",
        "commas": f"{zero}\n{one}\nc{',' * many}\n",
        "digits": f"{zero}\n{one}\nc {'1' * many}\n",
        "names": "a\nb\n" + "c\n" * (many // 2),
        "json": '{"a": 0, "b": 1' + "1" * many + "}",
    }[kind]
    (tmp_path / "labels").write_text(text)
    began = time.process_time()
    with pytest.raises(DataError) as caught:
        label_map(["a", "b"], str(tmp_path / "labels"), None)
    assert caught.value.hint and time.process_time() - began < 8


@given(
    name=st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=8),
    number=st.integers(0, 999),
    apart=st.text(" \t,;", min_size=1, max_size=3),
)
def test_a_line_is_a_name_and_a_number(name: str, number: int, apart: str) -> None:
    name = name.strip(" \t,;\u3000\xa0\x1f") or "x"
    assume(name == name.strip() and len(name.splitlines()) == 1)
    found = _pair(f"{name}{apart}{number}")
    assert found is not None and (found[0], int(found[1])) == (name, number)
    assert _pair(name if not name[-1:].isdigit() else f"{name}x") is None


def test_labels_that_cannot_be_are_refused(tmp_path: Path) -> None:
    source = str(packed(tmp_path / "d.zip", tree("val/", classes=("5_a", "7_b", "c"))))
    (tmp_path / "labels").write_text("c 0\n5_a 0\n7_b 1")
    (tmp_path / "short").write_text("c\n")
    for options, message in (
        ({"num_classes": 2}, r"3 classes, folder 'c' is label 2; the network has outputs 0 to 1"),
        ({"labels": "index-prefix"}, "'c' does not start"),
        ({"labels": str(tmp_path / "labels")}, "same label"),
        ({"labels": str(tmp_path / "short")}, "no label for 2"),
        ({"labels": "sortd"}, "neither sorted"),
    ):
        with pytest.raises(DataError, match=message):
            open_data(source, preprocessing=PLAIN, **options)  # type: ignore[arg-type]


def test_sources_that_are_not_there_or_hold_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 nothing")
    folder(tmp_path / "one", tree("", classes=("cat",)))
    folder(tmp_path / "three", tree("", each=1))
    np.savez(tmp_path / "names.npz", a=np.zeros(3))
    for source, message in (
        ("nowhere", "does not exist"),
        ("empty", "holds no images"),
        ("text.txt", "neither a folder"),
        ("bad.zip", "no readable zip"),
        ("one", "1 class "),
        ("three", "too few"),
        ("names.npz", r"holds \['a'\]"),
        ("no_such_module:data", "No module named"),
        ("math:sqrt", "failed"),
        ("cifar10:nowhere", "is not in folder"),
    ):
        with pytest.raises(DataError, match=message):
            open_data(source, preprocessing=PLAIN)


def test_images_without_class_folders_have_no_labels(tmp_path: Path) -> None:
    data = open_data(str(folder(tmp_path / "d", [f"{i}.png" for i in range(30)])), preprocessing=PLAIN)
    assert not data.labelled and data.classes == () and "no class folders: its images have no labels" in data.warnings[0]
    assert data.calibration.images(2).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("layout", ["nhwc", "nchw", "grey", "float"])
def test_arrays(layout: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (60, 9, 9, 3), dtype=np.uint8)
    given = {"nhwc": x, "nchw": x.transpose(0, 3, 1, 2), "grey": x[..., 0], "float": (x / 255).astype(np.float32)}[layout]
    y = np.arange(60) % 3
    np.savez_compressed(tmp_path / "d.npz", x_train=given[:40], y_train=y[:40, None], x_test=given[40:], y_test=y[40:])
    data = open_data(str(tmp_path / "d.npz"))
    assert data.preprocessing.size == (9, 9) and data.preprocessing.channels == (1 if layout == "grey" else 3)
    assert len(data.test) == 20 and data.test.labelled and len(data.warnings) == 1
    image, label = data.test[0]
    row = 40 + int(data.test.indices[0])
    wanted = torch.tensor(x[row] / 255.0).permute(2, 0, 1)[: len(image)].float()
    back = image * torch.tensor(data.preprocessing.std).view(-1, 1, 1) + torch.tensor(data.preprocessing.mean).view(-1, 1, 1)
    torch.testing.assert_close(back, wanted)
    assert label == y[row]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((9, 4, 4), np.uint8), np.array(["cat"] * 9), "one integer"),
        (np.zeros((9, 4, 4), np.uint8), np.full(9, np.nan), "not finite"),
        (np.zeros((9, 4, 4), np.uint8), np.arange(9) - 1, "one integer"),
        (np.zeros((9, 4, 4), np.uint8), np.zeros(9, int), "1 class"),
        (np.zeros((9, 4, 4), np.uint8), np.arange(9) + 5, "outputs 0 to 9"),
        (np.zeros((9, 4), np.uint8), np.arange(9), "shape"),
        (np.zeros((9, 4, 4), np.int64), np.arange(9), "type int64"),
        (np.full((9, 4, 4), np.nan), np.arange(9), "not finite"),
        (np.zeros((8, 4, 4), np.uint8), np.arange(9), "8 images and 9 labels"),
    ],
)
def test_arrays_that_are_no_images(x: Any, y: Any, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=x, y=y)
    with pytest.raises(DataError, match=message):
        open_data(str(tmp_path / "d.npz"), num_classes=10, preprocessing=PLAIN).validation.images(1)


def test_a_function_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_images.py").write_text(
        "import numpy as np\ndef data():\n    return np.zeros((50, 8, 8, 3), np.uint8), np.arange(50) % 5\n"
        "def other():\n    return 3\n"
        "def ready():\n    from compress.data import open_data\n    return open_data('digits')\n"
    )
    monkeypatch.chdir(tmp_path)
    data = open_data("my_images:data", preprocessing=PLAIN)
    assert sum(map(len, data.splits)) == 50 and data.classes == ("0", "1", "2", "3", "4")
    assert open_data("my_images:ready").name == "digits"
    with pytest.raises(DataError, match="returned a int"):
        open_data("my_images:other")


@given(
    mean=st.lists(st.floats(-2, 2), min_size=1, max_size=3),
    std=st.floats(0.01, 3),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    resize=st.one_of(st.none(), st.integers(300, 400)),
)
def test_preprocessing_goes_through_json(mean: list[float], std: float, size: tuple[int, int], resize: int | None) -> None:
    made = Preprocessing(tuple(mean), (std,) * len(mean), size, resize, "bicubic")
    assert Preprocessing.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    "data",
    [None, {}, {"mean": [0.5], "std": [0.5]}, {"mean": ["a"], "std": [1], "size": [8, 8]}, {"mean": 1, "std": 1, "size": 3}],
)
def test_other_json_is_no_preprocessing(data: Any) -> None:
    with pytest.raises(DataError):
        Preprocessing.from_json(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0.5,), (0.5, 0.5), (8, 8)), "1 means and 2"),
        (((0.5,), (0.0,), (8, 8)), "positive"),
        (((math.nan,), (1.0,), (8, 8)), "finite"),
        (((0.5,), (0.5,), (0, 8)), "between 1"),
        (((0.5,), (0.5,), (224, 224), 200), "no room"),
        (((0.5,), (0.5,), (8, 8), None, "cubic"), "none of"),
    ],
)
def test_impossible_preprocessing_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocessing(*arguments)


def test_presets_follow_the_architecture() -> None:
    assert preset_for("resnet20") == PRESETS["cifar"]
    assert preset_for("digits_net") == PRESETS["digits"]
    assert preset_for("torchvision:resnet50") == PRESETS["imagenet"]
    assert preset_for("torchvision:inception_v3").size == (299, 299)
    assert preset_for("my.module:net") == PRESETS["imagenet"]
    assert preset_for("torchvision:resnet50", (3, 32, 32)) == PRESETS["cifar"]
    assert preset_for("resnet20", (1, 28, 28)).shape == (1, 28, 28)


def test_presets_of_timm() -> None:
    pytest.importorskip("timm")
    found = preset_for("timm:efficientnet_lite0")
    assert found.size == (224, 224) and found.interpolation == "bicubic" and found.resize == 256


def test_chance_is_told_from_skill() -> None:
    assert near_chance(0.1, 5000, 10) and near_chance(0.0, 500, 10) and near_chance(0.11, 1000, 10)
    assert not near_chance(0.15, 5000, 10) and not near_chance(0.8, 50, 10) and not near_chance(0.02, 500, 1000)
    assert near_chance(0.002, 500, 1000)


@given(n=st.integers(1, 30), classes=st.integers(2, 5), data=st.data())
def test_chance_is_the_binomial_tail(n: int, classes: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    p = 1 / classes
    tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(right, n + 1))
    assert near_chance(right / n, n, classes) == (tail > 1e-3)
