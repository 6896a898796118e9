"""Boxes around objects, as files give them: checked once, in pixels or in shares of the image."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.core import plural
from compress.errors import DataError

MOST_BOXES = 10_000
"""In one image."""
_EDGE = 1.0
"""Pixels that a box may stand out of its image and is clipped: formats count from 0 or from 1, and shares are rounded."""
_EDGE_SHARE = 0.002
_LEFT_OUT = 0.01
"""Share of boxes without an area that is left out; with more, something is wrong with all of them."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one image.

    Attributes:
        boxes: float64 (k, 4): left, top, right, bottom.
        labels: int64 (k,), from 1; 0 is torchvision's background.
        ignored: bool (k,): crowds and difficult objects, which are neither asked for nor held against a detector.
        extent: width and height that the boxes are of; None where they are shares of them.
    """

    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]
    extent: tuple[float, float] | None

    @staticmethod
    def of(rows: Sequence[tuple[Sequence[float], int, bool]], extent: tuple[float, float] | None) -> Boxes:
        """From (box, label, ignored) one by one."""
        return Boxes(
            np.array([box for box, _, _ in rows], np.float64).reshape(-1, 4),
            np.array([label for _, label, _ in rows], np.int64),
            np.array([ignored for _, _, ignored in rows], np.bool_),
            extent,
        )

    @staticmethod
    def none() -> Boxes:
        """Of an image without objects."""
        return Boxes.of([], None)

    @property
    def checksum(self) -> str:
        """Of all that they say."""
        parts = (self.boxes.tobytes(), self.labels.tobytes(), self.ignored.tobytes())
        return f"{zlib.crc32(b''.join(parts)):08x}"

    def at(self, extent: tuple[int, int]) -> npt.NDArray[np.float64]:
        """In pixels of the image.

        Raises:
            DataError: they were made for an image of another size.
        """
        if self.extent is None:
            return self.boxes * np.tile(np.array(extent, np.float64), 2)
        if self.extent != tuple(map(float, extent)):
            width, height = self.extent
            raise DataError(
                f"boxes are of an image of {width:g} x {height:g} pixels, its file has {extent[0]} x {extent[1]}",
                hint="make the annotations again for the images as they are",
            )
        return self.boxes


def checked(found: Mapping[str, Boxes], where: str) -> tuple[dict[str, Boxes], tuple[str, ...]]:
    """The boxes that can be, clipped to their image, and what was left out.

    Args:
        found: by the name of the image.
        where: the data's name.

    Raises:
        DataError: a box stands out of its image by more than a pixel, is not finite, or too many have no area.
    """
    result: dict[str, Boxes] = {}
    empty: list[str] = []
    for name, one in found.items():
        if len(one.boxes) > MOST_BOXES:
            raise DataError(f"{where}: {name} has {len(one.boxes)} boxes, at most {MOST_BOXES} are read")
        width, height = one.extent or (1.0, 1.0)
        slack = _EDGE if one.extent is not None else _EDGE_SHARE
        bounds = np.array([width, height, width, height])
        out = ~((one.boxes >= -slack) & (one.boxes <= bounds + slack)).all(axis=1)  # what is no number, too
        if out.any():
            box = ", ".join(f"{v:g}" for v in one.boxes[out][0])
            unit = "pixels" if one.extent is not None else "(shares of width and height)"
            raise DataError(
                f"{where}: {name} has a box from left, top to right, bottom {box}; the image is {width:g} x {height:g} {unit}",
                hint="correct or remove the box in the annotations",
            )
        boxes = np.clip(one.boxes, 0, bounds)
        flat = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
        empty += [f"{name}: {', '.join(f'{v:g}' for v in box)}" for box in one.boxes[flat]]
        result[name] = Boxes(boxes[~flat], one.labels[~flat], one.ignored[~flat], one.extent)
    total = sum(len(one.boxes) for one in found.values())
    if not total:
        raise DataError(
            f"{where}: none of {plural(len(found), 'image')} has a box",
            hint="look whether images and annotations belong together",
        )
    if len(empty) > _LEFT_OUT * total:
        raise DataError(
            f"{where}: {len(empty)} of {plural(total, 'box')} have no area (left, top, right, bottom); the first: {empty[0]}",
            hint="correct or remove them in the annotations",
        )
    note = f"{len(empty)} of {plural(total, 'box')} have no area and are left out; the first: {empty[0]}" if empty else ""
    return result, (note,) if note else ()
