"""Turn a data set in VOC layout into what Ultralytics reads: python convert.py VOC OUT --classes RBC WBC Platelets

VOC holds JPEGImages, Annotations/*.xml and ImageSets/Main/{train,val}.txt; `val` becomes the test split. Out of `train`, every
`--every`-th image is held out as the validation split, on which choices are made. Images are linked, not copied.
"""

import argparse
import xml.etree.ElementTree as ET
from pathlib import Path


def boxes(annotation: Path, classes: list[str]) -> list[str]:
    """One line a box: class, centre x, centre y, width, height, as shares of the image; boxes without area are left out."""
    root = ET.parse(annotation).getroot()
    width, height = (float(root.findtext(f"size/{side}", "0")) for side in ("width", "height"))
    lines = []
    for item in root.iter("object"):
        left, top, right, bottom = (float(item.findtext(f"bndbox/{edge}", "0")) for edge in ("xmin", "ymin", "xmax", "ymax"))
        left, right = max(left, 0) / width, min(right, width) / width
        top, bottom = max(top, 0) / height, min(bottom, height) / height
        if right > left and bottom > top:
            shares = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
            lines.append(" ".join([str(classes.index(item.findtext("name", ""))), *(f"{x:.6f}" for x in shares)]))
    return lines


def convert(voc: Path, out: Path, classes: list[str], every: int) -> Path:
    """Write images/SPLIT, labels/SPLIT and data.yaml below `out`; the path of data.yaml."""
    listed = {name: (voc / f"ImageSets/Main/{name}.txt").read_text().split() for name in ("train", "val")}
    splits = {
        "train": [name for i, name in enumerate(listed["train"]) if i % every != every - 1],
        "validation": listed["train"][every - 1 :: every],
        "test": listed["val"],
    }
    for split, names in splits.items():
        images, labels = out / "images" / split, out / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for name in names:
            link = images / f"{name}.jpg"
            link.unlink(missing_ok=True)
            link.symlink_to((voc / f"JPEGImages/{name}.jpg").resolve())
            found = boxes(voc / f"Annotations/{name}.xml", classes)
            (labels / f"{name}.txt").write_text("".join(f"{line}\n" for line in found))
    told = [f"path: {out.resolve()}", "train: images/train", "val: images/validation", "test: images/test", "names:"]
    told += [f"  {i}: {name}" for i, name in enumerate(classes)]
    (out / "data.yaml").write_text("\n".join(told) + "\n")
    return out / "data.yaml"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", nargs="+", required=True)
    parser.add_argument("--every", type=int, default=7)
    told = parser.parse_args()
    print(convert(told.voc, told.out, told.classes, told.every))
