"""Where a user's batches come from: datasets whose examples have numbers, and loaders that go their own way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.core import Indices
from compress.data.batch_kinds import collate, examples_in, regular
from compress.data.split import Seed
from compress.errors import CompressError, DataError, one_line


class MapSource:
    """A dataset whose examples have numbers: put in any order, and made into batches, by us.

    Args:
        dataset: with ``__len__`` and ``__getitem__``.
        loading: further arguments of torch's ``DataLoader``: ``collate_fn``, ``num_workers``.
        indices: which of its examples; None for all of them.
    """

    def __init__(self, dataset: Any, loading: dict[str, Any], indices: Indices | None = None) -> None:
        self.dataset = dataset
        self.loading = loading
        self.indices = np.arange(len(dataset)) if indices is None else indices

    def taking(self, indices: Indices) -> MapSource:
        """The same with some of its examples."""
        return MapSource(self.dataset, self.loading, self.indices[indices])

    def batches(self, batch_size: int, seed: Seed, limit: int | None) -> Iterator[Any]:
        """Batches of the user's structure, in an order that depends on the seed alone."""
        from torch.utils.data import DataLoader

        entropy = [0] if seed is None else [seed] if isinstance(seed, int) else list(seed)
        rng = np.random.default_rng(np.random.SeedSequence(entropy))
        order = self.indices if seed is None else self.indices[rng.permutation(len(self.indices))]
        order = order[: limit if limit is None else max(limit, 0)]
        workers = torch.Generator().manual_seed(int(rng.integers(2**62)))
        loader = DataLoader(
            self.dataset,
            batch_size=batch_size,
            sampler=order.tolist(),
            generator=workers,
            **{"collate_fn": collate, **self.loading},
        )
        yield from loader


class StreamSource:
    """Batches as somebody else's loader gives them, in its sizes and its order."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def batches(self, batch_size: int, seed: Seed, limit: int | None) -> Iterator[Any]:
        """All batches, or as many as hold ``limit`` examples; the last of them is given whole."""
        del batch_size, seed
        seen = 0
        for batch in self.loader:
            if limit is not None and seen >= limit:
                return
            seen += examples_in(batch)
            yield batch


def source_of(given: Any, name: str) -> MapSource | StreamSource:
    """A source from a dataset, a loader, an iterable of batches, or a pair of arrays.

    Raises:
        DataError: it is none of them, or can be iterated once only.
    """
    from torch.utils.data import DataLoader, IterableDataset, TensorDataset

    if isinstance(given, tuple) and len(given) == 2 and all(isinstance(x, (Tensor, np.ndarray)) for x in given):
        return MapSource(TensorDataset(*(torch.as_tensor(x) for x in given)), {})
    if isinstance(given, DataLoader):
        own = given.collate_fn is not torch.utils.data.default_collate
        loading = {"num_workers": given.num_workers} | ({"collate_fn": given.collate_fn} if own else {})
        return MapSource(given.dataset, loading) if _plain(given) else StreamSource(given)
    numbered = hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, (list, tuple, str, dict))
    if numbered and not isinstance(given, IterableDataset):
        return MapSource(given, {})
    if isinstance(given, IterableDataset):
        return StreamSource(DataLoader(given, batch_size=32, collate_fn=collate))
    if not hasattr(given, "__iter__") or isinstance(given, (str, bytes, dict)):
        raise DataError(
            f"{name} is a {type(given).__name__}",
            hint="give a torch Dataset, a DataLoader, a pair (inputs, targets) of arrays, or an iterable of batches",
        )
    if iter(given) is given:
        raise DataError(
            f"{name} is a {type(given).__name__}, which can be iterated once only",
            hint="give a Dataset, a DataLoader, or an object whose __iter__ starts anew",
        )
    return StreamSource(given)


def _plain(loader: Any) -> bool:
    """Whether a loader does nothing that we cannot do in another order."""
    from torch.utils.data import BatchSampler, IterableDataset, RandomSampler, SequentialSampler

    if isinstance(loader.dataset, IterableDataset) or type(loader.batch_sampler) is not BatchSampler:
        return False
    sampler = loader.sampler
    whole = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(loader.dataset)
    )
    return whole and hasattr(loader.dataset, "__len__")


def guarded(name: str, batches: Iterator[Any]) -> Iterator[Any]:
    """Batches as ours are; what the user's own code raises is told by the split's name.

    Raises:
        DataError: it failed.
    """
    while True:
        try:
            batch = regular(next(batches))
        except StopIteration:
            return
        except CompressError as error:
            raise DataError(f"{name}: {error.message}", hint=error.hint) from error
        except Exception as error:  # the user's own code
            raise DataError(
                f"{name}: the dataset failed: {type(error).__name__}: {one_line(error)}",
                hint="iterate it by hand to see where",
            ) from error
        yield batch
