"""A set of images that is read when asked for, and handed out as normalised batches with what they are answered with."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from compress.core import plural
from compress.data.pixels import crop_and_flip, stacked, to_pixels, varies
from compress.data.preprocessing import Preprocessing
from compress.data.samples import is_picture
from compress.data.sources import Images, Picture, Unreadable
from compress.data.targets import TargetKind, Targets, collated
from compress.errors import DataError

SMALL_SIDE = 64
CACHE_BYTES = 2 * 2**30
_CROP_MARGIN = 4
Seed = int | Sequence[int] | None


class Split:
    """Images with labels or other targets; none is read before batches, images or an item are asked for.

    Small images (sides up to 64) are decoded once and kept as bytes; larger ones are decoded on the fly, at most two
    batches ahead. Damaged ones are left out, up to 1 % or five, whichever is more.

    Args:
        name: ``train``, ``validation``, ``calibration`` or ``test``.
        images: where they lie.
        indices: which of them.
        labels: of those, in [0, classes), or all -1.
        preprocessing: what is done to each.
        seed: of the draw that made the split; part of the digest.
        targets: what the images are answered with, where that is no class index an image.
    """

    def __init__(
        self,
        name: str,
        images: Images,
        indices: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int64],
        preprocessing: Preprocessing,
        seed: int = 0,
        targets: Targets | None = None,
    ) -> None:
        self.name = name
        self.preprocessing = preprocessing
        self.indices = indices
        self.labels = labels
        self._images = images
        self._seed = seed
        self._targets = targets
        self._cache: Tensor | None = None
        self._skipped: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Images listed; damaged ones are only known when they have been read."""
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, Any]:
        """One image (c, h, w), normalised, and its label or target; a damaged one raises :class:`DataError`."""
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position %= len(self)
        found = self._decode(position, None)
        if found is None:
            raise DataError(f"{self.name}: {self._skipped[position]}")
        pixels, target = found
        return self._normalised(pixels[None])[0], int(self.labels[position]) if self._targets is None else target

    @property
    def labelled(self) -> bool:
        """Whether the classes are known: one index an image."""
        return len(self.labels) > 0 and int(self.labels.min()) >= 0

    @property
    def target_kind(self) -> TargetKind:
        """What the images are answered with."""
        return self._targets.kind if self._targets is not None else "classes" if self.labelled else "none"

    @property
    def skipped(self) -> tuple[str, ...]:
        """Damaged images met so far, with the reason."""
        return tuple(self._skipped[p] for p in sorted(self._skipped))

    @property
    def digest(self) -> str:
        """Identifies members, labels or targets, and draw, without reading an image."""
        hashed = hashlib.sha256(f"{self.name}\0{self._seed}\0".encode())
        for index, label in zip(self.indices.tolist(), self.labels, strict=True):
            known = label if self._targets is None else self._targets.mark(index)
            hashed.update(f"{self._images.mark(index)}\0{known}\n".encode())
        return hashed.hexdigest()[:16]

    def all_alike(self, most: int = 256) -> bool:
        """Whether the first readable images, at most so many and two or more, are one and the same to the network."""
        first: Tensor | None = None
        count = 0
        for position in range(min(most, len(self))):
            found = self._decode(position, None)
            if found is None:
                continue
            pixels, _ = found
            count += 1
            if first is None:
                first = pixels
            elif first.dtype != pixels.dtype or not torch.equal(first, pixels):
                return False
        return count > 1

    def picture(self, position: int) -> Picture:
        """One image as its file holds it; a damaged one raises :class:`Unreadable`."""
        return self._images.read(int(self.indices[position]))

    def members(self) -> tuple[str, ...]:
        """Names of the images."""
        return tuple(self._images.name(int(i)) for i in self.indices)

    def images(self, n: int) -> Tensor:
        """The first ``n`` readable images (fewer if there are fewer), normalised, (n, c, h, w)."""
        parts: list[Tensor] = []
        missing = n
        for batch, _ in self.batches(min(max(n, 1), 64), limit=min(n + self._allowed(), len(self))):
            parts.append(batch[:missing])
            missing -= len(parts[-1])
            if missing <= 0:
                break
        if not parts:
            raise DataError(f"{self.name}: {plural(n, 'image')} asked for, none of {len(self)} can be read")
        return torch.cat(parts)

    def batches(
        self, batch_size: int, *, shuffle_seed: Seed = None, augment: bool = False, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Any]]:
        """Normalised images (n, c, h, w) and labels (n,) or targets, equal for equal arguments.

        Targets are (n, k) float32 values, (n, h, w) int64 masks, (n, c, h, w) float32 images in [0, 1], or a list of n dicts
        of boxes; sized, cropped and mirrored with their images.

        Args:
            batch_size: images in a batch; the last one, and those with damaged images, are smaller.
            shuffle_seed: an order that only depends on this, e.g. ``(seed, epoch)``; the split's own without it.
            augment: random crops, and mirrored images where there is colour; nothing for pictures of up to 16 pixels, for
                large floating-point arrays, and for values that are not all 0 or 1. Pictures with boxes, or to be restored,
                are mirrored alone.
            limit: only so many images.

        Raises:
            DataError: too many images are damaged.
        """
        if batch_size < 1:
            raise DataError(f"a batch of {batch_size} images; at least 1 is needed")
        seed = [0] if shuffle_seed is None else [shuffle_seed] if isinstance(shuffle_seed, int) else list(shuffle_seed)
        rng = np.random.default_rng(np.random.SeedSequence(seed))
        order = np.arange(len(self)) if shuffle_seed is None else rng.permutation(len(self))
        order = order[: limit if limit is None else max(limit, 0)]
        chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        if self._fits() and (augment or self._cache is not None or len(order) * 4 >= len(self)):
            yield from self._cached(chunks, rng, augment)
        else:
            yield from self._streamed(chunks, rng, augment)

    def _fits(self) -> bool:
        small = max(self.preprocessing.size) <= SMALL_SIDE and self.target_kind in ("none", "classes", "values")
        return small and len(self) * int(np.prod(self.preprocessing.shape)) <= CACHE_BYTES

    def _cached(
        self, chunks: list[npt.NDArray[np.int64]], rng: np.random.Generator, augment: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if self._cache is None:
            self._cache = self._decode_all()
        labels = torch.from_numpy(self.labels)
        if self._targets is not None:
            read = self._targets.read
            labels = torch.stack([read(i, (1, 1), self.preprocessing, None) for i in self.indices.tolist()])
        wanted = (
            augment
            and (self._targets is None or self._targets.draws > 1)
            and is_picture(self.preprocessing)
            and self.preprocessing.channels == 3
            and min(self.preprocessing.size) > 16
        )
        for chunk in chunks:
            positions = torch.from_numpy(np.array([p for p in chunk if p not in self._skipped] if self._skipped else chunk))
            if not len(positions):
                continue
            batch = self._cache[positions]
            if wanted:
                batch = crop_and_flip(batch, rng, _CROP_MARGIN)
            yield self._normalised(batch), labels[positions]

    def _decode_all(self) -> Tensor:
        rows: Tensor | None = None
        with ThreadPoolExecutor(_workers()) as pool:
            for position, found in enumerate(pool.map(lambda p: self._decode(p, None), range(len(self)), chunksize=64)):
                if found is None:
                    continue
                pixels, _ = found
                if rows is None:
                    rows = torch.zeros((len(self), *pixels.shape), dtype=pixels.dtype)
                if rows.dtype != pixels.dtype:  # pictures of 8 bits among pictures of more
                    rows, pixels = (t.float().div(255) if t.dtype == torch.uint8 else t for t in (rows, pixels))
                rows[position] = pixels
        if rows is None:
            raise DataError(f"{self.name}: none of {plural(len(self), 'image')} can be read; first: {self.skipped[:1]}")
        return rows

    def _streamed(
        self, chunks: list[npt.NDArray[np.int64]], rng: np.random.Generator, augment: bool
    ) -> Iterator[tuple[Tensor, Any]]:
        pool = ThreadPoolExecutor(_workers())
        numbers = 5 if self._targets is None else self._targets.draws

        def submit(chunk: npt.NDArray[np.int64]) -> list[tuple[int, Future[tuple[Tensor, Any] | None]]]:
            draws = rng.random((len(chunk), numbers)) if augment and numbers else None
            return [
                (int(p), pool.submit(self._decode, int(p), None if draws is None else draws[i])) for i, p in enumerate(chunk)
            ]

        try:
            ahead = submit(chunks[0]) if chunks else []
            for number in range(len(chunks)):
                now, ahead = ahead, submit(chunks[number + 1]) if number + 1 < len(chunks) else []
                decoded = [(p, *found) for p, future in now if (found := future.result()) is not None]
                if decoded:
                    pixels = self._normalised(stacked([pixels for _, pixels, _ in decoded]))
                    if self._targets is None:
                        yield pixels, torch.from_numpy(self.labels[[p for p, _, _ in decoded]])
                    else:
                        yield pixels, collated(self._targets.kind, [target for _, _, target in decoded])
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, position: int, draw: npt.NDArray[np.float64] | None) -> tuple[Tensor, Any] | None:
        """Pixels and target; None where one of them is damaged."""
        index = int(self.indices[position])
        try:
            picture = self._images.read(index)
            pixels = to_pixels(picture, self.preprocessing, draw)
            if self._targets is None:
                return pixels, None
            extent = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
            varied = draw if varies(picture) else None
            return pixels, self._targets.read(index, extent, self.preprocessing, varied)
        except Unreadable as error:
            with self._lock:  # several threads decode; none adds to what is too much already
                if len(self._skipped) <= self._allowed():
                    self._skipped[position] = f"{self._images.name(index)}: {error}"
        if len(self._skipped) > self._allowed():
            raise DataError(
                f"{self.name}: {len(self._skipped)} of {plural(len(self), 'image')} cannot be read, "
                f"at most {self._allowed()} are skipped; the first: {'; '.join(self.skipped[:3])}",
                hint="remove or replace the damaged files",
            )
        return None

    def _allowed(self) -> int:
        return max(5, len(self) // 100)

    def _normalised(self, pixels: Tensor) -> Tensor:
        shape = (-1, *[1] * len(self.preprocessing.size))
        mean = torch.tensor(self.preprocessing.mean).view(shape)
        std = torch.tensor(self.preprocessing.std).view(shape)
        if pixels.dtype == torch.uint8:
            return pixels.float().sub_(mean * 255).div_(std * 255)
        return (pixels - mean) / std


def _workers() -> int:
    return min(8, os.cpu_count() or 1)
