"""One packaged network at a share of its latency: a text detector's own answers before and after, on real pictures.

    python benchmarks/onnx_case_pictures.py imagenet-sample.zip WRITTEN
    python benchmarks/onnx_case.py PP-OCRv6_det_small.onnx --data WRITTEN --photographs imagenet-sample.zip --pictures FOLDER
        --work DIR --share 0.8 --epochs 1

The file is rapidocr's (see `onnx_import_files.py`); FOLDER holds `page.png` and `text.png` of scikit-image's package, a scanned
page and handwritten signs. `compress prune --latency` runs as anybody would type it, with the pictures of --data, of which
nobody says what they show; then the original and the pruned file answer the test images of --photographs and the pictures in
tiles of 320 pixels, which no run used. Pictures are prepared as the package does it: blue first, (x / 255 - 0.5) / 0.5. What is
compared is what a user of the detector sees, by its package's rules: a pixel is text from a probability of 0.3, a box is a
connected piece of at least 30 pixels with a mean probability of 0.5. Boxes are the same where they overlap by half
(intersection over union). Pictures with both answers drawn in are left in DIR to be looked at.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw
from scipy import ndimage

from compress.core import capture, read_json
from compress.data import Preprocessing, open_data

SIDE, TEXT, SURE, LEAST, SAME, BATCH = 320, 0.3, 0.5, 30, 0.5, 16
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
OUT = Path(__file__).parent / "results" / "onnx_case.json"
BUDGET = 150
"""Image-forwards: one plan is recovered and scored."""
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the detector says of one picture: the pixels that are text, and boxes (top, left, bottom, right)."""

    text: np.ndarray[Any, Any]
    boxes: tuple[Box, ...]


def answered(session: onnxruntime.InferenceSession, image: np.ndarray[Any, Any]) -> Answer:
    """One prepared picture, (3, side, side)."""
    (found,) = session.run(None, {session.get_inputs()[0].name: image[None].astype(np.float32)})
    chance = found[0, 0]
    pieces, _ = ndimage.label(chance > TEXT)
    boxes = []
    for index, place in enumerate(ndimage.find_objects(pieces), start=1):
        inside = pieces[place] == index
        if inside.sum() >= LEAST and chance[place][inside].mean() >= SURE:
            boxes.append((place[0].start, place[1].start, place[0].stop, place[1].stop))
    return Answer(chance > TEXT, tuple(boxes))


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    high, wide = (max(0, min(one[k + 2], other[k + 2]) - max(one[k], other[k])) for k in (0, 1))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return high * wide / (sum(areas) - high * wide)


def matched(before: tuple[Box, ...], after: tuple[Box, ...]) -> int:
    """Boxes of both that are the same, each used once, the best first."""
    pairs = sorted(((overlap(b, a), i, j) for i, b in enumerate(before) for j, a in enumerate(after)), reverse=True)
    used: set[tuple[str, int]] = set()
    count = 0
    for share, i, j in pairs:
        if share >= SAME and not used & {("b", i), ("a", j)}:
            used |= {("b", i), ("a", j)}
            count += 1
    return count


def agreement(pairs: list[tuple[Answer, Answer]]) -> dict[str, Any]:
    """How far two detectors' answers on the same pictures are the same."""
    before, after = (sum(len(pair[k].boxes) for pair in pairs) for k in (0, 1))
    same = sum(matched(one.boxes, other.boxes) for one, other in pairs)
    both, either = (sum(int(f(a.text, b.text).sum()) for a, b in pairs) for f in (np.logical_and, np.logical_or))
    return {
        "pictures": len(pairs),
        "boxes before": before,
        "boxes after": after,
        "the same": same,
        "recall": same / max(before, 1),
        "precision": same / max(after, 1),
        "text pixels in both / in either": both / max(either, 1),
    }


def tiles(folder: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Squares of the pictures, as the detector wants them; (3, side, side)."""
    for name in ("page.png", "text.png"):
        image = Image.open(folder / name).convert("RGB")
        side = min(image.size)
        for left in range(0, image.width - side + 1, side // 2):
            tile = image.crop((left, 0, left + side, side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            yield ((np.asarray(tile, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[::-1]


def drawn(image: np.ndarray[Any, Any], answer: Answer) -> Image.Image:
    """The picture with the boxes in it."""
    plain = ((image[::-1].transpose(1, 2, 0) * STD + MEAN) * 255).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(plain)
    for top, left, bottom, right in answer.boxes:
        ImageDraw.Draw(picture).rectangle((left, top, right, bottom), outline=(255, 0, 0), width=2)
    return picture


def pruned(given: argparse.Namespace) -> Path:
    """The folder of a run, by the command that anybody would type."""
    run: Path = given.work / f"{given.file.stem}-{given.method}-{given.share:g}-{given.epochs}"
    middle, spread = (",".join(map(str, numbers)) for numbers in (MEAN, STD))
    options = (
        f"--size {SIDE} --mean {middle} --std {spread} --latency {given.share:g} --method {given.method} --data {given.data} "
        f"--task outputs --epochs {given.epochs} --set batch={BATCH} --finalists 0 --budget {BUDGET} --latency-seconds 10"
    )
    if not (run / "report.json").exists():
        command = [sys.executable, "-m", "compress_cli", "prune", str(given.file), *options.split(), "--out", str(run)]
        subprocess.run([*command, "--quiet"], check=False)  # 6 says that nothing was won, and leaves a report as well
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--photographs", required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--method", default="obs")
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--epochs", type=int, default=0)
    given = parser.parse_args()
    run = pruned(given)
    files = {"before": given.file, "after": run / "model.onnx"}
    before, after = (onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in files.values())
    data = open_data(given.photographs, preprocessing=Preprocessing(MEAN, STD, (SIDE, SIDE)))
    held = [x[::-1] for images, _ in data.test.batches(32) for x in images.numpy()]
    rows, looked = {}, 0
    for name, images in (("test images", held), ("scanned page and handwriting", list(tiles(given.pictures)))):
        pairs = [(answered(before, image), answered(after, image)) for image in images]
        rows[name] = agreement(pairs)
        print(name, json.dumps(rows[name]), flush=True)
        for image, pair in zip(images, pairs, strict=True):
            if pair[0].boxes and looked < 24:
                sheet = Image.new("RGB", (2 * SIDE + 8, SIDE), "white")
                for place, answer in enumerate(pair):
                    sheet.paste(drawn(image, answer), (place * (SIDE + 8), 0))
                sheet.save(run / f"looked-{looked:02}.png")
                looked += 1 if (name == "test images" and looked < 12) or name != "test images" else 0
    report = read_json(run / "report.json", hint="run it again")
    found = {
        "file": given.file.name,
        "method": given.method,
        "asked": given.share,
        "epochs": given.epochs,
        "macs": report["after"]["macs"] / report["before"]["macs"],
        "latency": {key: report["latency"][0][key] for key in ("speedup", "low", "high", "verdict", "clock", "runtime")},
        "agreement": rows,
        "rules": {"text": TEXT, "sure": SURE, "least pixels": LEAST, "same": SAME, "side": SIDE},
        "environment": capture(threads=1).to_json(),
    }
    everything = json.loads(OUT.read_text()) if OUT.exists() else {}
    OUT.write_text(json.dumps(everything | {run.name: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
