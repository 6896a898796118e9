"""Where images lie: files of a folder, members of a zip archive, rows of an array. Nothing is read before it is asked for."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from compress.core import plural, read_text
from compress.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
TEXTS = (".txt", ".xml", ".json", ".yaml", ".yml", ".csv")
LARGEST_FILE = 256 * 2**20
LARGEST_ANNOTATIONS = 512 * 2**20
"""Bytes of one file that says what is on the images; COCO's own have 450 million."""
LARGEST_PIXELS = 80_000_000
_FREE_PIXELS, _FREE_BYTES, _DENSEST = 2**22, 2**24, 1000
"""Pixels of any file, bytes of any member of an archive, and how many there may be per byte otherwise; bombs have more."""
_DENSEST_TEXT = 100
LARGEST_ARRAY = 8 * 2**30

Picture = Image.Image | npt.NDArray[Any]


class Unreadable(Exception):
    """One image cannot be decoded; the split counts it and goes on."""


class Images(Protocol):
    """Pictures by number."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call a picture in a message."""

    def mark(self, index: int) -> str:
        """What identifies a picture without reading it: name and size, and a checksum where the source has one."""

    def read(self, index: int) -> Picture:
        """The picture: a decoded image, or an array (height, width, channels) of uint8 or of float32.

        Raises:
            Unreadable: it is damaged.
        """


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file: its path inside the source, its size in bytes and, in an archive, its checksum."""

    path: str
    size: int
    crc: int = 0


class FolderImages:
    """The image files below a folder, in the order of their names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        found = sorted(_walk(root), key=lambda e: e.path)
        self.entries: Sequence[ImageFile] = tuple(e for e in found if e.path.lower().endswith(SUFFIXES))
        self.texts: Mapping[str, ImageFile] = {e.path: e for e in found if e.path.lower().endswith(TEXTS)}

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """Its path below the folder."""
        return self.entries[index].path

    def mark(self, index: int) -> str:
        """Path and size."""
        return f"{self.entries[index].path}\0{self.entries[index].size}"

    def read(self, index: int) -> Picture:
        """The decoded image."""
        return decode(self._bytes(index))

    def extent(self, index: int) -> tuple[int, int]:
        """Width and height, from the head of the file."""
        return _opened(self._bytes(index)).size

    def text(self, path: str) -> str:
        """What a file of annotations says.

        Raises:
            DataError: it cannot be read, is too large, or no UTF-8.
        """
        try:
            return read_text(self.root / path, most=LARGEST_ANNOTATIONS)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}", hint="write it again as UTF-8") from error

    def _bytes(self, index: int) -> bytes:
        path = self.root / self.entries[index].path
        try:
            if not 0 < self.entries[index].size <= LARGEST_FILE:  # the kernel's own files say 0 and may never end
                raise Unreadable(f"has {self.entries[index].size} bytes")
            with path.open("rb") as file:
                return file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise Unreadable(str(error)) from error


def _walk(root: Path) -> list[ImageFile]:
    found: list[ImageFile] = []
    seen: set[tuple[int, int]] = set()  # class folders are often links; a link that leads back must end
    for folder, below, files in os.walk(root, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in (folder, *files):
            if not name.isprintable() and any("\ud800" <= c <= "\udfff" for c in name):
                raise DataError(f"{os.fsencode(Path(folder, name))!r:.100} has a name that is no UTF-8", hint="rename it")
        below[:] = [name for name in below if not _hidden(name)]
        for name in files:
            path = Path(folder, name)
            if not _hidden(name) and path.suffix.lower() in (*SUFFIXES, *TEXTS) and path.is_file():
                found.append(ImageFile(path.relative_to(root).as_posix(), path.stat().st_size))
    return found


class ZipImages:
    """The image members of a zip archive, read in place: nothing is ever extracted to disk."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
            entries = [found for member in self.archive.infolist() if (found := _listed(path, member)) is not None]
        except DataError:
            raise
        except Exception as error:  # a damaged directory fails in as many ways as it has bytes
            raise DataError(f"{path} is no readable zip archive: {error}", hint="copy or download it again") from error
        entries.sort(key=lambda pair: pair[0].path)
        images = [pair for pair in entries if pair[0].path.lower().endswith(SUFFIXES)]
        self.entries: Sequence[ImageFile] = tuple(e for e, _ in images)
        self.texts: Mapping[str, ImageFile] = {e.path: e for e, _ in entries if e.path.lower().endswith(TEXTS)}
        self._members = tuple(m for _, m in images)
        self._texts = {e.path: m for e, m in entries if e.path in self.texts}

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """Its path in the archive."""
        return self.entries[index].path

    def mark(self, index: int) -> str:
        """Path, size and checksum, from the archive's directory."""
        entry = self.entries[index]
        return f"{entry.path}\0{entry.size}\0{entry.crc}"

    def read(self, index: int) -> Picture:
        """The decoded image."""
        return decode(self._bytes(self._members[index], LARGEST_FILE, _DENSEST))

    def extent(self, index: int) -> tuple[int, int]:
        """Width and height, from the head of the file."""
        return _opened(self._bytes(self._members[index], LARGEST_FILE, _DENSEST)).size

    def text(self, path: str) -> str:
        """What a file of annotations says.

        Raises:
            DataError: it cannot be read, is too large, or no UTF-8.
        """
        try:
            return self._bytes(self._texts[path], LARGEST_ANNOTATIONS, _DENSEST_TEXT, empty=True).decode()
        except (Unreadable, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}", hint="write it again as UTF-8, and pack it again") from error

    def _bytes(self, member: zipfile.ZipInfo, most: int, densest: int, *, empty: bool = False) -> bytes:
        size, packed = member.file_size, member.compress_size
        if not (0 < size <= min(most, _FREE_BYTES + densest * packed) or (empty and size == 0)):
            raise Unreadable(f"claims {size} bytes in {packed}")
        try:
            with self.archive.open(member) as file:
                return file.read(most + 1)
        except Exception as error:  # damaged archives fail in any way: zlib, CRC, offsets, unknown methods
            raise Unreadable(str(error)) from error


Files = FolderImages | ZipImages


def _listed(path: Path, member: zipfile.ZipInfo) -> tuple[ImageFile, zipfile.ZipInfo] | None:
    """A member that may be an image, or say something about images.

    Raises:
        DataError: its path leads out of the archive, or it is encrypted.
    """
    parts = PurePosixPath(member.filename.replace("\\", "/"))
    if member.is_dir() or parts.suffix.lower() not in (*SUFFIXES, *TEXTS) or any(_hidden(p) for p in parts.parts if p != ".."):
        return None
    if parts.is_absolute() or ".." in parts.parts or "\0" in member.filename:
        raise DataError(
            f"{path}: the member {member.filename[:80]!r} points outside of the archive",
            hint="do not use this archive; pack the folder again with `zip -r`",
        )
    if member.flag_bits & 1:
        raise DataError(f"{path}: {member.filename[:80]!r} is encrypted", hint="unpack it and give the folder")
    return ImageFile(str(parts), member.file_size, member.CRC), member


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def decode(data: bytes) -> Image.Image:
    """An image from the bytes of its file.

    Raises:
        Unreadable: they are no image, or one of absurd size.
    """
    image = _opened(data)
    try:
        image.load()
    except Exception as error:  # as below
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    return image


def _opened(data: bytes) -> Image.Image:
    if len(data) > LARGEST_FILE:
        raise Unreadable(f"larger than {LARGEST_FILE} bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Exception as error:  # decoders of seven formats raise anything on damaged bytes
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    if image.width * image.height > min(LARGEST_PIXELS, max(_FREE_PIXELS, _DENSEST * len(data))):
        raise Unreadable(f"claims {image.width} x {image.height} pixels")
    return image


class ArrayImages:
    """Rows of an array that is loaded when the first of them is read.

    Args:
        label: what to call it in messages and digests.
        count: its rows.
        load: gives the array: (n, h, w), (n, h, w, c) or (n, c, h, w), uint8 or floating point; or, for networks that take
            something else than pictures, their own layout.
    """

    def __init__(self, label: str, count: int, load: Callable[[], Any]) -> None:
        self.label = label
        self.count = count
        self._load = load
        self._rows: npt.NDArray[Any] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """The array's name and the row."""
        return f"{self.label}[{index}]"

    def mark(self, index: int) -> str:
        """The same: rows are not read to be identified."""
        return f"{self.label}[{index}]"

    def read(self, index: int) -> Picture:
        """The row, (h, w, c), or what is no picture as it is; one of uint16 as float32 in [0, 1]."""
        row = self.rows[index]
        return row / np.float32(65535) if row.dtype == np.uint16 else row  # type: ignore[no-any-return]

    @property
    def rows(self) -> npt.NDArray[Any]:
        """All rows, (n, h, w, c), uint8, uint16 or float32.

        Raises:
            DataError: the array holds something else.
        """
        with self._lock:
            if self._rows is None:
                self._rows = as_rows(self._load(), self.label)
            if len(self._rows) != self.count:
                raise DataError(f"{self.label} has {plural(len(self._rows), 'image')} and {plural(self.count, 'label')}")
            return self._rows


def as_rows(array: Any, label: str) -> npt.NDArray[Any]:
    """Images as (n, h, w, c), uint8, uint16 or float32; arrays of other numbers of channels or dimensions as they are.

    Raises:
        DataError: the array holds something else.
    """
    array = np.asarray(array)
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[-1] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if not 2 <= array.ndim <= 5 or 0 in array.shape:
        raise DataError(
            f"{label} has shape {array.shape}; images are (n, h, w), (n, h, w, c) or (n, c, h, w), other samples (n, c, ...)",
            hint="reshape the array and save it again with numpy.savez",
        )
    if array.dtype in (np.uint8, np.uint16):
        return array  # type: ignore[no-any-return]
    if array.dtype.kind != "f":
        raise DataError(
            f"{label} has type {array.dtype}; images are uint8, uint16 or floating point (already scaled)",
            hint="convert the array and save it again with numpy.savez",
        )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{label} holds values that are not finite", hint="save the array again without them")
    return array  # type: ignore[no-any-return]
