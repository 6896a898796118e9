"""Pictures with text to prune a text detector on: photographs and plain pages with words drawn on them; nobody labels any.

    python benchmarks/onnx_case_pictures.py imagenet-sample.zip FOLDER

FOLDER receives 1,000 pictures of 320 by 320 pixels, from one seed. Two of three are photographs of imagenet-sample's
calibration and validation splits (its test split is left for judging), the others pages of one colour. On each are lines of
random letters, digits and words in the fonts that Matplotlib brings, of random size, colour and angle. Pictures like those that
a network will see are what a user has of them; photographs alone hardly show it any text. They are written with blue and red
exchanged, since this is how the detector's package hands its pictures on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from compress.data import Preprocessing, open_data

SIDE, COUNT = 320, 1000
WORDS = (
    "the of total invoice street open 24h exit price no. date road school water station coffee sale new 100% km/h page".split()
)
SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:-/%&"
FACES = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")


def photographs(source: str) -> Iterator[Image.Image]:
    """Those that no judgement uses, again and again."""
    plain = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (SIDE, SIDE))
    data = open_data(source, preprocessing=plain)
    held = [x for split in (data.calibration, data.validation) for images, _ in split.batches(32) for x in images.numpy()]
    while True:
        for image in held:
            yield Image.fromarray((image.transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8))


def line(rng: np.random.Generator) -> str:
    """Some words, or signs that are none."""
    if rng.random() < 0.6:
        return " ".join(rng.choice(WORDS, int(rng.integers(1, 5))))
    return "".join(rng.choice(list(SIGNS), int(rng.integers(3, 14))))


def font(rng: np.random.Generator, size: int) -> Any:
    """One of those that are there wherever Matplotlib is."""
    weight = "bold" if rng.random() < 0.3 else "normal"
    face = font_manager.FontProperties(family=str(rng.choice(FACES)), weight=weight)
    return ImageFont.truetype(font_manager.findfont(face, fallback_to_default=True), size)


def written(picture: Image.Image, rng: np.random.Generator, page: bool) -> None:
    """Lines of text: on a page one below the other, on a photograph anywhere and at an angle."""
    top, size = int(rng.integers(4, 40)), int(rng.integers(10, 26))
    for _ in range(int(rng.integers(4, 12)) if page else int(rng.integers(1, 5))):
        size = size if page else int(rng.integers(12, 48))
        colour = tuple(int(n) for n in (rng.integers(0, 90, 3) if page else rng.integers(0, 256, 3)))
        layer = Image.new("RGBA", (SIDE, size + 12))
        ImageDraw.Draw(layer).text((4, 2), line(rng), fill=colour, font=font(rng, size))
        if page:
            picture.paste(layer, (int(rng.integers(0, 12)), top), layer)
            top += int(size * rng.uniform(1.3, 2.2))
            continue
        turned = layer.rotate(float(rng.normal(0, 8)), expand=True, resample=Image.Resampling.BICUBIC)
        picture.paste(turned, (int(rng.integers(-20, SIDE // 2)), int(rng.integers(0, SIDE - size))), turned)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("photographs")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    rng, photos = np.random.default_rng(0), photographs(given.photographs)
    given.folder.mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        page = number % 3 == 2
        colour = tuple(int(n) for n in rng.integers(170, 256, 3))
        picture = Image.new("RGB", (SIDE, SIDE), colour) if page else next(photos)
        written(picture, rng, page)
        picture = Image.merge("RGB", picture.split()[::-1])
        picture.save(given.folder / f"{number:04}.png", compress_level=1)


if __name__ == "__main__":
    main()
