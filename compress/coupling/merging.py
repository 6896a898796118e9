"""Several runs of one network as one: what belongs together in any of them belongs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compress.core import Slot
from compress.coupling.channel_labels import Channels, Provenance


def merged(runs: Sequence[Provenance]) -> Provenance:
    """The runs' provenances over one set of classes.

    Classes of different runs are one where they share an index of a dimension. What is frozen, read, chunked or picked by
    number in one run is so in all; operations, positions and MACs are those of the first.

    Args:
        runs: of the same network, in other modes or on other inputs.
    """
    if len(runs) == 1:
        return runs[0]
    order = max(runs, key=lambda run: len(run.labels))  # the first one that met all layers; auxiliary heads have their place
    classes = Channels()
    classes.fresh(_largest(runs[0]))
    labels = {slot: values.copy() for slot, values in runs[0].labels.items()}
    renumbered = [runs[0]]
    for run in runs[1:]:
        run = _renumbered(run, labels, classes)
        renumbered.append(run)
        for slot, values in run.labels.items():
            before = labels.get(slot)
            labels[slot] = values if before is None else np.where(before == 0, values, before)
    root = np.array([classes.root(i) for i in range(len(classes.parent))])
    frozen: dict[int, str] = {}
    by_number: dict[int, str] = {}
    for run in renumbered:
        for known, found in ((frozen, run.frozen), (by_number, run.by_number)):
            for label, what in found.items():
                known.setdefault(int(root[label]), what)
    return Provenance(
        labels={slot: root[labels[slot]] for slot in dict.fromkeys([*order.labels, *labels])},
        reads=set().union(*(run.reads for run in runs)),
        layers={key: layer for run in (order, *runs) for key, layer in run.layers.items()},
        sites=dict(runs[0].sites),
        frozen=frozen,
        moments=frozenset(int(root[label]) for run in renumbered for label in run.moments),
        attention=runs[0].attention,
        fixed_macs=runs[0].fixed_macs,
        chunks=[replace(c, pieces=tuple(root[p] for p in c.pieces)) for run in renumbered for c in run.chunks],
        operations=runs[0].operations,
        by_number=by_number,
        outputs=runs[0].outputs,
        asked=list(dict.fromkeys(line for run in runs for line in run.asked)),
    )


def _largest(run: Provenance) -> int:
    """The largest class of a run."""
    chunked = (piece for chunk in run.chunks for piece in chunk.pieces)
    told = (max(run.frozen, default=0), max(run.by_number, default=0), max(run.moments, default=0))
    return max(*told, *(int(v.max(initial=0)) for v in (*run.labels.values(), *chunked)), 0)


def _renumbered(run: Provenance, labels: Mapping[Slot, NDArray[np.int64]], classes: Channels) -> Provenance:
    """The run with the numbers of the classes that it meets in known dimensions; others get new ones.

    A class that meets several unites them.
    """
    new = np.zeros(1 + _largest(run), dtype=np.int64)
    shared = [(labels[slot], values) for slot, values in run.labels.items() if slot in labels]
    ours, theirs = (np.concatenate([pair[i] for pair in shared]) for i in (0, 1))
    both = (ours != 0) & (theirs != 0)
    new[theirs[both]] = ours[both]
    differ = both & (new[theirs] != ours)
    for a, b in np.unique(np.stack([ours[differ], new[theirs[differ]]], axis=1), axis=0).tolist():
        classes.unite(a, b)
    strangers = np.flatnonzero(new == 0)[1:]
    new[strangers] = classes.fresh(len(strangers)).numpy()
    return replace(
        run,
        labels={slot: new[values] for slot, values in run.labels.items()},
        frozen={int(new[label]): why for label, why in reversed(run.frozen.items())},
        by_number={int(new[label]): what for label, what in reversed(run.by_number.items())},
        moments=frozenset(int(new[label]) for label in run.moments),
        chunks=[replace(c, pieces=tuple(new[p] for p in c.pieces)) for c in run.chunks],
    )
