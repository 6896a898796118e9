"""Where a network's code divides its channels by count: a chunk, a split, a slice, a view, a pixel shuffle.

Such code looks at how many channels arrive, not at which: after a cut it divides what is left. So the pieces must keep
equally many channels each, and a border that is not a fraction of the width must keep everything before it. Whether the code
follows the width at all, or holds a constant, the trial cut shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.core import ChannelGroup, GroupId, LayerName, WidthAttribute, plural
from compress.coupling.channel_labels import Chunk, CountHolder, Ledger, Provenance, varying
from compress.coupling.count_holders import holders

_SPLITS = frozenset("split unsafe_split split_with_sizes split_with_sizes_copy split_copy".split())
_VIEWS = frozenset("view _unsafe_view reshape _reshape_alias view_copy unflatten".split())
_SHUFFLES = frozenset("channel_shuffle native_channel_shuffle".split())


def note(ledger: Ledger, name: str, args: Sequence[Any], out: Any) -> None:
    """What an operation asks of the number of channels; nothing where it does not divide them."""
    if name in ("stack", "cat"):
        return _joined(ledger, args, along=name == "cat")
    if not isinstance(args[0], Tensor):
        return
    x, labels = args[0], ledger.labels(args[0])
    if name in _SPLITS:
        dim = _given(args, 2, 0) % x.dim()
        _pieces(ledger, _along(labels, dim), [t.shape[dim] for t in out])
    elif name in ("slice", "narrow"):
        dim = _given(args, 1, 0) % x.dim()
        _slice(ledger, _along(labels, dim), args, x.shape[dim])
    elif name == "select":
        channels = _along(labels, args[1] % x.dim())
        if channels is not None:
            ledger.freeze(channels[: args[2] % len(channels) + 1], "its code picks a channel by number")
    elif name in _VIEWS:
        _view(ledger, labels, tuple(x.shape), tuple(out.shape))
    elif name in _SHUFFLES:
        channels = _along(labels, 1)
        if channels is not None:
            _pieces(ledger, channels, [len(channels) // args[1]] * args[1])
    elif name == "pixel_shuffle":
        channels = _along(labels, x.dim() - 3)
        if channels is not None:
            block = channels.view(-1, args[1] ** 2)
            ledger.channels.unite_pairs(block[:, :1].expand_as(block), block)


def _joined(ledger: Ledger, args: Sequence[Any], *, along: bool) -> None:
    """What is joined has one shape but for the dimension along which it is: channels at the same place go together."""
    tensors = [t for t in args[0] if t.numel()]
    for other in tensors[1:]:
        one, two = ledger.labels(tensors[0]), ledger.labels(other)
        if along:
            dim = _given(args, 1, 0) % other.dim()
            one, two = one.select(dim, 0), two.select(dim, 0)
        if one.shape == two.shape and one.numel():
            (seen,) = varying(one)
            if bool((seen != seen.flatten()[0]).any()):
                ledger.channels.unite_pairs(one, two)


def _given(args: Sequence[Any], place: int, default: int) -> int:
    """The argument at a place, where one is given."""
    return default if len(args) <= place or args[place] is None else int(args[place])


def _along(labels: Tensor, dim: int) -> Tensor | None:
    """The channel at each index of a dimension, where this is the dimension of channels and every index is one channel."""
    if labels.numel() == 0 or labels.shape[dim] < 2:
        return None
    (labels,) = varying(labels, keep=dim % labels.dim())
    rows = labels.movedim(dim, 0).reshape(labels.shape[dim], -1)
    first = rows[:, 0]
    if bool((first == first[0]).all()) or not bool((rows == first[:, None]).all()):
        return None
    return first


def _pieces(ledger: Ledger, channels: Tensor | None, sizes: Sequence[int]) -> None:
    if channels is None or len(sizes) < 2:
        return
    options, counted = holders(ledger.modules, ledger.here, sizes), len(set(sizes)) == 1
    if not counted and not options:
        told = ", ".join(map(str, sizes))
        return ledger.freeze(channels, f"its code divides it into pieces of {told} channels{_where(ledger)}")
    pieces = torch.split_with_sizes(channels, list(sizes))
    if not all(bool((piece == piece[0]).all()) for piece in pieces):  # pieces of one channel each go or stay as a whole
        _add(ledger, pieces, counted=counted, options=options)


def _add(ledger: Ledger, pieces: Sequence[Tensor], *, counted: bool, options: tuple[tuple[CountHolder, ...], ...]) -> None:
    arrays = tuple(p.numpy().astype(np.int64) for p in pieces)
    ledger.result.chunks.append(Chunk(arrays, _where(ledger), counted, options))


def _slice(ledger: Ledger, channels: Tensor | None, args: Sequence[Any], width: int) -> None:
    if channels is None or not bool(channels.all()):  # a part of something that is being filled
        return
    start, end = _given(args, 2, 0), _given(args, 3, width)
    step = _given(args, 4, 1)
    start, end = (min(max(i + width if i < 0 else i, 0), width) for i in (start, end))
    size = end - start
    if size <= 0 or size == width:
        return
    if step != 1:
        ledger.freeze(channels, f"its code takes one channel in {step}{_where(ledger)}")
    elif width % size == 0 and start % size == 0:
        _pieces(ledger, channels, [size] * (width // size))
    else:  # a constant border: what lies before it must stay
        border = start if end == width else end
        options = holders(ledger.modules, ledger.here, (border,)) if start == 0 or end == width else ()
        if options:
            return _add(ledger, (channels[:border], channels[border:]), counted=False, options=options)
        ledger.freeze(channels[:border], f"its code slices it at {border} of {plural(width, 'channel')}{_where(ledger)}")


def _view(ledger: Ledger, labels: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """A dimension of channels that becomes several: equally many channels for every index of the outer ones."""
    for dim, width in enumerate(before):
        channels = _along(labels, dim)
        split = _parts(before, after, dim)
        if channels is not None and len(split) > 1:
            _pieces(ledger, channels, [split[-1]] * (width // split[-1]))


def _parts(before: tuple[int, ...], after: tuple[int, ...], dim: int) -> tuple[int, ...]:
    """The dimensions that one dimension becomes, those of size 1 left out; empty where it is joined with others."""
    outside, width = int(np.prod(before[:dim])), before[dim]
    product = 1
    for place, size in enumerate(after):
        if product == outside:
            inside, parts = 1, []
            for more in after[place:]:
                inside *= more
                parts += [more] if more > 1 else []
                if inside == width:
                    return tuple(parts)
                if inside > width:
                    break
        product *= size
    return ()


def _where(ledger: Ledger) -> str:
    return f" (in {ledger.here[-1]})" if ledger.here and ledger.here[-1] else ""


# ---- after the run ---------------------------------------------------------------------------------------------------


def settled(run: Provenance) -> Provenance:
    """The run with every chunk that counts alone cannot keep turned into coupled channels, or frozen.

    Beside channels that stay, the other pieces stay too. Where pieces share channels, or hold one several times, the first
    channels of all pieces go together, and the second ones.
    """
    while True:
        for chunk in (c for c in run.chunks if c.counted):
            reasons = [run.frozen[int(c)] for piece in chunk.pieces for c in piece if int(c) in run.frozen]
            fixed = bool(reasons) or any((piece == 0).any() for piece in chunk.pieces)
            free = {int(c) for piece in chunk.pieces for c in piece if c and int(c) not in run.frozen}
            if fixed and free:
                why = f"beside what stays ({reasons[0]})" if reasons else "beside what is no channel"
                run = _frozen(run, free, f"its code chunks it{chunk.where} {why}")
                break
            if free and not chunk.trivial and not chunk.distinct:
                run = paired(run, chunk)
                break
        else:
            sized = [c for c in run.chunks if not c.trivial or (c.repeated and c.options)]  # their sizes may stand somewhere
            live = [c for c in sized if not all(int(v) in run.frozen for p in c.pieces for v in p)]
            unique = {tuple(p.tobytes() for p in c.pieces): c for c in live}
            return replace(run, chunks=list(unique.values()))


def _frozen(run: Provenance, classes: Iterable[int], reason: str) -> Provenance:
    return replace(run, frozen={**dict.fromkeys(classes, reason), **run.frozen})


def paired(run: Provenance, chunk: Chunk) -> Provenance:
    """The run with the pieces' channels of equal number made one."""
    new = np.arange(1 + max(int(v.max(initial=0)) for v in run.labels.values()))
    for piece in chunk.pieces[1:]:
        for a, b in zip(chunk.pieces[0].tolist(), piece.tolist(), strict=True):
            low, high = sorted((int(new[a]), int(new[b])))
            new[new == high] = low
    frozen: dict[int, str] = {}
    for label, reason in run.frozen.items():
        frozen.setdefault(int(new[label]) if label < len(new) else label, reason)
    return replace(
        run,
        labels={slot: new[values] for slot, values in run.labels.items()},
        frozen=frozen,
        moments=frozenset(int(new[label]) if label < len(new) else label for label in run.moments),
        chunks=[replace(c, pieces=tuple(new[p] for p in c.pieces)) for c in run.chunks],
    )


def coupled(group: ChannelGroup, classes: Sequence[int], chunks: Sequence[Chunk]) -> tuple[ChannelGroup, Chunk | None]:
    """The group with its coupled counts; and a chunk that it cannot keep by counts alone, if there is one."""
    number: Mapping[int, int] = {c: i for i, c in enumerate(classes)}
    mine = [c for c in chunks if c.counted and not c.trivial and any(int(v) in number for v in c.pieces[0])]
    if not mine:
        return group, None
    for chunk in mine:
        if not all(int(v) in number for piece in chunk.pieces for v in piece):
            return group, chunk
    pieces = tuple(tuple(tuple(sorted(number[int(v)] for v in piece)) for piece in c.pieces) for c in mine)
    made = replace(group, coupled_counts=pieces)
    orbits = set(made.orbits())
    for chunk, found in zip(mine, pieces, strict=True):
        if not set(found) <= orbits or _interleaved(group, found):
            return group, chunk
    return made, None


def attributes(
    groups: Sequence[tuple[ChannelGroup, Sequence[int]]], chunks: Sequence[Chunk], variant: int
) -> tuple[WidthAttribute, ...]:
    """The attributes that follow the widths.

    Args:
        groups: with the channel classes of each, in order.
        chunks: of the settled run.
        variant: 0 believes that equal pieces are taken from the width; the others that the n-th candidate holds the sizes.
    """
    place = {int(c): (group.id, i) for group, classes in groups for i, c in enumerate(classes)}
    found: dict[tuple[str, str], WidthAttribute] = {}
    for chunk in chunks:
        number = variant - chunk.counted
        for holder in chunk.options[max(number, 0)] if chunk.options[max(number, 0) :] and number >= 0 else ():
            counts = [_counted([place.get(int(v)) for v in chunk.pieces[i]]) for i in holder.pieces]
            if any(counts):
                made = WidthAttribute(LayerName(holder.module), holder.name, holder.values, tuple(counts))
                found.setdefault((made.module, made.name), made)
    return tuple(found.values())


def _counted(places: Sequence[tuple[GroupId, int] | None]) -> tuple[GroupId, tuple[int, ...]] | None:
    """A piece as channels of one group; None where it is of several, or has channels that stay."""
    owners = {p and p[0] for p in places}
    (owner, *others) = owners
    return None if owner is None or others else (owner, tuple(sorted(p[1] for p in places if p)))


def _interleaved(group: ChannelGroup, pieces: Sequence[Sequence[int]]) -> bool:
    """Whether pieces stand between each other somewhere: then their order after a cut depends on which channels stay."""
    for member in group.members:
        spans = sorted((min(found), max(found)) for p in pieces if (found := [i for c in p for i in member.positions[c]]))
        if any(low <= high for (_, high), (low, _) in pairwise(spans)):
            return True
    return False
