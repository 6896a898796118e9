"""Backward elimination that knows it will be compensated: structured optimal brain surgeon, as linear algebra.

A reader's weights ``W`` are the least-squares answer to what it reads, whose damped second moments are ``H``. Removing the
columns ``j`` of a channel and re-solving all others raises the error by ``tr(W_j^T ((H^-1)_jj)^-1 W_j)``; the new answer and
the new inverse follow by block down-dating (Hassibi and Stork, 1993; Kurtic et al., 2022, for whole structures). The
channel that raises it least goes first, again and again: every width is then a prefix of one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.core import Floats, Indices
from compress.networks import computing_with

SMALL = 2048
"""Columns up to which one thread works: thousands of small steps spend more on waiting for each other than on work."""


@dataclass(frozen=True, slots=True)
class EliminationReader:
    """One layer (or one of its conv-groups) that reads the channels.

    Attributes:
        moments: second moments of its inputs, damped, (columns, columns); columns of other channels included: they help.
        weights: (columns, outputs).
        places: channel -> its columns, any number of them.
        total: what its errors are divided by.
    """

    moments: Tensor
    weights: Tensor
    places: Sequence[Sequence[int]]
    total: float


def eliminate(readers: Sequence[EliminationReader]) -> tuple[Indices, Floats]:
    """The order in which channels go, and the error after so many removals.

    Returns:
        The channels, first removed first, and the compensated errors after 0, 1, ... removals, summed over the readers
        and divided by their totals: one more than there are channels.
    """
    with computing_with(1 if max(len(r.moments) for r in readers) <= SMALL else torch.get_num_threads()):
        return _eliminate([_Elimination(r) for r in readers], len(readers[0].places))


def _eliminate(states: Sequence[_Elimination], count: int) -> tuple[Indices, Floats]:
    alive = torch.ones(count, dtype=torch.bool)
    names = torch.arange(count)
    order, errors = [], [0.0]
    for _ in range(count):
        costs = sum((s.costs() for s in states), torch.zeros(len(names), dtype=torch.float64))
        costs[~alive] = torch.inf
        chosen = int(costs.argmin())
        order.append(int(names[chosen]))
        errors.append(errors[-1] + max(float(costs[chosen]), 0.0))
        alive[chosen] = False
        for state in states:
            state.remove(chosen)
        if int(alive.sum()) <= 0.8 * len(alive):  # the dead rows are carried along until there are many
            for state in states:
                state.keep(alive)
            names, alive = names[alive], alive[alive]
    return np.array(order), np.array(errors)


class _Elimination:
    """The inverse and the weights of what is left; every channel has the same number of columns, some of them dummies."""

    def __init__(self, reader: EliminationReader) -> None:
        most = max(1, *(len(p) for p in reader.places))
        table = torch.full((len(reader.places), most), -1, dtype=torch.int64)
        for channel, columns in enumerate(reader.places):
            table[channel, : len(columns)] = torch.tensor(columns, dtype=torch.int64)
        flat = table.flatten()
        real = flat >= 0
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(reader.moments.double()))
        index = flat[real]
        # A dummy column has a variance of its own and no weight: it costs nothing and disturbs nobody.
        self.inverse = torch.eye(len(flat), dtype=torch.float64)
        self.inverse[real.nonzero(), real.nonzero().T] = inverse[index][:, index]
        self.weights = torch.zeros(len(flat), reader.weights.shape[1], dtype=torch.float64)
        self.weights[real] = reader.weights.double()[index]
        self.taps, self.total = most, reader.total

    def costs(self) -> Tensor:
        """What each channel's removal would add, (channels,)."""
        channels = len(self.inverse) // self.taps
        here = torch.arange(channels)
        blocks = self.inverse.view(channels, self.taps, channels, self.taps)[here, :, here, :]
        rows = self.weights.view(channels, self.taps, -1)
        if self.taps == 1:  # no tiny systems to solve
            single: Tensor = rows[:, 0].square().sum(1) / (blocks[:, 0, 0] * self.total)
            return single
        solved: Tensor = torch.linalg.solve(blocks, rows @ rows.transpose(1, 2))
        return solved.diagonal(dim1=1, dim2=2).sum(1) / self.total

    def remove(self, channel: int) -> None:
        """Takes a channel out and re-solves the others."""
        mine = slice(channel * self.taps, (channel + 1) * self.taps)
        column = self.inverse[:, mine].clone()
        gain = torch.linalg.solve(column[mine], column.T)  # (taps, columns)
        self.weights -= gain.T @ self.weights[mine]
        self.inverse.addmm_(column, gain, alpha=-1.0)
        self.inverse[mine] = 0.0
        self.inverse[:, mine] = 0.0
        self.inverse[mine, mine] = torch.eye(self.taps, dtype=torch.float64)
        self.weights[mine] = 0.0

    def keep(self, alive: Tensor) -> None:
        """Forgets the channels that are gone."""
        rows = alive.repeat_interleave(self.taps)
        self.inverse = self.inverse[rows][:, rows].contiguous()
        self.weights = self.weights[rows]
