"""What a source holds, before any image is read: parts (train, val, test) of images with labels."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.data.labels import MOST_CLASSES, doubts, label_map
from compress.data.sources import LARGEST_ARRAY, SUFFIXES, ArrayImages, FolderImages, Images, ZipImages
from compress.errors import DataError

_FREE, _DENSEST = 2**28, 200
"""Bytes that a compressed array may have anyway, and per byte of the file; images never shrink that much, bombs do."""
Labels = npt.NDArray[np.int64]
PARTS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_PAIRS = (
    ("train", "x_train", "y_train"),
    ("train", "train_images", "train_labels"),
    ("val", "x_val", "y_val"),
    ("val", "val_images", "val_labels"),
    ("test", "x_test", "y_test"),
    ("test", "test_images", "test_labels"),
    ("", "x", "y"),
    ("", "images", "labels"),
    ("", "data", "target"),
    ("", "data", "labels"),
)
TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashionmnist": "FashionMNIST",
    "kmnist": "KMNIST",
}


@dataclass(frozen=True, slots=True)
class Part:
    """Some images of a source, with their labels (all -1 where unknown)."""

    images: Images
    indices: npt.NDArray[np.int64]
    labels: Labels


@dataclass(frozen=True, slots=True)
class Listing:
    """Parts by name (``train``, ``val``, ``test``, or ``""`` for one undivided pool), and the classes."""

    parts: Mapping[str, Part]
    classes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def list_files(images: FolderImages | ZipImages, where: str, labels: str, num_classes: int | None) -> Listing:
    """Parts and classes from paths: ``[top/][train|val|test/]<class>/...``; images without class folders have no labels.

    Raises:
        DataError: no image, or labels that do not fit.
    """
    if not len(images):
        raise DataError(f"{where} holds no images", hint=f"files ending in {' '.join(SUFFIXES)} are looked for")
    paths = [tuple(e.path.split("/")) for e in images.entries]
    while len({p[0] for p in paths}) == 1 and min(map(len, paths)) >= 3 and paths[0][0].lower() not in PARTS:
        paths = [p[1:] for p in paths]
    divided = any(p[0].lower() in PARTS and len(p) > 1 for p in paths)
    parts: dict[str, list[tuple[int, str]]] = {}
    outside = 0
    for index, path in enumerate(paths):
        part = ""
        if divided:
            if path[0].lower() not in PARTS or len(path) < 2:
                outside += 1
                continue
            part, path = PARTS[path[0].lower()], path[1:]
        parts.setdefault(part, []).append((index, path[0] if len(path) > 1 else ""))
    warnings = [f"{outside} images outside of train/, val/ and test/ were left out"] if outside else []
    folders = {folder for members in parts.values() for _, folder in members if folder}
    loose = sum(not folder for members in parts.values() for _, folder in members)
    if not folders:
        warnings.append(f"{where} has no class folders: accuracy cannot be measured")
        return Listing({k: _part(images, [(i, -1) for i, _ in m]) for k, m in parts.items()}, (), tuple(warnings))
    if loose:
        warnings.append(f"{loose} images outside of class folders were left out")
    mapping, classes = label_map(folders, labels, num_classes)
    warnings += doubts(folders, labels, num_classes)
    listed = {k: [(i, mapping[folder]) for i, folder in members if folder] for k, members in parts.items()}
    return Listing({k: _part(images, m) for k, m in listed.items() if m}, classes, tuple(warnings))


def _part(images: Images, members: Sequence[tuple[int, int]]) -> Part:
    table = np.array(members, dtype=np.int64).reshape(-1, 2)
    return Part(images, np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1]))


def list_arrays(
    where: str, parts: Mapping[str, tuple[Callable[[], Any], Any]], num_classes: int | None, classes: Sequence[str] = ()
) -> Listing:
    """Parts from arrays: name -> (how to load the images, labels).

    Raises:
        DataError: the labels are no integers from 0, or beyond the network's outputs.
    """
    made: dict[str, Part] = {}
    for name, (load, given) in parts.items():
        label = f"{where}:{name}" if name else where
        found = np.asarray(given)
        found = found.squeeze(1) if found.ndim == 2 and found.shape[1] == 1 else found
        if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found) or int(found.min()) < 0:
            raise DataError(
                f"{label}: labels of type {found.dtype} and shape {found.shape}; one integer from 0 up per image is wanted",
                hint="save them as an integer array of as many numbers as images",
            )
        made[name] = Part(ArrayImages(label, len(found), load), np.arange(len(found)), found.astype(np.int64))
    highest = max(int(p.labels.max()) for p in made.values())
    if num_classes is not None and highest >= num_classes:
        raise DataError(
            f"{where} has label {highest}; the network has outputs 0 to {num_classes - 1}",
            hint="give the data that the network was trained on, or a network with more outputs",
        )
    if highest >= MOST_CLASSES:
        raise DataError(f"{where} has label {highest}, at most {MOST_CLASSES} classes are known", hint="number them from 0")
    if highest == 0:
        raise DataError(f"{where} has 1 class, at least 2 are needed")
    return Listing(made, tuple(classes) or tuple(str(i) for i in range(num_classes or highest + 1)))


def list_npz(path: Path, num_classes: int | None) -> Listing:
    """Parts of an ``.npz``; images are loaded when they are first read.

    Raises:
        DataError: it is damaged, pickled, too large, or lacks a known pair of names.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size > min(LARGEST_ARRAY, _FREE + _DENSEST * member.compress_size):
                    raise DataError(
                        f"{path}: {member.filename[:40]!r} of {member.compress_size} bytes claims to be {member.file_size}",
                        hint=f"arrays of up to {LARGEST_ARRAY} bytes are read; write large ones with numpy.savez, uncompressed",
                    )
        with np.load(path, allow_pickle=False) as file:
            names = {n.lower(): n for n in file.files}
            chosen: dict[str, tuple[str, str]] = {}
            for part, x, y in _PAIRS:
                if x in names and y in names and part not in chosen:
                    chosen[part] = (names[x], names[y])
            if len(chosen) > 1:
                chosen.pop("", None)
            if not chosen:
                raise DataError(
                    f"{path} holds {sorted(file.files)[:8]}; images and labels were wanted",
                    hint="name the arrays x and y, or x_train, y_train, x_test and y_test",
                )
            labels = {part: file[y] for part, (_, y) in chosen.items()}
    except DataError:
        raise
    except Exception as error:  # damaged archives and headers fail in any way
        raise DataError(f"{path} is no readable .npz: {error}", hint="write it again with numpy.savez") from error

    def loader(name: str) -> Callable[[], Any]:
        def load() -> Any:
            try:
                with np.load(path, allow_pickle=False) as file:
                    return file[name]
            except Exception as error:  # as above
                raise DataError(f"{path}: {name} cannot be read: {error}", hint="write it again") from error

        return load

    return list_arrays(path.name, {p: (loader(x), labels[p]) for p, (x, _) in chosen.items()}, num_classes)


def list_digits(num_classes: int | None) -> Listing:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, undivided."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return list_arrays("digits", {"": (lambda: np.rint(found.images * (255 / 16)).astype(np.uint8), found.target)}, num_classes)


def list_torchvision(name: str, root: str, download: bool, num_classes: int | None) -> Listing:
    """A data set of torchvision: its train part, and its test part as test.

    Raises:
        DataError: it is not there and may not be downloaded.
    """
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION[name])
    try:
        train, test = (kind(root=root, train=part, download=download) for part in (True, False))
    except (RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        raise DataError(
            f"{name} is not in folder {root!r}: {error}",
            hint=f"add --download, or name its folder as {name}:FOLDER",
        ) from error
    parts = {
        part: (lambda data=data: np.asarray(data.data), np.asarray(data.targets))
        for part, data in (("train", train), ("test", test))
    }
    return list_arrays(name, parts, num_classes, tuple(train.classes))


__all__ = [
    "TORCHVISION",
    "Listing",
    "Part",
    "list_arrays",
    "list_digits",
    "list_files",
    "list_npz",
    "list_torchvision",
]
