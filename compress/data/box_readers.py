"""Boxes as their fields write them: YOLO's text files, VOC's XML, COCO's JSON."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from compress.core import plural
from compress.data.annotations import (
    LARGEST_LINES,
    MOST_NAMES,
    NotUnderstood,
    class_name,
    json_object,
    lines_of_names,
    number,
    understood,
    xml_records,
    yaml_names,
)
from compress.data.boxes import MOST_BOXES, Boxes, checked
from compress.data.layouts import Layout, part_of, replaced, sets_of
from compress.data.sources import Files
from compress.data.targets import BoxTargets
from compress.errors import DataError

BACKGROUND = "__background__"
"""torchvision's class 0: the readers number objects from 1."""
_COCO = re.compile(r"(^|/)(instances_[^/]*|[^/]*_?annotations(\.coco)?)\.json$")


# ---- YOLO -------------------------------------------------------------------------------------------------------------


def yolo(files: Files) -> Layout | None:
    """``images/`` beside ``labels/`` with a text file an image: lines of ``class x y width height`` in shares of the image.

    An image whose text file is empty or missing has no objects. Of polygons, the box around them is taken.

    Raises:
        DataError: a line cannot be understood, or a class has no name.
    """
    partners = _partners(files, ("images",), ("labels",), ".txt")
    if not partners:
        return None
    names = _names(files)
    rows: dict[str, Boxes] = {}
    highest = -1
    for index, path in partners.items():
        try:
            found = _yolo_lines(files.text(path), len(names) if names is not None else MOST_NAMES)
        except NotUnderstood as error:
            raise understood(path, error, "write lines of `class x y width height`, shares of the image from 0 to 1") from error
        highest = max([highest, *(label for _, label, _ in found)])
        rows[files.name(index)] = Boxes.of(found, None)
    inside = [i for i, e in enumerate(files.entries) if "images" in _folders(e.path)]
    bare = [files.name(i) for i in inside if i not in partners]
    boxes, notes = checked(rows, "the labels of YOLO")
    if bare:
        notes = (
            *notes,
            f"{len(bare)} of {plural(len(inside), 'image')} have no label file, they are taken to show no object: {bare[0]}",
        )
    classes = names if names is not None else tuple(str(i) for i in range(highest))
    return _layout(files, boxes, {i: part_of(files.name(i)) for i in inside}, (BACKGROUND, *classes), notes)


def _yolo_lines(text: str, classes: int) -> list[tuple[Sequence[float], int, bool]]:
    if len(text) > LARGEST_LINES:
        raise NotUnderstood(f"it has {len(text)} characters, at most {LARGEST_LINES} are read")
    found: list[tuple[Sequence[float], int, bool]] = []
    for place, line in enumerate(text.splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        if len(found) >= MOST_BOXES:
            raise NotUnderstood(f"it has more than {MOST_BOXES} boxes")
        try:
            label, values = number(cells[0]), [number(cell) for cell in cells[1:]]
        except NotUnderstood as error:
            raise NotUnderstood(f"line {place}: {error}") from error
        if label != int(label) or not 0 <= label < classes:
            raise NotUnderstood(f"line {place}: class {label:g}, wanted is a whole number from 0 to {classes - 1}")
        if len(values) == 4:
            x, y, width, height = values
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif len(values) >= 6 and len(values) % 2 == 0:
            box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        else:
            raise NotUnderstood(
                f"line {place} has {len(cells)} numbers, wanted are a class and 4 (a box) or 6, 8, ... (a polygon)"
            )
        found.append((box, int(label) + 1, False))
    return found


def _names(files: Files) -> tuple[str, ...] | None:
    """Those of a data.yaml or classes.txt near the root."""
    for path in sorted(files.texts, key=lambda p: (p.count("/"), p)):
        if path.lower().endswith((".yaml", ".yml")):
            try:
                names = yaml_names(files.text(path))
            except NotUnderstood as error:
                raise understood(path, error, "write `names: [a, b]`, or remove the file") from error
            if names is not None:
                return names
        elif PurePosixPath(path).name.lower() in ("classes.txt", "obj.names"):
            return names_of_file(files, path)
    return None


def names_of_file(files: Files, path: str) -> tuple[str, ...]:
    """One name a line.

    Raises:
        DataError: it cannot be understood.
    """
    try:
        return lines_of_names(files.text(path))
    except NotUnderstood as error:
        raise understood(path, error, "write one name a line") from error


# ---- VOC --------------------------------------------------------------------------------------------------------------


def voc(files: Files) -> Layout | None:
    """``JPEGImages/`` beside ``Annotations/`` with an XML an image; the parts are those of ``ImageSets/Main/``, where it is.

    Classes are numbered from 1 in alphabetical order; difficult objects neither count nor are held against a detector.

    Raises:
        DataError: an XML cannot be understood, or an image has none.
    """
    partners = _partners(files, _VOC_IMAGES, ("Annotations", "annotations"), ".xml")
    if not partners:
        return None
    inside = [i for i, e in enumerate(files.entries) if set(_VOC_IMAGES) & set(_folders(e.path))]
    parts, outside = sets_of(files, inside, "Main")
    bare = [files.name(i) for i in parts if i not in partners]
    if bare:
        raise DataError(
            f"{len(bare)} of {plural(len(parts), 'image')} have no XML in Annotations/, the first: {bare[0]}",
            hint="add it (an annotation without an object says that there is none), or take the image away",
        )
    records = {}
    for index in parts:
        try:
            records[index] = _voc_objects(files.text(partners[index]))
        except NotUnderstood as error:
            raise understood(partners[index], error, "write it as VOC's annotations are: object/name, object/bndbox") from error
    classes = sorted({name for objects, _ in records.values() for _, name, _ in objects})
    label = {name: i for i, name in enumerate(classes, 1)}
    if len(classes) > MOST_NAMES:
        raise DataError(f"the annotations name {len(classes)} classes, at most {MOST_NAMES} are read")
    rows = {
        files.name(i): Boxes.of([(box, label[name], hard) for box, name, hard in objects], extent or _extent(files, i))
        for i, (objects, extent) in records.items()
    }
    boxes, notes = checked(rows, "Annotations")
    return _layout(files, boxes, parts, (BACKGROUND, *classes), (*notes, *outside))


_VOC_IMAGES = ("jpegimages", "images")
_SIDES = ("xmin", "ymin", "xmax", "ymax")
VocObject = tuple[tuple[float, ...], str, bool]


def _voc_objects(text: str) -> tuple[list[VocObject], tuple[float, float] | None]:
    common, records = xml_records(text, "annotation", "object")
    found = []
    for one in records:
        missing = [k for k in ("name", *(f"bndbox/{s}" for s in _SIDES)) if k not in one.texts]
        if missing:
            raise NotUnderstood(f"an object has no {missing[0]}")
        box = tuple(number(one.texts[f"bndbox/{side}"]) for side in _SIDES)
        found.append((box, class_name(one.texts["name"].strip()), one.texts.get("difficult", "0").strip() == "1"))
    width, height = (number(common.get(f"size/{side}", "0") or "0") for side in ("width", "height"))
    return found, (width, height) if width > 0 and height > 0 else None


def _extent(files: Files, index: int) -> tuple[float, float]:
    """An image's own, where its annotation does not say it."""
    from compress.data.sources import Unreadable

    try:
        width, height = files.extent(index)
    except Unreadable as error:
        raise DataError(f"{files.name(index)} cannot be read: {error}", hint="remove or replace the damaged file") from error
    return float(width), float(height)


# ---- COCO -------------------------------------------------------------------------------------------------------------


def coco(files: Files) -> Layout | None:
    """``annotations/instances_train*.json`` (or ``_annotations.coco.json`` beside the images): COCO's, one a part.

    Categories are numbered from 1 in the order of their ids; crowds neither count nor are held against a detector.

    Raises:
        DataError: a JSON cannot be understood, names images that are not there, or they differ in their categories.
    """
    found = sorted(path for path in files.texts if _COCO.search(path))
    if not found:
        return None
    by_name: dict[str, list[int]] = defaultdict(list)
    for index, entry in enumerate(files.entries):
        by_name[PurePosixPath(entry.path).name].append(index)
    categories: dict[int, str] = {}
    rows: dict[str, Boxes] = {}
    parts: dict[int, str] = {}
    for path in found:
        part = part_of(path) or part_of(re.sub(r"[^a-z]+", "/", path.lower()) + "/x")
        try:
            named, images, objects = _coco_tables(json_object(files.text(path)))
        except NotUnderstood as error:
            raise understood(path, error, "write it as COCO's instances_*.json: images, annotations, categories") from error
        if categories and categories != named:
            raise DataError(f"{path} has other categories than {found[0]}", hint="give all parts the same categories")
        categories = named
        label = {key: i for i, key in enumerate(sorted(named), 1)}
        for key, (file, extent) in images.items():
            index = _coco_image(files, by_name, file, part, path)
            parts[index] = part
            numbered = [(box, label[category], crowd) for box, category, crowd in objects.get(key, [])]
            rows[files.name(index)] = Boxes.of(numbered, extent or _extent(files, index))
    boxes, notes = checked(rows, "COCO's annotations")
    outside = len(files) - len(parts)
    if outside:
        notes = (*notes, f"{plural(outside, 'image')} that no annotation names left out")
    return _layout(files, boxes, parts, (BACKGROUND, *(categories[k] for k in sorted(categories))), notes)


CocoObject = tuple[tuple[float, ...], int, bool]
CocoImages = dict[object, tuple[str, tuple[float, float] | None]]


def _coco_tables(found: Mapping[str, Any]) -> tuple[dict[int, str], CocoImages, dict[object, list[CocoObject]]]:
    categories = {_key(c, "id"): class_name(c.get("name")) for c in _rows(found, "categories")}
    if not categories or len(categories) > MOST_NAMES:
        raise NotUnderstood(f"it has {len(categories)} categories, 1 to {MOST_NAMES} are read")
    images: CocoImages = {}
    for row in _rows(found, "images"):
        file, sides = row.get("file_name"), tuple(number(row.get(side, 0)) for side in ("width", "height"))
        if not isinstance(file, str) or not file:
            raise NotUnderstood("an image has no file_name")
        images[_key(row, "id")] = (file, (sides[0], sides[1]) if min(sides) > 0 else None)
    objects: dict[object, list[CocoObject]] = defaultdict(list)
    for row in _rows(found, "annotations"):
        box, image, category = row.get("bbox"), _key(row, "image_id"), _key(row, "category_id")
        if not isinstance(box, list) or len(box) != 4:
            raise NotUnderstood(f"an annotation of image {image} has no bbox of four numbers")
        if image not in images or category not in categories:
            which = f"image {image}" if image not in images else f"category {category}"
            raise NotUnderstood(f"an annotation is of {which}, which is not listed")
        x, y, width, height = (number(value) for value in box)
        objects[image].append(((x, y, x + width, y + height), category, row.get("iscrowd") in (1, True)))
    return categories, images, objects


def _rows(found: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    rows = found.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NotUnderstood(f"it has no list of {key}")
    return rows


def _key(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**63:
        raise NotUnderstood(f"{name} {str(value)[:40]!r} is no whole number")
    return value


def _coco_image(files: Files, by_name: Mapping[str, list[int]], file: str, part: str, path: str) -> int:
    name = PurePosixPath(file.replace("\\", "/"))
    same = [i for i in by_name.get(name.name, []) if f"/{files.name(i)}".endswith(f"/{name}")]
    near = [i for i in same if part_of(files.name(i)) == part] or same
    if len(near) != 1:
        seen = "is not there" if not near else f"may be {files.name(near[0])} or {files.name(near[1])}"
        raise DataError(f"{path} names the image {file[:80]!r}, which {seen}", hint="put the images where their names say")
    return near[0]


# ---- all --------------------------------------------------------------------------------------------------------------


def _partners(files: Files, names: Sequence[str], by: Sequence[str], suffix: str) -> dict[int, str]:
    """The image's number -> the text of the same name in the folder beside its own."""
    if not any(path.lower().endswith(suffix) and f"{by[0]}/".lower() in path.lower() for path in files.texts):
        return {}
    return {
        index: found
        for index, entry in enumerate(files.entries)
        for path in replaced(entry.path, names, by)
        if (found := str(PurePosixPath(path).with_suffix(suffix))) in files.texts
    }


def _folders(path: str) -> list[str]:
    return [part.lower() for part in PurePosixPath(path).parent.parts]


def _layout(
    files: Files, boxes: Mapping[str, Boxes], parts: Mapping[int, str], classes: tuple[str, ...], notes: tuple[str, ...]
) -> Layout:
    of = {index: boxes[files.name(index)] for index in parts if files.name(index) in boxes}
    return Layout(BoxTargets(of), parts, classes, notes)
