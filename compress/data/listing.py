"""What a source holds, before any image is read: parts (train, val, test) of images with labels or other targets."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core import plural
from compress.data.labels import MOST_CLASSES, doubts, label_map
from compress.data.layouts import PARTS
from compress.data.sources import LARGEST_ARRAY, SUFFIXES, ArrayImages, Files, Images, as_rows
from compress.data.target_readers import READERS, recognised
from compress.data.targets import RowTargets, TargetKind, Targets, check_indices
from compress.errors import DataError

_FREE, _DENSEST = 2**28, 200
"""Bytes that a compressed array may have anyway, and per byte of the file; images never shrink that much, bombs do."""
Labels = npt.NDArray[np.int64]
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
    """Some images of a source, with their labels (all -1 where unknown) or other targets."""

    images: Images
    indices: npt.NDArray[np.int64]
    labels: Labels
    targets: Targets | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Parts by name (``train``, ``val``, ``test``, or ``""`` for one undivided pool), and the classes."""

    parts: Mapping[str, Part]
    classes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def list_files(images: Files, where: str, labels: str, num_classes: int | None) -> Listing:
    """Parts and targets from paths: masks, boxes and values where the layout shows them, and else
    ``[top/][train|val|test/]<class>/...``; images without class folders have no labels.

    Raises:
        DataError: no image, or targets that do not fit.
    """
    if not len(images):
        raise DataError(f"{where} holds no images", hint=f"files ending in {' '.join(SUFFIXES)} are looked for")
    layout = recognised(images, where, labels) if labels in ("sorted", *READERS) else None
    if layout is not None:
        by_part: dict[str, list[int]] = {}
        for index, part in sorted(layout.parts.items()):
            by_part.setdefault(part, []).append(index)
        if "" in by_part and len(by_part) > 1:
            del by_part[""]
        parts_found = {k: Part(images, np.array(m), np.full(len(m), -1), layout.targets) for k, m in by_part.items()}
        return Listing(parts_found, layout.classes, layout.notes)
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
    warnings = [f"{plural(outside, 'image')} outside of train/, val/ and test/ left out"] if outside else []
    folders = {folder for members in parts.values() for _, folder in members if folder and labels != "none"}
    loose = sum(not folder for members in parts.values() for _, folder in members)
    if not folders:
        warnings.append(f"{where} has no class folders: its images have no labels, so nothing is scored on them")
        return Listing({k: _part(images, [(i, -1) for i, _ in m]) for k, m in parts.items()}, (), tuple(warnings))
    if loose:
        warnings.append(f"{plural(loose, 'image')} outside of class folders left out")
    labels = "sorted" if labels == "classes" else labels
    mapping, classes = label_map(folders, labels, num_classes)
    warnings += doubts(folders, labels, num_classes)
    listed = {k: [(i, mapping[folder]) for i, folder in members if folder] for k, members in parts.items()}
    return Listing({k: _part(images, m) for k, m in listed.items() if m}, classes, tuple(warnings))


def _part(images: Images, members: Sequence[tuple[int, int]]) -> Part:
    table = np.array(members, dtype=np.int64).reshape(-1, 2)
    return Part(images, np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1]))


def list_arrays(
    where: str,
    parts: Mapping[str, tuple[Callable[[], Any], Any]],
    num_classes: int | None,
    classes: Sequence[str] = (),
    wanted: str = "sorted",
) -> Listing:
    """Parts from arrays: name -> (how to load the images, labels or targets).

    One whole number an image is its class; numbers of floating point, (n,) or (n, k), and several of 0 and 1, are values;
    whole numbers (n, h, w) are masks; four dimensions, and floating point in three, images.

    Args:
        where: what to call it.
        parts: by name.
        num_classes: outputs of the network, where known.
        classes: names, where known.
        wanted: a kind of targets, where the numbers do not say it.

    Raises:
        DataError: the labels are no integers from 0, or beyond the network's outputs; targets that cannot be.
    """
    made: dict[str, Part] = {}
    for name, (load, given) in parts.items():
        label = f"{where}:{name}" if name else where
        found = np.asarray(given)
        found = found.squeeze(1) if found.ndim == 2 and found.shape[1] == 1 and found.dtype.kind in "iu" else found
        kind = _kind(found, wanted)
        if kind != "classes":
            rows = _rows(found, kind, label)
            empty = np.full(len(rows), -1)
            made[name] = Part(ArrayImages(label, len(rows), load), np.arange(len(rows)), empty, RowTargets(kind, rows, label))
            continue
        if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found) or int(found.min()) < 0:
            raise DataError(
                f"{label}: labels of type {found.dtype} and shape {found.shape}; one integer from 0 up per image is wanted, "
                "floats (n, k), masks (n, h, w) or images (n, h, w, c)",
                hint="save them as an integer array of as many numbers as images",
            )
        made[name] = Part(ArrayImages(label, len(found), load), np.arange(len(found)), found.astype(np.int64))
    kinds = {p.targets.kind if p.targets is not None else "classes" for p in made.values()}
    if len(kinds) > 1:
        raise DataError(f"{where} has {' and '.join(sorted(kinds))} as targets", hint="give all parts the same kind of targets")
    if kinds != {"classes"}:
        return Listing(made, tuple(classes))
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


def _kind(found: npt.NDArray[Any], wanted: str) -> TargetKind:
    if wanted in ("classes", "values", "masks", "images"):
        return wanted  # type: ignore[return-value]
    if found.ndim == 4 and not (found.dtype.kind in "iu" and 1 in (found.shape[1], found.shape[-1])):
        return "images"
    if found.dtype.kind == "f" and found.ndim in (1, 2, 3):
        return "values" if found.ndim < 3 else "images"
    if found.ndim in (3, 4):
        return "masks"
    several = found.ndim == 2 and found.shape[1] > 1 and found.dtype.kind in "iub"
    return "values" if several and np.isin(found, (0, 1)).all() else "classes"


def _rows(found: npt.NDArray[Any], kind: TargetKind, label: str) -> npt.NDArray[Any]:
    """Targets as :class:`~compress.data.targets.RowTargets` holds them.

    Raises:
        DataError: a wrong type, no number at all, or none that is finite.
    """
    shapes = {"values": (1, 2), "masks": (3, 4), "images": (3, 4)}[kind]
    fits = found.ndim in shapes and 0 not in found.shape and found.dtype.kind in ("iub" if kind == "masks" else "iubf")
    if not fits:
        raise DataError(
            f"{label}: targets of type {found.dtype} and shape {found.shape} are no {kind}",
            hint="save values as floats (n, k), masks as whole numbers (n, h, w), images as uint8 or floats (n, h, w, c)",
        )
    if not np.isfinite(found).all():
        raise DataError(f"{label}: the targets hold values that are not finite", hint="save them again without those rows")
    if kind == "masks":
        check_indices(found, label)
    if kind == "values":
        return found.reshape(len(found), -1).astype(np.float32)
    if kind == "images":
        return as_rows(found, label)
    return found if found.ndim == 3 else found.squeeze(1 if found.shape[1] == 1 else 3)


def list_npz(path: Path, num_classes: int | None, wanted: str = "sorted") -> Listing:
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

    return list_arrays(path.name, {p: (loader(x), labels[p]) for p, (x, _) in chosen.items()}, num_classes, wanted=wanted)


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
