"""What images are answered with: values, masks, other images, boxes; sized, cropped and mirrored with their image."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from compress.data.boxes import Boxes
from compress.data.pixels import mask_pixels, placed_boxes, to_pixels
from compress.data.preprocessing import Preprocessing
from compress.data.sources import Files, Picture, Unreadable
from compress.errors import DataError

TargetKind = Literal["none", "classes", "values", "masks", "images", "boxes", "own"]
"""Nothing; class indices (n,); numbers (n, k); class indices (n, h, w); images (n, c, h, w) in [0, 1]; a list of dicts of
``boxes``, ``labels`` and ``iscrowd`` in torchvision's conventions; whatever a user's loader gives."""
Draw = npt.NDArray[np.float64] | None
_DRAWS: Mapping[TargetKind, int] = {"masks": 5, "boxes": 1, "images": 1}
"""Random numbers of a variation: five for a crop and a mirror image, one for a mirror image."""
HIGHEST_INDEX = 65_535


class Targets(Protocol):
    """Targets by the number of their image in its source."""

    @property
    def kind(self) -> TargetKind:
        """What they are."""

    @property
    def draws(self) -> int:
        """Random numbers that vary an image without making its target untrue (see :func:`compress.data.pixels.to_pixels`)."""

    def mark(self, index: int) -> str:
        """What identifies a target, for the split's digest."""

    def read(self, index: int, extent: tuple[int, int], to: Preprocessing, draw: Draw) -> Any:
        """The target of an image that becomes the network's input.

        Args:
            index: the image's number in its source.
            extent: the image's width and height before anything was done to it.
            to: what is done to the image.
            draw: how it is varied.

        Raises:
            Unreadable: the target is damaged.
            DataError: it is not of this image: another size, an index that cannot be.
        """


@dataclass(frozen=True, eq=False)
class RowTargets:
    """One row an image: float32 (n, k) values, (n, h, w) masks, or images (n, h, w, c).

    Attributes:
        kind: ``values``, ``masks`` or ``images``.
        rows: the array.
        label: what to call it.
    """

    kind: TargetKind
    rows: npt.NDArray[Any]
    label: str

    @property
    def draws(self) -> int:
        """Values stay true under any crop or mirror only where they say what is there or not: 0 and 1."""
        if self.kind == "values":
            return 5 if np.isin(self.rows, (0, 1)).all() else 0
        return _DRAWS[self.kind]

    def mark(self, index: int) -> str:
        """A checksum of the row."""
        return f"{zlib.crc32(np.ascontiguousarray(self.rows[index]).tobytes()):08x}"

    def read(self, index: int, extent: tuple[int, int], to: Preprocessing, draw: Draw) -> Tensor:
        """The row."""
        name = f"{self.label}[{index}]"
        if self.kind == "values":
            return torch.from_numpy(self.rows[index].copy())
        if self.kind == "masks":
            return _mask(self.rows[index], name, extent, to, draw)
        return _image(self.rows[index], name, extent, to, draw)


@dataclass(frozen=True, eq=False)
class FileTargets:
    """One file an image: its mask, or the image that is to come out.

    Attributes:
        kind: ``masks`` or ``images``.
        files: where images and targets lie.
        of: the image's number -> its target's.
    """

    kind: TargetKind
    files: Files
    of: Mapping[int, int]

    @property
    def draws(self) -> int:
        """A mask is cropped and mirrored with its image; an image to be restored is never enlarged, only mirrored."""
        return _DRAWS[self.kind]

    def mark(self, index: int) -> str:
        """The file's."""
        return self.files.mark(self.of[index])

    def read(self, index: int, extent: tuple[int, int], to: Preprocessing, draw: Draw) -> Tensor:
        """The file's content."""
        which = self.of[index]
        picture, name = self.files.read(which), self.files.name(which)
        return (_mask if self.kind == "masks" else _image)(picture, name, extent, to, draw)


@dataclass(frozen=True, eq=False)
class BoxTargets:
    """Boxes around objects, by the image's number; an image without any has none."""

    of: Mapping[int, Boxes]
    kind: TargetKind = "boxes"

    @property
    def draws(self) -> int:
        """They are mirrored with their image."""
        return _DRAWS["boxes"]

    def mark(self, index: int) -> str:
        """A checksum of the boxes."""
        found = self.of.get(index)
        return "" if found is None else found.checksum

    def read(self, index: int, extent: tuple[int, int], to: Preprocessing, draw: Draw) -> dict[str, Tensor]:
        """``boxes`` float32 (k, 4): left, top, right, bottom in the input's pixels; ``labels`` int64 from 1; ``iscrowd``."""
        found = self.of.get(index) or Boxes.none()
        placed, kept = placed_boxes(found.at(extent), extent, to, draw)
        return {
            "boxes": torch.from_numpy(placed),
            "labels": torch.from_numpy(found.labels[kept]),
            "iscrowd": torch.from_numpy(found.ignored[kept].astype(np.int64)),
        }


def collated(kind: TargetKind, rows: list[Any]) -> Any:
    """Targets of several images as a batch: a list of boxes, a tensor of everything else."""
    if kind == "boxes":
        return rows
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) > 1:
        raise DataError(f"targets of different shapes in one batch: {sorted(shapes)[:3]}", hint="give targets of one shape")
    return torch.stack(rows)


def indices_of(picture: Picture, name: str) -> npt.NDArray[np.int32]:
    """A mask's class indices, (h, w); of a picture with a palette, the numbers of its colours.

    Raises:
        DataError: it holds colours, or numbers that are no indices.
    """
    if isinstance(picture, Image.Image):
        if picture.mode not in ("1", "L", "P", "I") and not picture.mode.startswith("I;16"):
            raise DataError(
                f"mask {name} holds colours ({picture.mode}), one class index a pixel is wanted",
                hint="write masks as grey or palette PNG whose values are the class indices",
            )
        found = np.asarray(picture)
    else:
        found = picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    if found.ndim != 2 or found.dtype.kind not in "iub":
        raise DataError(
            f"mask {name} has type {found.dtype} and shape {found.shape}; whole numbers (h, w) are wanted",
            hint="save masks as integers, one class index a pixel",
        )
    check_indices(found, name)
    return found.astype(np.int32)


def check_indices(found: npt.NDArray[Any], name: str) -> None:
    """Looks at the numbers of a mask, or of many.

    Raises:
        DataError: they are negative, or too large for indices.
    """
    low, high = (int(found.min()), int(found.max())) if found.size else (0, 0)
    if low < 0 or high > HIGHEST_INDEX:
        raise DataError(
            f"mask {name} has indices from {low} to {high}, 0 to {HIGHEST_INDEX} are read",
            hint="number classes from 0, and what is to be ignored 255",
        )


def _mask(picture: Picture, name: str, extent: tuple[int, int], to: Preprocessing, draw: Draw) -> Tensor:
    found = indices_of(picture, name)
    if found.shape != extent[::-1]:
        raise DataError(
            f"mask {name} is {found.shape[1]} x {found.shape[0]}, its image {extent[0]} x {extent[1]}",
            hint="give a mask of the image's own size",
        )
    return mask_pixels(found, to, draw)


def _image(picture: Picture, name: str, extent: tuple[int, int], to: Preprocessing, draw: Draw) -> Tensor:
    """In [0, 1]; as many times larger than the network's input as the file is larger than the input's file."""
    width, height = picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])
    times = max(1, width // max(1, extent[0]))
    if (width, height) != (times * extent[0], times * extent[1]):
        raise DataError(
            f"{name} is {width} x {height}, its image {extent[0]} x {extent[1]}: neither the same size nor a multiple of it",
            hint="give targets of the image's size, or two, three, four ... times that in both directions",
        )
    resize = None if to.resize is None else to.resize * times
    zeros, ones = (0.0,) * to.channels, (1.0,) * to.channels
    sides = tuple(side * times for side in to.size)
    larger = Preprocessing(mean=zeros, std=ones, size=sides, resize=resize, interpolation=to.interpolation)
    pixels = to_pixels(picture, larger, draw)
    return pixels.float().div(255) if pixels.dtype == torch.uint8 else pixels


def check_masks(targets: FileTargets | RowTargets, sample: list[int], classes: int) -> None:
    """Looks at masks before any work is done.

    Args:
        targets: the masks.
        sample: numbers of images.
        classes: names that are known; 0 for none. The number behind the last one, and 255, may stand for what is ignored.

    Raises:
        DataError: one is of another size than its image, holds colours, or an index beyond the names.
    """
    for index in sample:
        try:
            if isinstance(targets, FileTargets):
                which = targets.of[index]
                name, found = targets.files.name(which), indices_of(targets.files.read(which), targets.files.name(which))
                extent = targets.files.extent(index)
            else:
                name = f"{targets.label}[{index}]"
                found, extent = indices_of(targets.rows[index], name), None
        except Unreadable:
            continue  # counted when it is read
        if extent is not None and found.shape != extent[::-1]:
            raise DataError(
                f"mask {name} is {found.shape[1]} x {found.shape[0]}, its image {extent[0]} x {extent[1]}",
                hint="give a mask of the image's own size",
            )
        wrong = found[(found > classes) & (found != 255)] if classes else found[:0]
        if wrong.size:
            raise DataError(
                f"mask {name} has class index {int(wrong.max())}, {classes} classes are named (0 to {classes - 1})",
                hint="add the names to classes.txt, or write 255 where a pixel is to be ignored",
            )


__all__ = [
    "BoxTargets",
    "FileTargets",
    "RowTargets",
    "TargetKind",
    "Targets",
    "check_indices",
    "check_masks",
    "collated",
    "indices_of",
]
