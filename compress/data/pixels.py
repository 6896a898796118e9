"""A picture as the network's pixels: its values scaled by what its type can hold, in the network's size and channels.

Values are those of Pillow's and torchvision's own conversion wherever a picture has 8 bits: transparency is left out,
palettes are looked up, CMYK becomes RGB, and the rotation that EXIF notes is not carried out. What has more than 8 bits is
divided by the largest value of its type, and nothing is ever clipped to 255.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TypeGuard

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from compress.core import plural
from compress.data.preprocessing import Preprocessing
from compress.data.samples import PICTURE_CHANNELS, is_picture, to_sample
from compress.data.sources import Picture, Unreadable
from compress.errors import DataError

_MOST_ELONGATED = 100
_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2
_SHORT = 65535
_ORIENTATION = 274


def to_pixels(picture: Picture, to: Preprocessing, draw: npt.NDArray[np.float64] | None = None) -> Tensor:
    """A picture in the network's size and channels, (c, h, w), not yet normalised.

    uint8 in [0, 255] where the picture has 8 bits; float in [0, 1] where it has more; float arrays as they are.

    Args:
        picture: from a source.
        to: sizes and channels; arrays that are no pictures are taken as they are (:func:`to_sample`).
        draw: five numbers in [0, 1) for a random crop of 25 to 100 % of the area (aspect 3/4 to 4/3) and a mirror image; one
            for a mirror image alone.

    Raises:
        Unreadable: its values have no scale, or its shape is absurd.
        DataError: the network takes neither grey nor colour images, and the picture is one; or the array has another shape.
    """
    if not isinstance(picture, Image.Image):
        if not is_picture(to) or picture.ndim != 3 or picture.shape[2] not in PICTURE_CHANNELS:
            return to_sample(picture, to)
        if picture.dtype != np.uint8:
            return _float_pixels(torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))), to)
        if draw is None and picture.shape[:2] == to.size and picture.shape[2] == to.channels:
            return torch.from_numpy(picture.transpose(2, 0, 1).copy())
        picture = Image.fromarray(np.ascontiguousarray(picture.squeeze(2) if picture.shape[2] == 1 else picture))
    if not is_picture(to):
        raise DataError(
            f"pictures have 1 or 3 channels, height and width; the network takes samples of {to.shape}",
            hint=f"give an .npz whose x has the shape (n, {', '.join(map(str, to.shape))})",
        )
    if max(picture.size) > _MOST_ELONGATED * min(picture.size):  # its short side enlarged, the long one would be without bounds
        raise Unreadable(f"is {picture.width} x {picture.height}, sides of at most {_MOST_ELONGATED} to 1 are read")
    try:
        if (levels := wide_levels(picture)) is not None:
            image = _resized(Image.fromarray(levels), to, draw)
            grey = np.clip(np.asarray(image, np.float32), 0, 1)[None]  # bicubic and lanczos overshoot
            return torch.from_numpy(np.repeat(grey, to.channels, axis=0))
        image = _resized(eight_bits(picture, "L" if to.channels == 1 else "RGB"), to, draw)
        pixels = np.array(image, dtype=np.uint8).reshape(*to.size, to.channels)
    except (OSError, ValueError, MemoryError, OverflowError) as error:  # of a mode or a shape that nobody has seen yet
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def eight_bits(picture: Image.Image, mode: str) -> Image.Image:
    """A picture of 8 bits or fewer in mode ``L`` or ``RGB``, transparency left out.

    Grey goes by the colours that are seen: a picture without colour of its own (CMYK, palette) is first looked up.
    """
    if picture.mode == mode:
        return picture
    if "transparency" in picture.info:  # of a palette or of one colour: Pillow would warn, or change values
        picture = picture.copy()
        del picture.info["transparency"]
    if mode == "L" and picture.mode not in ("1", "L", "LA", "La", "RGB", "RGBA", "RGBX"):
        picture = picture.convert("RGB")
    return picture.convert(mode)


def wide_levels(picture: Image.Image) -> npt.NDArray[np.float32] | None:
    """The grey levels (h, w) in [0, 1] of a picture with more than 8 bits; None where it has 8 or fewer.

    16 bits are divided by 65,535 (12 of TIFF by 4,095, signed ones by 32,767), Pillow's 32-bit integers by 65,535, as Pillow
    writes them to PNG and PGM; floating point is taken as it is.

    Raises:
        Unreadable: values outside of that range, which have no scale.
    """
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return None
    values = np.asarray(picture)
    tags = getattr(picture, "tag_v2", {})
    bits, signed = _first(tags, _BITS), _first(tags, _SAMPLE_FORMAT) == _SIGNED
    if picture.mode == "F":
        top = 1.0
    elif bits is not None and 8 < bits <= 16:
        top = float((1 << (bits - signed)) - 1)
    else:
        top = float(_SHORT)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (low >= 0 and high <= top):  # NaN too
        kind = "floating-point" if picture.mode == "F" else f"{bits or 32}-bit"
        raise Unreadable(f"holds {kind} values from {low:g} to {high:g}, 0 to {top:g} are wanted: scale them, or give an .npz")
    levels = values.astype(np.float32) / np.float32(top)
    return 1 - levels if picture.mode != "F" and _first(tags, _PHOTOMETRIC) == _WHITE_IS_ZERO else levels


def _first(tags: object, tag: int) -> int | None:
    """The (first) value of a TIFF tag, where the picture has it."""
    found = tags.get(tag) if hasattr(tags, "get") else None
    found = found[0] if isinstance(found, tuple) and found else found
    return found if isinstance(found, int) else None


def oddities(picture: Image.Image) -> tuple[str, ...]:
    """What a user should know about how such a picture is read."""
    told = []
    levels = wide_levels(picture)
    if levels is not None and picture.mode != "F":
        highest = float(levels.max()) if levels.size else 0.0
        told.append("images of more than 8 bits are divided by the largest value of their type")
        if 0 < highest <= 1 / 8:
            told.append(
                f"the first image uses values up to {highest:.4g} of its type's range only (12 bits of 16?): a network "
                "that was trained on values divided by their own maximum M wants --mean and --std multiplied by M / 65535"
            )
    if _orientation(picture) in range(2, 9):
        told.append("rotations that EXIF notes are not carried out, as torchvision does not")
    return tuple(told)


def _orientation(picture: Image.Image) -> object:
    """What EXIF says; None where it says nothing or is damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return picture.getexif().get(_ORIENTATION)
        except Exception:  # a damaged block fails in as many ways as it has bytes
            return None


def _resized(image: Image.Image, to: Preprocessing, draw: npt.NDArray[np.float64] | None) -> Image.Image:
    height, width = to.size
    resample = _RESAMPLE[to.interpolation]
    if _crops(draw):
        image = image.resize((width, height), resample, box=_random_box(image.width, image.height, draw))
    elif to.resize is not None:
        sides, (left, top) = _centre(image.size, to)
        image = image.resize(sides, resample)
        image = image.crop((left, top, left + width, top + height))
    elif image.size != (width, height):
        image = image.resize((width, height), resample)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if _mirrors(to, draw) else image


def _crops(draw: npt.NDArray[np.float64] | None) -> TypeGuard[npt.NDArray[np.float64]]:
    return draw is not None and len(draw) > 1


def _mirrors(to: Preprocessing, draw: npt.NDArray[np.float64] | None) -> bool:
    return draw is not None and to.channels == 3 and bool(draw[-1] < 0.5)


def _centre(extent: tuple[int, int], to: Preprocessing) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height once the short side is ``to.resize``, and the corner of the crop from the middle."""
    scale = (to.resize or 1) / min(extent)
    width, height = max(1, int(extent[0] * scale)), max(1, int(extent[1] * scale))
    return (width, height), (round((width - to.size[1]) / 2), round((height - to.size[0]) / 2))


def varies(picture: Picture) -> bool:
    """Whether a picture is cropped and mirrored at all: not where it is an array of other numbers than bytes."""
    return isinstance(picture, Image.Image) or (
        picture.ndim == 3 and picture.dtype == np.uint8 and picture.shape[2] in PICTURE_CHANNELS
    )


def mask_pixels(mask: npt.NDArray[np.int32], to: Preprocessing, draw: npt.NDArray[np.float64] | None) -> Tensor:
    """A mask (h, w) as its image is sized, cropped and mirrored, int64; every pixel keeps a class that was there."""
    placed = _resized(Image.fromarray(mask), replace(to, interpolation="nearest"), draw)
    return torch.from_numpy(np.asarray(placed).astype(np.int64))


def placed_boxes(
    boxes: npt.NDArray[np.float64], extent: tuple[int, int], to: Preprocessing, draw: npt.NDArray[np.float64] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Boxes (k, 4) as their image is sized, cropped and mirrored, clipped to it; and which are kept: those whose middle is."""
    height, width = to.size
    if _crops(draw):
        left, top, right, bottom = _random_box(*extent, draw)
        scale = (width / (right - left), height / (bottom - top))
        shift = (-left * scale[0], -top * scale[1])
    elif to.resize is not None:
        sides, corner = _centre(extent, to)
        scale = (sides[0] / extent[0], sides[1] / extent[1])
        shift = (-float(corner[0]), -float(corner[1]))
    else:
        scale, shift = (width / extent[0], height / extent[1]), (0.0, 0.0)
    found = boxes * np.tile(scale, 2) + np.tile(shift, 2)
    if _mirrors(to, draw):
        found[:, [0, 2]] = width - found[:, [2, 0]]
    across, down = (found[:, 0] + found[:, 2]) / 2, (found[:, 1] + found[:, 3]) / 2
    clipped = np.clip(found, 0, (width, height, width, height)).astype(np.float32)
    kept = (across >= 0) & (across <= width) & (down >= 0) & (down <= height)
    kept &= (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    return clipped[kept], kept


def _random_box(width: int, height: int, draw: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    area = width * height * (0.25 + 0.75 * draw[0])
    aspect = float(np.exp(np.log(4 / 3) * (2 * draw[1] - 1)))
    w, h = min(width, (area * aspect) ** 0.5), min(height, (area / aspect) ** 0.5)
    left, top = (width - w) * draw[2], (height - h) * draw[3]
    return (left, top, left + w, top + h)


def _float_pixels(pixels: Tensor, to: Preprocessing) -> Tensor:
    if pixels.shape[0] != to.channels:
        if pixels.shape[0] != 1 and to.channels != 1:
            raise DataError(f"images have {plural(pixels.shape[0], 'channel')}, the network takes {to.channels}")
        pixels = pixels.mean(0, keepdim=True).expand(to.channels, -1, -1)
    if tuple(pixels.shape[1:]) != to.size:
        pixels = F.interpolate(pixels[None], to.size, mode="bilinear", antialias=True, align_corners=False)[0]
    return pixels.clone()


def crop_and_flip(batch: Tensor, rng: np.random.Generator, margin: int) -> Tensor:
    """Each image shifted by up to ``margin`` pixels (black comes in) and mirrored with probability one half.

    Args:
        batch: (n, c, h, w), uint8 or float.
        rng: decides.
        margin: pixels.
    """
    n, _, height, width = batch.shape
    windows = F.pad(batch, (margin,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view: (n, c, shifts, shifts, h, w)
    down, right = torch.from_numpy(rng.integers(0, 2 * margin + 1, (2, n)))
    cropped = windows[torch.arange(n), :, down, right]
    mirrored = torch.from_numpy(rng.random(n) < 0.5)
    cropped[mirrored] = cropped[mirrored].flip(3)
    return cropped


def stacked(rows: list[Tensor]) -> Tensor:
    """Pixels of several pictures as one batch: floating point in [0, 1] where any of them is."""
    if len({row.dtype for row in rows}) > 1:
        rows = [row.float().div(255) if row.dtype == torch.uint8 else row for row in rows]
    return torch.stack(rows)
