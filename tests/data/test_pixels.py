"""A picture's values are the same to the network in whatever mode and file they were saved."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from compress.data import Preprocessing, examined, open_data
from compress.data.pixels import oddities, to_pixels
from compress.data.sources import Unreadable, decode
from compress.errors import DataError

Levels = npt.NDArray[np.float64]
INTERPOLATIONS = st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"])


def gradient(height: int = 20, width: int = 24) -> Levels:
    """Grey levels in [0, 1]: every row and column differs."""
    y, x = np.mgrid[:height, :width]
    return (y / (height - 1) * 0.6 + x / (width - 1) * 0.4) ** 1.5


def grey(levels: Levels) -> Image.Image:
    return Image.fromarray(np.rint(levels * 255).astype(np.uint8))


def coloured(levels: Levels) -> Image.Image:
    return Image.fromarray(np.rint(np.stack([levels, levels[::-1], levels[:, ::-1]], -1) * 255).astype(np.uint8))


def with_alpha(image: Image.Image) -> Image.Image:
    """Transparency that varies: it is left out, as torchvision does."""
    image = image.copy()
    image.putalpha(Image.fromarray(np.tile(np.arange(image.width, dtype=np.uint8) * 10, (image.height, 1))))
    return image


def wide(levels: Levels) -> Image.Image:
    return Image.fromarray(np.rint(levels * 65535).astype(np.uint16))


def see_through(image: Image.Image) -> Image.Image:
    image = image.quantize(200)
    image.info["transparency"] = bytes(range(200))
    return image


def in_twelve_bits(levels: Levels) -> bytes:
    """A TIFF of 12 bits, two values in three bytes."""
    values = np.rint(levels * 4095).astype(np.uint32)
    pairs = values.reshape(values.shape[0], -1, 2)
    both = pairs[..., 0] << 12 | pairs[..., 1]
    data = np.stack([both >> 16, both >> 8 & 255, both & 255], -1).astype(np.uint8).tobytes()
    return tiff(values.shape, data, 12)


def tiff(shape: tuple[int, ...], data: bytes, bits: int, *, white_is_zero: bool = False, signed: bool = False) -> bytes:
    """A TIFF of one strip of grey levels."""
    height, width = shape[:2]
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (273, 8), (277, 1),
               (278, height), (279, len(data)), (339, 2 if signed else 1)]  # fmt: skip
    directory = len(entries).to_bytes(2, "little")
    for tag, value in entries:
        directory += (
            tag.to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        )
    return b"II*\0" + (8 + len(data)).to_bytes(4, "little") + data + directory + bytes(4)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


MANY = [(kind, mode) for kind, modes in {
    "PNG": ("1", "L", "LA", "P", "P and transparency", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "I", "F"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "PPM": ("1", "L", "RGB", "I;16", "I"),
    "WEBP": ("RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
}.items() for mode in modes]  # fmt: skip
LOSSY = {"JPEG": 12, "WEBP": 1, "P": 6, "P and transparency": 6, "CMYK": 4, "YCbCr": 3.1}
MAKE: dict[str, Callable[[Levels], Image.Image]] = {
    "1": lambda x: grey((x > 0.4).astype(float)).convert("1"),
    "L": grey,
    "LA": lambda x: with_alpha(grey(x)),
    "P": lambda x: grey(x).convert("P"),
    "P and transparency": lambda x: see_through(grey(x).convert("RGB")),
    "RGB": coloured,
    "RGBA": lambda x: with_alpha(coloured(x)),
    "CMYK": lambda x: coloured(x).convert("CMYK"),
    "YCbCr": lambda x: coloured(x).convert("YCbCr"),
    "I;16": wide,
    "I;16B": lambda x: Image.fromarray(np.rint(x * 65535).astype(">u2")),
    "I": lambda x: Image.fromarray(np.rint(x * 65535).astype(np.int32)),
    "F": lambda x: Image.fromarray(x.astype(np.float32)),
}


def reference(mode: str, levels: Levels) -> Image.Image:
    """The same picture as 8-bit RGB."""
    if mode == "1":
        return grey((levels > 0.4).astype(float)).convert("RGB")
    return (coloured(levels) if mode in ("RGB", "RGBA", "CMYK", "YCbCr") else grey(levels)).convert("RGB")


def pre(channels: int, size: tuple[int, int] = (20, 24), resize: int | None = None, how: str = "bilinear") -> Preprocessing:
    return Preprocessing((0.4,) * channels, (0.2,) * channels, size, resize, how)


def values(picture: Image.Image, to: Preprocessing) -> torch.Tensor:
    pixels = to_pixels(picture, to)
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "mode"), MANY)
def test_a_mode_and_a_format_are_the_same_picture(kind: str, mode: str, channels: int) -> None:
    levels = gradient()
    options = (
        {"lossless": True, "exact": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about writing
        data = saved(MAKE[mode](levels), kind, **options)
    seen = values(decode(data), pre(channels))
    wanted = values(reference(mode, levels), pre(channels))
    tolerance = max(1.01, LOSSY.get(kind, 0), LOSSY.get(mode, 0)) / 255
    assert (seen - wanted).abs().max() <= tolerance, (seen - wanted).abs().max() * 255
    assert seen.max() - seen.min() > 0.4


@given(
    mode=st.sampled_from(["I;16", "I", "F"]),
    size=st.tuples(st.integers(4, 30), st.integers(4, 30)),
    more=st.one_of(st.none(), st.integers(0, 9)),
    how=INTERPOLATIONS,
    channels=st.sampled_from([1, 3]),
)
def test_wide_pictures_are_resized_and_cropped_like_others(
    mode: str, size: tuple[int, int], more: int | None, how: str, channels: int
) -> None:
    levels = gradient()
    to = pre(channels, size, None if more is None else max(size) + more, how)
    seen, wanted = values(MAKE[mode](levels), to), values(grey(levels), to)
    assert seen.shape == wanted.shape and (seen - wanted).abs().max() <= 2.01 / 255


@pytest.mark.parametrize("top", [4095, 65535])
def test_the_levels_of_sixteen_bits_are_kept(top: int) -> None:
    values_in = np.arange(20 * 24, dtype=np.uint16).reshape(20, 24) * (top // 479)
    seen = to_pixels(decode(saved(Image.fromarray(values_in), "PNG")), pre(1))
    assert len(seen.unique()) == 480
    assert torch.allclose(seen[0], torch.from_numpy(values_in.astype(np.float32)) / 65535)
    told = " ".join(oddities(Image.fromarray(values_in)))
    assert ("12 bits of 16" in told) == (top == 4095)


def test_tiffs_of_twelve_signed_and_inverted_bits() -> None:
    levels, wanted = gradient(), values(grey(gradient()), pre(1))
    signed = tiff(levels.shape, np.rint(levels * 32767).astype("<i2").tobytes(), 16, signed=True)
    inverted = tiff(levels.shape, np.rint((1 - levels) * 65535).astype("<u2").tobytes(), 16, white_is_zero=True)
    for name, data in {"twelve": in_twelve_bits(levels), "signed": signed, "inverted": inverted}.items():
        assert (values(decode(data), pre(1)) - wanted).abs().max() <= 1.01 / 255, name


@pytest.mark.parametrize("array", [
    np.full((4, 4), 1e6, np.int32), np.full((4, 4), -1, np.int32), np.full((4, 4), 200.0, np.float32),
    np.full((4, 4), -0.5, np.float32), np.full((4, 4), np.nan, np.float32),
])  # fmt: skip
def test_values_without_a_scale_are_not_clipped_but_refused(array: npt.NDArray[np.generic]) -> None:
    with pytest.raises(Unreadable, match="are wanted"):
        to_pixels(Image.fromarray(array), pre(1))


def test_exif_rotation_is_left_alone_and_said() -> None:
    levels = gradient()
    exif = Image.Exif()
    exif[274] = 6
    rotated = decode(saved(grey(levels), "PNG", exif=exif))
    assert torch.equal(to_pixels(rotated, pre(1)), to_pixels(grey(levels), pre(1)))
    assert "EXIF" in " ".join(oddities(rotated))
    assert not oddities(grey(levels))


def folder(path: Path, pictures: list[Image.Image]) -> Path:
    for number, image in enumerate(pictures):
        place = path / f"class {number % 2}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place)
    return path


def test_sixteen_and_eight_bits_in_one_folder(tmp_path: Path) -> None:
    levels = [gradient() * (0.5 + number / 80) for number in range(40)]
    mixed = folder(tmp_path / "mixed", [wide(x) if i % 3 else grey(x) for i, x in enumerate(levels)])
    plain = folder(tmp_path / "plain", [grey(x) for x in levels])
    for size in ((20, 24), (70, 70)):  # kept in memory, decoded each time
        seen, wanted = (open_data(str(p), preprocessing=pre(1, size)).validation for p in (mixed, plain))
        for _ in range(2):
            (x, labels), (y, same) = (next(iter(s.batches(64))) for s in (seen, wanted))
            assert torch.equal(labels, same) and (x - y).abs().max() <= 2.1 / 255 / 0.2


def test_arrays_of_sixteen_bits(tmp_path: Path) -> None:
    levels = np.stack([gradient() * (0.5 + number / 80) for number in range(40)])
    x = np.rint(levels * 65535).astype(np.uint16)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(40) % 2)
    batch = next(iter(open_data(str(tmp_path / "d.npz"), preprocessing=pre(1)).validation.batches(64)))[0]
    assert 0.6 < float(batch.mul(0.2).add(0.4).max()) <= 1.0


@pytest.mark.parametrize("kind", ["alike", "one differs", "white"])
def test_images_that_are_all_the_same_are_an_error(kind: str, tmp_path: Path) -> None:
    base = gradient() if kind != "white" else np.ones((20, 24))
    pictures = [grey(base) for _ in range(60)]
    if kind == "one differs":
        pictures = [grey(base * (1 if i % 4 else 0.5)) for i in range(60)]
    data = open_data(str(folder(tmp_path / "d", pictures)), preprocessing=pre(1))
    if kind == "one differs":
        assert examined(data) == ()
        return
    with pytest.raises(DataError, match="all the same") as caught:
        examined(data)
    assert caught.value.hint
