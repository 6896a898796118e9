"""Folders whose images have a mask, another image or a row of numbers each; and which reader a source wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

import numpy as np

from compress.core import plural
from compress.data.annotations import NotUnderstood, table, understood
from compress.data.box_readers import coco, names_of_file, voc, yolo
from compress.data.layouts import Layout, pairs, part_of, sets_of
from compress.data.sources import Files
from compress.data.targets import FileTargets, RowTargets, TargetKind, check_masks
from compress.errors import DataError

_MASKS = ("masks", "mask", "labels", "annotations", "annotation", "gt", "segmentation", "segmentationclass")
MASK_FOLDERS = dict.fromkeys(("images", "image", "imgs", "img", "jpegimages"), _MASKS)
MASK_SUFFIXES = ("annot", "_masks", "_mask", "_annotations")
IMAGE_FOLDERS = {"inputs": ("targets",), "input": ("target",)}
MORE_IMAGE_FOLDERS = {
    **IMAGE_FOLDERS,
    "noisy": ("clean", "gt"),
    "blur": ("sharp", "gt"),
    "low": ("high",),
    "lr": ("hr",),
    "lq": ("gt", "hq"),
}
"""Names that may as well be two classes are taken for pairs only where the task says so."""
TABLE = "targets.csv"
_LOOKED_AT = 512
"""Masks that are looked at before any work is done."""

Reader = Callable[[Files], Layout | None]


class NoSuchTargets(DataError):
    """A source's layout shows no targets of the kind that is asked for."""


def masks(files: Files) -> Layout | None:
    """``images/`` and ``masks/``, or ``train/`` and ``trainannot/``: a grey or palette picture of class indices an image.

    VOC's ``JPEGImages/`` and ``SegmentationClass/`` are read, too, with the parts of ``ImageSets/Segmentation/``. Names come
    from a classes.txt.

    Raises:
        DataError: an image has no mask, one of another size, with colours, or with an index beyond the names.
    """
    found = (
        _voc_masks(files)
        if any("segmentationclass/" in e.path.lower() for e in files.entries)
        else pairs(files, MASK_FOLDERS, MASK_SUFFIXES)
    )
    if not found:
        return None
    parts, notes = sets_of(files, sorted(found), "Segmentation")
    names = next((p for p in sorted(files.texts, key=len) if PurePosixPath(p).name.lower() == "classes.txt"), None)
    classes = () if names is None else names_of_file(files, names)
    targets = FileTargets("masks", files, found)
    spread = np.linspace(0, len(parts) - 1, min(_LOOKED_AT, len(parts))).round().astype(int)
    members = sorted(parts)
    check_masks(targets, [members[i] for i in spread], len(classes))
    return Layout(targets, parts, classes, notes)


def _voc_masks(files: Files) -> dict[int, int]:
    """Most of VOC's images have boxes only: those with a mask are taken."""
    stems: dict[str, dict[str, int]] = {"jpegimages": {}, "segmentationclass": {}}
    for index, entry in enumerate(files.entries):
        path = PurePosixPath(entry.path)
        if (folder := path.parent.name.lower()) in stems:
            stems[folder][path.stem] = index
    return {i: stems["segmentationclass"][s] for s, i in stems["jpegimages"].items() if s in stems["segmentationclass"]}


def images(files: Files) -> Layout | None:
    """``inputs/`` and ``targets/``: what comes in and what is to come out, the same size or a multiple of it."""
    return _restored(files, IMAGE_FOLDERS)


def named_images(files: Files) -> Layout | None:
    """The same, and ``noisy/`` and ``clean/``, ``lr/`` and ``hr/``, ``blur/`` and ``sharp/``, ``low/`` and ``high/``."""
    return _restored(files, MORE_IMAGE_FOLDERS)


def _restored(files: Files, names: Mapping[str, tuple[str, ...]]) -> Layout | None:
    found = pairs(files, names, ())
    return Layout(FileTargets("images", files, found), {i: part_of(files.name(i)) for i in found}, (), ()) if found else None


def values(files: Files) -> Layout | None:
    """``targets.csv`` with rows of ``file,number,number,...``, the file relative to it; its head names the columns.

    Raises:
        DataError: it cannot be understood, names files that are not there, or two such files differ in their columns.
    """
    tables = sorted(p for p in files.texts if PurePosixPath(p).name.lower() == TABLE)
    if not tables:
        return None
    by_path = {entry.path: index for index, entry in enumerate(files.entries)}
    columns: tuple[str, ...] = ()
    rows: dict[int, list[float]] = {}
    for path in tables:
        try:
            names, found = table(files.text(path))
        except NotUnderstood as error:
            raise understood(path, error, "write rows of `file,number,number,...`") from error
        if columns and names != columns:
            raise DataError(f"{path} has the columns {names[:4]}, {tables[0]} {columns[:4]}", hint="give them the same columns")
        columns = names
        for name, numbers in found:
            index = by_path.get(str(PurePosixPath(path).parent / name.replace("\\", "/")))
            if index is None:
                raise DataError(f"{path} names {name[:80]!r}, which is no image here", hint="name files relative to it")
            rows[index] = numbers
    array = np.zeros((len(files), len(columns)), np.float32)
    for index, numbers in rows.items():
        array[index] = numbers
    outside = len(files) - len(rows)
    notes = (f"{plural(outside, 'image')} without a row in {TABLE} left out",) if outside else ()
    parts = {index: part_of(files.name(index)) for index in sorted(rows)}
    return Layout(RowTargets("values", array, TABLE), parts, columns, notes)


READERS: Mapping[TargetKind, tuple[tuple[Reader, ...], str]] = {
    "boxes": (
        (coco, voc, yolo),
        "images/ and labels/*.txt (YOLO), JPEGImages/ and Annotations/*.xml (VOC), annotations/instances_*.json (COCO)",
    ),
    "masks": ((masks,), "images/ and masks/, train/ and trainannot/, or JPEGImages/ and SegmentationClass/ (VOC)"),
    "images": ((named_images,), "inputs/ and targets/ (or noisy/ and clean/, lr/ and hr/)"),
    "values": ((values,), f"images and a {TABLE} with rows of `file,number,...`"),
}
RECOGNISED: tuple[Reader, ...] = (coco, voc, yolo, masks, images, values)


def recognised(files: Files, where: str, wanted: str) -> Layout | None:
    """Targets by the layout of a source; None for class folders and for images alone.

    Args:
        files: the source.
        where: what to call it.
        wanted: a kind of targets, or anything else for what the layout says by itself.

    Raises:
        NoSuchTargets: it has not the targets that are wanted.
        DataError: they cannot be used.
    """
    for kind, (readers, layouts) in READERS.items():
        if kind == wanted:
            for reader in readers:
                if (found := reader(files)) is not None:
                    return found
            raise NoSuchTargets(f"{where} has no {kind} that are recognised", hint=f"arrange it as {layouts}")
    if wanted != "none":
        for reader in RECOGNISED:
            if (found := reader(files)) is not None:
                return found
    return None
