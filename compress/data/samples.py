"""Arrays that are no pictures: sound, volumes, images of many bands. They are used as they are, in the network's own layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compress.data.preprocessing import Preprocessing
from compress.errors import DataError

PICTURE_CHANNELS = (1, 3)


def is_picture(to: Preprocessing) -> bool:
    """Whether the network takes pictures: grey or coloured, with height and width."""
    return len(to.size) == 2 and to.channels in PICTURE_CHANNELS


def to_sample(row: npt.NDArray[Any], to: Preprocessing) -> Tensor:
    """One row of an array as the network takes it, (channels, *size); channels may also stand last, or, if one, nowhere.

    Raises:
        DataError: it has another shape.
    """
    found = row[..., 0] if row.ndim == len(to.shape) + 1 and row.shape[-1] == 1 else row
    if found.shape != to.shape and found.ndim == len(to.size) and to.channels == 1:
        found = found[None]
    if found.ndim == len(to.shape):
        first = np.moveaxis(found, -1, 0)
        # Three sides may have been taken for a picture's and turned already: then the stored layout comes back first.
        layouts = (found, first, np.moveaxis(first, -1, 0))
        found = next((layout for layout in layouts if layout.shape == to.shape), found)
    if found.shape != to.shape:
        sides = found.shape[1:] if found.ndim == len(to.shape) and found.shape[0] == to.channels else ()
        cure = f"say their size: --size {','.join(map(str, sides))}" if sides else _wanted(to)
        raise DataError(f"the samples have the shape {found.shape}, the network takes {to.shape}", hint=cure)
    return torch.from_numpy(np.ascontiguousarray(found).copy())


def _wanted(to: Preprocessing) -> str:
    return f"give an .npz whose x has the shape {('n', *to.shape)} or {('n', *to.size, to.channels)}".replace("'", "")
