"""Data of a user's own datasets and loaders, divided where they left something out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.data.dataset import CALIBRATION, HELD_OUT, Data
from compress.data.given import GivenSplit, names_of, split_of
from compress.data.own_sources import MapSource, StreamSource, source_of
from compress.data.preprocessing import Preprocessing
from compress.errors import DataError

_HOW = "give it, or give a dataset whose examples have numbers, from which it can be drawn"


def data_from(
    *,
    validation: Any,
    train: Any = None,
    calibration: Any = None,
    test: Any = None,
    classes: Sequence[str] | int = (),
    preprocessing: Preprocessing | None = None,
    name: str = "given data",
    seed: int = 0,
) -> Data:
    """Data from any dataset or loader of torch, with batches of any structure.

    A split is a ``torch.utils.data.Dataset``, a ``DataLoader``, a pair ``(inputs, targets)`` of arrays or tensors, or an
    iterable of batches that starts anew each time. Of datasets, and of loaders that only batch or shuffle one, batches are made
    here, in the sizes and orders that a run asks for; other loaders' batches are taken as they come. Examples are used as they
    are: normalised and varied by the user's own code.

    What is left out is drawn from what is there, where examples have numbers: calibration from train (5 %, 2,000 at most) or
    from validation (30 %), test from validation (half).

    Args:
        validation: what decisions are made on.
        train: what is trained on; without it nothing is.
        calibration: what statistics are taken of.
        test: what the final figure is of.
        classes: their names or their number; by default what the dataset calls ``classes``. Of boxes, the background first.
        preprocessing: what the user's code does to an image, to be written into deployments; by default nothing.
        name: for people.
        seed: of what is drawn.

    Raises:
        DataError: a split is empty, gives less the second time, is the same as another one, or its first batch cannot be used.
    """
    given = {"train": train, "validation": validation, "calibration": calibration, "test": test}
    for one, two in (("test", "train"), ("test", "validation"), ("test", "calibration"), ("validation", "train")):
        if given[one] is not None and given[one] is given[two]:
            raise DataError(
                f"{one} and {two} are the same object, so that {one} would be no judge of what {two} decided",
                hint=f"give other examples, or leave {one} out where it can be drawn from validation",
            )
    sources = {key: source_of(value, key) for key, value in given.items() if value is not None}
    if "validation" not in sources:
        raise DataError("validation is None, and decisions are made on it", hint="give validation=...")
    _add_missing(sources, np.random.default_rng(np.random.SeedSequence([seed])))
    names = names_of(validation, classes)
    splits: dict[str, GivenSplit] = {}
    warnings: list[str] = []
    for key in ("train", "validation", "calibration", "test"):
        if key in sources:
            splits[key], notes = split_of(key, sources[key], len(names), preprocessing)
            warnings += notes
    kinds = {key: split.target_kind for key, split in splits.items() if key != "calibration"}
    if len(set(kinds.values())) > 1:
        raise DataError(f"the splits have different targets: {kinds}", hint="give all splits the same structure of batches")
    return Data(
        name=name,
        classes=names,
        train=splits.get("train"),
        validation=splits["validation"],
        calibration=splits["calibration"],
        test=splits["test"],
        preprocessing=splits["validation"].preprocessing,
        warnings=tuple(warnings),
    )


def _add_missing(sources: dict[str, MapSource | StreamSource], rng: np.random.Generator) -> None:
    validation = sources["validation"]
    if "test" not in sources:
        sources["test"], sources["validation"] = _parted("test", "validation", validation, 0.5, rng)
    if "calibration" not in sources:
        train = sources.get("train")
        if isinstance(train, MapSource):
            share = min(CALIBRATION[0], CALIBRATION[1] / max(1, len(train.indices)))
            sources["calibration"], sources["train"] = _parted("calibration", "train", train, share, rng)
        else:
            part = HELD_OUT["calibration"]
            sources["calibration"], sources["validation"] = _parted(
                "calibration", "validation", sources["validation"], part, rng
            )


def _parted(
    name: str, from_: str, source: MapSource | StreamSource, share: float, rng: np.random.Generator
) -> tuple[MapSource, MapSource]:
    if not isinstance(source, MapSource):
        raise DataError(f"{name} is not given, and {from_} comes in batches of its own", hint=_HOW)
    count = len(source.indices)
    if count < 2:
        raise DataError(f"{from_} has {count} examples, too few to draw {name} from", hint=f"give {name}=... or more examples")
    order = rng.permutation(count)
    taken = min(count - 1, max(1, round(share * count)))
    return source.taking(np.sort(order[:taken])), source.taking(np.sort(order[taken:]))
