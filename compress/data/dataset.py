"""One way into every source of images, and the division into disjoint splits."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from compress.core import files_like, import_entrypoint, is_entrypoint, plural
from compress.data.listing import (
    TORCHVISION,
    Listing,
    Part,
    list_arrays,
    list_digits,
    list_files,
    list_npz,
    list_torchvision,
)
from compress.data.pixels import oddities
from compress.data.preprocessing import IMAGENET, Preprocessing, preset_for
from compress.data.samples import PICTURE_CHANNELS
from compress.data.sources import FolderImages, Unreadable, ZipImages
from compress.data.split import SMALL_SIDE, Split
from compress.errors import DataError

Amount = int | float | None

VALIDATION, CALIBRATION = (0.10, 5000), (0.05, 2000)  # shares of a training part, and the most that is useful
POOL = {"test": 0.20, "validation": 0.15, "calibration": 0.10}  # of images that nobody has divided
HELD_OUT = {"calibration": 0.30, "validation": 0.20}  # of a val/ that stands alone; the rest is test


@dataclass(frozen=True, slots=True)
class Data:
    """Disjoint splits of one source; nothing but the final figure reads ``test``."""

    name: str
    classes: tuple[str, ...]
    train: Split | None
    validation: Split
    calibration: Split
    test: Split
    preprocessing: Preprocessing
    warnings: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that exist, train first."""
        return tuple(s for s in (self.train, self.validation, self.calibration, self.test) if s is not None)

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be measured."""
        return self.validation.labelled

    @property
    def digests(self) -> dict[str, str]:
        """Split -> digest, to be recorded."""
        return {s.name: s.digest for s in self.splits}


def open_data(
    source: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    num_classes: int | None = None,
    labels: str = "sorted",
    seed: int = 0,
    download: bool = False,
    validation: Amount = None,
    calibration: Amount = None,
) -> Data:
    """Opens images, and what they are answered with, without reading them; of masks and annotations some are looked at.

    With ``train/`` beside ``val/`` (or ``test/``), that is the test split, and validation and calibration are drawn from
    train; with all three, ``val/`` is validation. ``val/`` alone is divided into calibration, validation and test. Class
    folders at the root, and undivided arrays, are divided into all four.

    Masks, boxes, images to be restored and tables of values are recognised by their layout (docs/data.md); other folders are
    those of classes.

    Args:
        source: a folder, a ``.zip`` of one, an ``.npz``, ``digits``, a data set of torchvision (``cifar10`` or
            ``cifar10:FOLDER``), or ``package.module:function`` that returns a :class:`Data`, arrays
            ``(x, y)`` or ``(x_train, y_train, x_test, y_test)``, a dict of what :func:`compress.data_from` takes, or a dataset.
        preprocessing: guessed from the first image where it is not given.
        num_classes: outputs of the network, where known.
        labels: of class folders ``sorted``, ``index-prefix`` or a file (see :func:`compress.data.labels.label_map`);
            ``masks``, ``boxes``, ``images``, ``values``, ``classes`` or ``none`` where a layout may be read in several ways.
        seed: of the division.
        download: torchvision may fetch what is missing.
        validation: number of images, or a share in (0, 1).
        calibration: number of images, or a share in (0, 1).

    Raises:
        DataError: the source is missing, empty, has one class, or more than the network; the hint says what to do.
    """
    source = os.fspath(source)
    listing = _listing(source, labels, num_classes, download)
    if isinstance(listing, Data):
        return listing
    drawn = _divide(listing, np.random.default_rng(np.random.SeedSequence([seed])), validation, calibration, source)
    warnings = listing.warnings
    if preprocessing is None:
        preprocessing, note = _guess(drawn["validation"])
        warnings = (*warnings, note)
    made = {
        name: Split(name, part.images, part.indices, part.labels, preprocessing, seed, part.targets)
        for name, part in drawn.items()
        if len(part.indices)
    }
    for name in ("validation", "calibration", "test"):
        if name not in made:
            raise DataError(f"{source}: no image is left for {name}", hint="give more images, or smaller shares")
    return Data(
        name=Path(source).stem if ":" not in source else source,
        classes=listing.classes,
        train=made.get("train"),
        validation=made["validation"],
        calibration=made["calibration"],
        test=made["test"],
        preprocessing=preprocessing,
        warnings=warnings,
    )


def examined(data: Data) -> tuple[str, ...]:
    """Looks at a few images before any work is done on them; what a user should know about how they are read.

    Raises:
        DataError: all of them are the same to the network, from which nothing can be learnt or measured.
    """
    for split in (data.validation, data.calibration):
        if split.all_alike():
            value = float(split.images(1).flatten()[0])
            raise DataError(
                f"{data.name}: the images of {split.name} are all the same once they are read (the first pixel is {value:.4g})",
                hint="look at the files: give images that differ, as 8-bit or 16-bit files, or an .npz of the network's input",
            )
    with suppress(Unreadable):
        picture = data.validation.picture(0)
        return oddities(picture) if isinstance(picture, Image.Image) else ()
    return ()


def _listing(source: str, labels: str, num_classes: int | None, download: bool) -> Listing | Data:
    name, _, root = source.partition(":")
    path = Path(source)
    if source == "digits":
        return list_digits(num_classes)
    if name in TORCHVISION and not (not root and path.exists()):
        return list_torchvision(name, root or "data", download, num_classes)
    try:
        if path.is_dir():
            return list_files(FolderImages(path), source, labels, num_classes)
        if path.is_file():
            if path.suffix.lower() == ".npz":
                return list_npz(path, num_classes, labels)
            if path.suffix.lower() == ".zip":
                return list_files(ZipImages(path), source, labels, num_classes)
            raise DataError(f"{source} is neither a folder, a .zip nor an .npz", hint="give the folder that holds the images")
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error}", hint="check its permissions") from error
    if is_entrypoint(source):
        return _from_function(source, num_classes, labels)
    raise DataError(
        f"{source} does not exist",
        hint=files_like(source, f"give a folder, a .zip, an .npz, digits, {', '.join(TORCHVISION)} or package.module:function"),
    )


def given_preprocessing(source: str) -> Preprocessing | None:
    """How the images that a user's function gives are prepared, their size among it, as far as a first batch tells.

    Args:
        source: ``package.module:function``.

    Returns:
        None where they are prepared here (arrays), or are no images.

    Raises:
        DataError: the function cannot be imported, fails, or gives nothing.
    """
    from compress.data.batch_kinds import as_given, paired
    from compress.data.given import first_batch
    from compress.data.own_sources import source_of

    found = _called(source)
    if isinstance(found, Data):
        return found.preprocessing
    if isinstance(found, tuple) and len(found) in (2, 4):
        return None
    splits = found if isinstance(found, dict) else {"validation": found}
    told = splits.get("preprocessing")
    if isinstance(told, Preprocessing) or splits.get("validation") is None:
        return told
    first = first_batch("validation", source_of(splits["validation"], "validation"))
    pair = paired(first)
    inputs = first if pair is None else pair[0]
    made = as_given(inputs)
    return made if tuple(getattr(inputs, "shape", ()))[1:] == made.shape else None


def _called(source: str) -> Any:
    """What the user's function gives.

    Raises:
        DataError: it cannot be imported, or fails.
    """
    try:
        return import_entrypoint(source)()
    except ImportError as error:
        raise DataError(f"--data {source}: {error}", hint="check that it can be imported from here") from error
    except DataError:
        raise
    except Exception as error:  # the user's own code
        raise DataError(f"--data {source} failed: {type(error).__name__}: {error}") from error


def _from_function(source: str, num_classes: int | None, labels: str) -> Listing | Data:
    found: Any = _called(source)
    if isinstance(found, Data):
        return found
    if isinstance(found, tuple) and len(found) in (2, 4):
        names = ("",) if len(found) == 2 else ("train", "test")
        parts = {n: (lambda x=found[2 * i]: x, found[2 * i + 1]) for i, n in enumerate(names)}
        return list_arrays(source, parts, num_classes, wanted=labels)
    return _own(found, source)


def _own(found: Any, source: str) -> Data:
    """Of datasets and loaders: a dict of splits, or what is to be divided."""
    from compress.data.own_data import data_from

    splits = found if isinstance(found, dict) else {"validation": found}
    known = ("train", "validation", "calibration", "test", "classes", "preprocessing")
    strange = [key for key in splits if key not in known]
    if strange or not (isinstance(found, dict) or hasattr(found, "__iter__") or hasattr(found, "__getitem__")):
        raise DataError(
            f"--data {source} returned a {type(found).__name__}" + (f" with {strange[0]!r}" if strange else ""),
            hint=f"return Data, (x, y), (x, y, x_test, y_test), a dataset, a loader, or a dict of them: {', '.join(known)}",
        )
    return data_from(**{"validation": None, **splits}, name=source)


def _divide(
    listing: Listing, rng: np.random.Generator, validation: Amount, calibration: Amount, source: str
) -> dict[str, Part]:
    """Disjoint by construction: every part is permuted once and handed out in slices."""
    parts = dict(listing.parts)
    if len(parts) == 1:
        (name, pool), n = next(iter(parts.items())), len(next(iter(parts.values())).indices)
        if name in ("val", "test"):
            cal, val = _amount(calibration, n, HELD_OUT["calibration"]), _amount(validation, n, HELD_OUT["validation"])
            counts = {"calibration": cal, "validation": val, "test": n - cal - val}
        else:
            test = _amount(None, n, POOL["test"])
            val, cal = _amount(validation, n, POOL["validation"]), _amount(calibration, n, POOL["calibration"])
            counts = {"test": test, "validation": val, "calibration": cal, "train": n - test - val - cal}
        return _deal(pool, counts, rng, source)
    test_part = parts.pop("test", None) or parts.pop("val")
    held = parts.pop("val", None)
    train = parts.pop("train", None)
    if train is None:  # val and test
        assert held is not None
        n = len(held.indices)
        cal = _amount(calibration, n, 0.5)
        return {**_deal(held, {"calibration": cal, "validation": n - cal}, rng, source), "test": _shuffled(test_part, rng)}
    n = len(train.indices)
    cal = _amount(calibration, n, *CALIBRATION)
    counts = {"calibration": cal}
    if held is None:
        counts["validation"] = _amount(validation, n, *VALIDATION)
    counts["train"] = n - sum(counts.values())
    drawn = _deal(train, counts, rng, source)
    if held is not None:
        drawn["validation"] = _shuffled(held, rng)
    return {**drawn, "test": _shuffled(test_part, rng)}


def _amount(wanted: Amount, n: int, share: float, most: int | None = None) -> int:
    if wanted is None:
        count = max(1, round(n * share))
        return count if most is None else min(count, most)
    if isinstance(wanted, float) and 0 < wanted < 1:
        return max(1, round(n * wanted))
    if wanted != int(wanted) or not 1 <= wanted < n:
        raise DataError(
            f"a split of {wanted} images out of {n} was asked for", hint=f"give a number below {n} or a share below 1"
        )
    return int(wanted)


def _deal(pool: Part, counts: dict[str, int], rng: np.random.Generator, source: str) -> dict[str, Part]:
    if min(counts.values()) < 1:
        raise DataError(
            f"{source} has {plural(len(pool.indices), 'image')}, too few to divide into {', '.join(counts)} ({counts})",
            hint="give more images, or ask for smaller splits",
        )
    order = rng.permutation(len(pool.indices))
    dealt: dict[str, Part] = {}
    start = 0
    for name, count in counts.items():
        dealt[name] = _take(pool, order[start : start + count])
        start += count
    return dealt


def _shuffled(part: Part, rng: np.random.Generator) -> Part:
    # A limit on a split sorted by class would see the first classes only.
    return _take(part, rng.permutation(len(part.indices)))


def _take(part: Part, order: npt.NDArray[np.int64]) -> Part:
    return replace(part, indices=part.indices[order], labels=part.labels[order])


def _guess(part: Part) -> tuple[Preprocessing, str]:
    for index in part.indices[:6]:
        try:
            picture = part.images.read(int(index))
        except Unreadable:
            continue
        if isinstance(picture, Image.Image):
            shape: tuple[int, ...] = (3, picture.height, picture.width)
        else:
            if picture.ndim != 3 or picture.shape[2] not in PICTURE_CHANNELS:
                shape = picture.shape if picture.ndim > 1 else (1, *picture.shape)
                zeros, ones = (0.0,) * shape[0], (1.0,) * shape[0]
                return Preprocessing(mean=zeros, std=ones, size=shape[1:]), "samples that are no pictures are used as they are"
            shape = (picture.shape[2], picture.shape[0], picture.shape[1])
        if not isinstance(picture, Image.Image) and picture.dtype != np.uint8:
            zeros, ones = (0.0,) * shape[0], (1.0,) * shape[0]
            return Preprocessing(mean=zeros, std=ones, size=(shape[1], shape[2])), "floating-point images are used as they are"
        guess = preset_for("", shape) if max(shape[1:]) <= SMALL_SIDE else IMAGENET
        return guess, f"pre-processing was guessed from the first image: {guess}"
    raise DataError("the first images cannot be read", hint="remove or replace the damaged files")
