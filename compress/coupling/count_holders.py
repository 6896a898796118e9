"""Which attributes of the running modules may hold the sizes that code divides its channels by.

The numbers that an operation is given do not say where they come from. Attributes of the modules that are running whose
values are these numbers are candidates; whether the code really reads one, the trial cut shows, which writes new counts there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from compress.coupling.channel_labels import CountHolder

_MOST = 3
"""Candidates that are tried."""


def holders(modules: Mapping[str, nn.Module], here: Sequence[str], sizes: Sequence[int]) -> tuple[tuple[CountHolder, ...], ...]:
    """The candidates for pieces of these sizes, innermost module first.

    Args:
        modules: name -> module.
        here: names of those that are running, outermost first.
        sizes: of the pieces.
    """
    found: list[tuple[CountHolder, ...]] = []
    for name in dict.fromkeys(reversed(here)):
        module = modules.get(name)
        if module is not None and not type(module).__module__.startswith("torch."):
            found += [option for option in _of(name, module, sizes) if option not in found]
    return tuple(found[:_MOST])


def _of(name: str, module: nn.Module, sizes: Sequence[int]) -> Iterator[tuple[CountHolder, ...]]:
    numbers = {key: value for key, value in vars(module).items() if type(value) is int and not key.startswith("_")}
    rows = {key: value for key, value in vars(module).items() if isinstance(value, tuple | list) and not key.startswith("_")}
    for key, value in rows.items():
        if list(value) == list(sizes) and all(type(n) is int for n in value):
            yield (CountHolder(name, key, tuple(value), tuple(range(len(sizes)))),)
    if len(set(sizes)) == 1:
        yield from ((CountHolder(name, key, (n,), (0,)),) for key, n in numbers.items() if n == sizes[0])
    else:
        chosen = [next((key for key, n in numbers.items() if n == size), None) for size in sizes]
        if all(chosen) and len(set(sizes)) == len(sizes):
            yield tuple(
                CountHolder(name, str(key), (size,), (i,)) for i, (key, size) in enumerate(zip(chosen, sizes, strict=True))
            )
