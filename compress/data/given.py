"""A user's own datasets and loaders as splits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.data.batch_kinds import as_given, check_batch, examples_in, kind_of, paired
from compress.data.own_sources import MapSource, StreamSource, guarded
from compress.data.preprocessing import Preprocessing
from compress.data.sources import Picture, Unreadable
from compress.data.split import Seed, Split
from compress.data.targets import TargetKind
from compress.errors import CompressError, DataError, one_line

_SAMPLED, _TWICE = 64, 8
"""Examples that a digest is of where there are more, and of those how many are read twice."""
_PEEK = 64


class GivenSplit(Split):
    """A split of a user's dataset or loader; examples are used as they are given.

    Args:
        name: ``train``, ``validation``, ``calibration`` or ``test``.
        source: where its batches come from.
        count: its examples.
        first: one batch of it.
        preprocessing: what the user's own code has done, kept as ``prepared``; None where nobody says.
        digest: identifies its examples; empty where that cannot be had.
    """

    def __init__(
        self,
        name: str,
        source: MapSource | StreamSource,
        count: int,
        first: Any,
        preprocessing: Preprocessing | None,
        digest: str,
    ) -> None:
        pair = paired(first)
        made = preprocessing or as_given(first if pair is None else pair[0])
        self.prepared = preprocessing
        super().__init__(name, _NoImages(name, count), np.arange(count), np.full(count, -1), made)
        self._source = source
        self._kind = kind_of(first)
        self._digest = digest

    @property
    def labelled(self) -> bool:
        """Whether every example has one class index."""
        return self._kind == "classes"

    @property
    def target_kind(self) -> TargetKind:
        """What the first batch's targets are."""
        return self._kind

    @property
    def digest(self) -> str:
        """Identifies the examples; empty where that cannot be had."""
        return self._digest

    def __getitem__(self, position: int) -> tuple[Tensor, Any]:
        """One example, in a batch of one taken apart.

        Raises:
            DataError: the source gives batches only.
        """
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        if not isinstance(self._source, MapSource):
            raise DataError(f"{self.name} gives batches only", hint="give a dataset whose examples have numbers")
        ((inputs, targets),) = guarded(self.name, self._source.taking(np.array([position])).batches(1, None, None))
        return inputs[0], targets[0]

    def all_alike(self, most: int = 256) -> bool:
        """Whether the first examples, at most so many and two or more, have one and the same input."""
        rows: list[bytes] = []
        for batch in self.batches(32, limit=most):
            pair = paired(batch)
            held = [x for x in tree_leaves(batch if pair is None else pair[0]) if isinstance(x, Tensor) and x.dim() > 0]
            rows += [b"".join(t[i].cpu().contiguous().numpy().tobytes() for t in held) for i in range(examples_in(batch))]
            if len(set(rows)) > 1:
                return False
        return len(rows) > 1

    def picture(self, position: int) -> Picture:
        """There are no files to look at."""
        raise Unreadable("given as tensors")

    def images(self, n: int) -> Tensor:
        """The inputs of the first ``n`` examples.

        Raises:
            DataError: they are no tensor each; a task says what such a network is called with.
        """
        parts: list[Tensor] = []
        for batch in self.batches(min(max(n, 1), 64), limit=n):
            pair = paired(batch)
            inputs = batch if pair is None else pair[0]
            if not isinstance(inputs, Tensor):
                raise DataError(
                    f"{self.name}: an input is a {type(inputs).__name__}, one tensor is wanted",
                    hint="give batches (inputs, targets), or a task whose inputs() says what the network is called with",
                )
            parts.append(inputs)
        return torch.cat(parts)[:n]

    def batches(
        self, batch_size: int, *, shuffle_seed: Seed = None, augment: bool = False, limit: int | None = None
    ) -> Iterator[Any]:
        """The user's batches. A dataset's are made in this size and order; a loader's are taken as they come.

        Args:
            batch_size: of a dataset's batches.
            shuffle_seed: of a dataset's order.
            augment: is the user's own business.
            limit: only so many examples; of a loader, whole batches.

        Raises:
            DataError: the user's code failed, or there are fewer examples than the first time.
        """
        if batch_size < 1:
            raise DataError(f"a batch of {batch_size} images; at least 1 is needed", hint="give a larger batch")
        seen = 0
        for batch in guarded(self.name, self._source.batches(batch_size, shuffle_seed, limit)):
            seen += examples_in(batch)
            yield batch
        if seen < (len(self) if limit is None else min(limit, len(self))):
            raise DataError(
                f"{self.name} gave {seen} examples, the first time there were {len(self)}",
                hint="give a loader that starts anew each time it is iterated, not a generator or a stream that ends",
            )


class _NoImages:
    """Examples without files."""

    def __init__(self, label: str, count: int) -> None:
        self.label, self.count = label, count

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{self.label}[{index}]"

    def mark(self, index: int) -> str:
        return self.name(index)

    def read(self, index: int) -> Picture:
        raise Unreadable("given as tensors")


# ---- looked at before any work ---------------------------------------------------------------------------------------


def split_of(
    name: str, source: MapSource | StreamSource, classes: int, preprocessing: Preprocessing | None
) -> tuple[GivenSplit, tuple[str, ...]]:
    """A split, looked at, and what the user should know about it.

    Raises:
        DataError: it is empty, shorter the second time, fails, or its first batch cannot be used.
    """
    count = len(source.indices) if isinstance(source, MapSource) else _counted(name, source)
    if not count:
        raise DataError(f"{name} is empty: it gave no example", hint="check the dataset's path and filters")
    digest, note = _digest(name, source) if isinstance(source, MapSource) else ("", "it comes in batches of its own")
    first = first_batch(name, source)
    split = GivenSplit(name, source, count, first, preprocessing, digest)
    check_batch(first, split.target_kind, classes, name)
    if digest:
        return split, (f"{name}: its digest is of {note}",) if note else ()
    return split, (f"{name} has no digest, for {note}: a run that goes on cannot see whether it changed",)


def first_batch(name: str, source: MapSource | StreamSource) -> Any:
    """The first batch of a split.

    Raises:
        DataError: there is none, or the user's code fails.
    """
    with _random_states_kept():
        for batch in guarded(name, source.batches(16, None, 16)):
            return batch
    raise DataError(f"{name} is empty: it gave no batch", hint="check the dataset's path and filters")


def _counted(name: str, source: StreamSource) -> int:
    """Examples of one pass; the training part's second pass is only begun, the others' counted, too."""
    with _random_states_kept():
        count = sum(examples_in(batch) for batch in guarded(name, source.batches(1, None, None)))
        again = sum(examples_in(batch) for batch in guarded(name, source.batches(1, None, _PEEK if name == "train" else None)))
    if again < (min(_PEEK, count) if name == "train" else count):
        raise DataError(
            f"{name} gave {count} examples the first time and {again} the second",
            hint="give a loader that starts anew each time it is iterated",
        )
    return count


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Looking at a dataset draws nothing from anybody's generators."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])


def _digest(name: str, source: MapSource) -> tuple[str, str]:
    """Of all examples or of some; empty, and why, where they cannot be identified."""
    count = len(source.indices)
    places = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).round().astype(int))
    hashed = hashlib.sha256(f"{name}\0{count}\0{source.indices.tobytes().hex() if count < 10**6 else ''}\0".encode())
    with _random_states_kept():
        for number, place in enumerate(places):
            index = int(source.indices[place])
            try:
                seen = [_bytes(source.dataset[index]) for _ in range(2 if number < _TWICE else 1)]
            except CompressError:
                raise
            except Exception as error:  # the user's own code
                raise DataError(
                    f"{name}: the dataset failed at example {index}: {type(error).__name__}: {one_line(error)}",
                    hint="read that example by hand to see why",
                ) from error
            if seen[0] is None:
                return "", f"its examples hold more than tensors, arrays, numbers and text (example {index})"
            if seen[0] != seen[-1]:
                return "", f"example {index} is another each time it is read (random transforms?)"
            hashed.update(seen[0])
    return hashed.hexdigest()[:16], f"{len(places)} of {count} examples" if len(places) < count else ""


def _bytes(sample: Any) -> bytes | None:
    parts: list[bytes] = []
    for leaf in tree_leaves(sample):
        if isinstance(leaf, Tensor):
            parts.append(f"{leaf.dtype}{tuple(leaf.shape)}".encode() + leaf.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(leaf, (np.ndarray, np.generic)):
            parts.append(np.ascontiguousarray(leaf).tobytes())
        elif isinstance(leaf, (bool, int, float, str, bytes, type(None))):
            parts.append(repr(leaf).encode())
        else:
            return None
    return b"\0".join(parts)


def names_of(given: Any, classes: Sequence[str] | int) -> tuple[str, ...]:
    """Classes as told, or as the dataset itself says them, as torchvision's do."""
    if isinstance(classes, int):
        return tuple(str(i) for i in range(classes))
    if classes:
        return tuple(map(str, classes))
    dataset = getattr(given, "dataset", given)
    found = getattr(dataset, "classes", ())
    return tuple(found) if isinstance(found, (list, tuple)) and all(isinstance(name, str) for name in found) else ()
