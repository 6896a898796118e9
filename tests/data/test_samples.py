"""Arrays that are no pictures: sound, volumes, many bands; in the network's layout or with the channels last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from compress.data import Preprocessing, open_data
from compress.errors import DataError

COUNT = 60


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((COUNT, *shape)).astype(np.float32)


def written(folder: Path, x: np.ndarray) -> str:
    path = folder / "x.npz"
    np.savez(path, x=x, y=np.arange(len(x)) % 3)
    return str(path)


@given(
    seed=st.integers(0, 2**31),
    channels=st.integers(1, 8),
    sides=st.lists(st.integers(2, 6), min_size=1, max_size=3),
    kind=st.sampled_from(["float32", "float64", "uint8"]),
    last=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_every_layout_reaches_the_network(
    tmp_path_factory: pytest.TempPathFactory, seed: int, channels: int, sides: list[int], kind: str, last: bool
) -> None:
    if len(sides) == 2 and channels in (1, 3):
        channels = 2  # pictures have a test of their own
    rng, shape = np.random.default_rng(seed), (COUNT, channels, *sides)
    x = rng.integers(0, 256, shape).astype(kind) if kind == "uint8" else rng.standard_normal(shape).astype(kind)
    mean, std = tuple(rng.random(channels)), tuple(rng.random(channels) + 0.5)
    stored = np.moveaxis(x, 1, -1) if last else x
    wanted = (x / (255 if kind == "uint8" else 1) - np.reshape(mean, (1, -1, *[1] * len(sides)))) / np.reshape(
        std, (1, -1, *[1] * len(sides))
    )
    source = written(tmp_path_factory.mktemp("x"), stored)
    data = open_data(source, preprocessing=Preprocessing(mean, std, tuple(sides)))
    for split in data.splits:
        images = split.images(len(split))
        assert images.shape[1:] == data.preprocessing.shape
        if last and stored.shape[1:] == data.preprocessing.shape:
            continue  # both readings fit, the first is taken
        torch.testing.assert_close(images, torch.from_numpy(wanted[split.indices]).float(), rtol=1e-4, atol=1e-5)
        augmented = [x for x, _ in split.batches(16, shuffle_seed=0, augment=True)]
        assert sum(map(len, augmented)) == len(split)


@pytest.mark.parametrize(
    ("shape", "taken", "cure"),
    [
        ((2, 25), (2, 20), "--size 25"),
        ((3, 20), (2, 20), "(n, 2, 20) or (n, 20, 2)"),
        ((6, 9, 9), (6, 8, 8), "--size 9,9"),
        ((4, 9, 9), (6, 9, 9), "(n, 6, 9, 9)"),
        ((2, 5, 6, 7), (1, 5, 6, 7), "(n, 1, 5, 6, 7)"),
        ((6, 9, 9), (3, 9, 9), "(n, 3, 9, 9)"),
        ((9, 9), (6, 9, 9), "(n, 6, 9, 9)"),
    ],
)
def test_what_does_not_fit_is_told_with_a_cure_that_works(
    shape: tuple[int, ...], taken: tuple[int, ...], cure: str, tmp_path: Path
) -> None:
    to = Preprocessing((0.0,) * taken[0], (1.0,) * taken[0], taken[1:])
    data = open_data(written(tmp_path, noise(shape)), preprocessing=to)
    with pytest.raises(DataError) as caught:
        data.calibration.images(1)
    assert cure in caught.value.hint
    fitted = tuple(int(s) for s in cure.removeprefix("--size ").split(",")) if cure.startswith("--size") else None
    arrays = noise(shape if fitted else taken)
    again = open_data(written(tmp_path, arrays), preprocessing=Preprocessing(to.mean, to.std, fitted or taken[1:]))
    assert again.calibration.images(1).shape[1:] == again.preprocessing.shape


def test_pictures_for_a_network_of_many_bands_are_told_the_way_that_works(tmp_path: Path) -> None:
    for i in range(30):
        Image.new("RGB", (9, 9), (i, 2 * i, i)).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match="takes samples of") as caught:
        open_data(str(tmp_path), preprocessing=Preprocessing((0.0,) * 6, (1.0,) * 6, (9, 9))).calibration.images(1)
    assert "(n, 6, 9, 9)" in caught.value.hint


def test_sizes_and_preprocessing_survive_as_json() -> None:
    for size in ((16000,), (8, 9), (4, 5, 6)):
        made = Preprocessing((0.0, 0.5), (1.0, 2.0), size)
        assert Preprocessing.from_json(made.to_json()) == made and made.shape == (2, *size)
    for size in ((), (1, 2, 3, 4), (0,), (1 << 25,)):
        with pytest.raises(DataError):
            Preprocessing((0.0,), (1.0,), size)
