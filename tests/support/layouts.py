"""Folders of images with masks, boxes, values or other images, as their fields arrange them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Box = tuple[str, tuple[int, int, int, int]]
NAMES = ("blob", "bar")
FileTree = Mapping[str, bytes]


def encoded(pixels: np.ndarray, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def photo(seed: int, size: tuple[int, int] = (20, 16)) -> bytes:
    """Noise of a width and a height."""
    return encoded(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def written(root: Path, tree: FileTree, archived: bool) -> str:
    """The tree as a folder or as a zip."""
    if archived:
        with zipfile.ZipFile(root / "d.zip", "w") as archive:
            for name, data in tree.items():
                archive.writestr(name, data)
        return str(root / "d.zip")
    for name, data in tree.items():
        path = root / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(root / "d")


def some_boxes(count: int = 30, size: tuple[int, int] = (20, 16)) -> list[list[Box]]:
    """Of each image none to three boxes; the first image has one of each class."""
    rng = np.random.default_rng(3)
    found: list[list[Box]] = [[("blob", (1, 2, 9, 8)), ("bar", (4, 4, 20, 16))]]
    for _ in range(count - 1):
        boxes: list[Box] = []
        for _ in range(rng.integers(0, 4)):
            left, top = (int(rng.integers(0, side - 4)) for side in size)
            right, bottom = int(rng.integers(left + 2, size[0] + 1)), int(rng.integers(top + 2, size[1] + 1))
            boxes.append((NAMES[rng.integers(2)], (left, top, right, bottom)))
        found.append(boxes)
    return found


def voc_xml(boxes: Sequence[Box], size: tuple[int, int] = (20, 16), head: str = "") -> bytes:
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("width", "height"), size, strict=True))
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><part><bndbox><xmin>1</xmin></bndbox></part><bndbox>"
        + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for name, box in boxes
    )
    return f"{head}<annotation><size>{sides}</size>{objects}</annotation>".encode()


def voc(found: Sequence[Sequence[Box]]) -> dict[str, bytes]:
    tree = {f"d/JPEGImages/{i:03}.png": photo(i) for i in range(len(found))}
    return tree | {f"d/Annotations/{i:03}.xml": voc_xml(boxes) for i, boxes in enumerate(found)}


def yolo_lines(boxes: Sequence[Box], size: tuple[int, int] = (20, 16)) -> bytes:
    rows = []
    for name, (left, top, right, bottom) in boxes:
        middle = ((left + right) / 2 / size[0], (top + bottom) / 2 / size[1])
        sides = ((right - left) / size[0], (bottom - top) / size[1])
        rows.append(" ".join(map(str, (sorted(NAMES).index(name), *middle, *sides))))
    return "\n".join(rows).encode()


def yolo(found: Sequence[Sequence[Box]]) -> dict[str, bytes]:
    tree = {f"d/images/{i:03}.png": photo(i) for i in range(len(found))}
    tree |= {f"d/labels/{i:03}.txt": yolo_lines(boxes) for i, boxes in enumerate(found) if boxes or i % 2}
    return tree | {"d/data.yaml": f"path: /nowhere\nnames: {sorted(NAMES)}\n".encode()}


def coco_json(found: Sequence[Sequence[Box]], size: tuple[int, int] = (20, 16)) -> dict[str, object]:
    ids = {name: 7 + 10 * i for i, name in enumerate(sorted(NAMES))}
    return {
        "images": [{"id": i, "file_name": f"{i:03}.png", "width": size[0], "height": size[1]} for i in range(len(found))],
        "annotations": [
            {"id": 0, "image_id": i, "category_id": ids[name], "iscrowd": 0, "bbox": [a, b, c - a, d - b]}
            for i, boxes in enumerate(found)
            for name, (a, b, c, d) in boxes
        ],
        "categories": [{"id": i, "name": name} for name, i in ids.items()],
    }


def coco(found: Sequence[Sequence[Box]]) -> dict[str, bytes]:
    tree = {f"d/photos/{i:03}.png": photo(i) for i in range(len(found))}
    return tree | {"d/annotations/instances_all.json": json.dumps(coco_json(found)).encode()}


BOX_LAYOUTS = {"voc": voc, "yolo": yolo, "coco": coco}


def some_masks(count: int = 30, classes: int = 3, size: tuple[int, int] = (20, 16)) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, classes, size[::-1], dtype=np.uint8) for _ in range(count)]


def with_masks(
    found: Sequence[np.ndarray], images: str = "d/images", masks: str = "d/masks", suffix: str = ""
) -> dict[str, bytes]:
    tree = {f"{images}/{i:03}.png": photo(i, mask.shape[1::-1]) for i, mask in enumerate(found)}
    return tree | {f"{masks}/{i:03}{suffix}.png": encoded(mask) for i, mask in enumerate(found)}
