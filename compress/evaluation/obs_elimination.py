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
HELD = 256
"""Columns of removals that wait to be multiplied into an inverse at once: one by one, each would move all of it."""


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


def eliminate(readers: Sequence[EliminationReader], *, held: int = HELD) -> tuple[Indices, Floats]:
    """The order in which channels go, and the error after so many removals.

    Args:
        readers: of the same channels.
        held: columns of removals that wait at the most; but for rounding nothing depends on it.

    Returns:
        The channels, first removed first, and the compensated errors after 0, 1, ... removals, summed over the readers
        and divided by their totals: one more than there are channels.
    """
    with computing_with(1 if max(len(r.moments) for r in readers) <= SMALL else torch.get_num_threads()):
        return _eliminate([_Elimination(r, held) for r in readers], len(readers[0].places))


def _eliminate(states: Sequence[_Elimination], count: int) -> tuple[Indices, Floats]:
    alive = torch.ones(count, dtype=torch.bool)
    names = torch.arange(count)
    order, errors = [], [0.0]
    for _ in range(count):
        if any(state.full for state in states):
            for state in states:
                state.keep(alive)
            names, alive = names[alive], alive[alive]
        costs = sum((s.costs() for s in states), torch.zeros(len(names), dtype=torch.float64))
        costs[~alive] = torch.inf
        chosen = int(costs.argmin())
        order.append(int(names[chosen]))
        errors.append(errors[-1] + max(float(costs[chosen]), 0.0))
        alive[chosen] = False
        for state in states:
            state.remove(chosen)
    return np.array(order), np.array(errors)


class _Elimination:
    """The inverse and the weights of what is left; every channel has the same number of columns, some of them dummies.

    Removals wait: of ``inverse`` their ``columns^T @ gains`` are still to be taken, of ``weights`` their ``gains^T @ taken``.
    What every step asks for, each channel's own block of the inverse and the products of its filters, is kept current.
    """

    def __init__(self, reader: EliminationReader, held: int) -> None:
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
        self.taps, self.total, self.held = most, reader.total, max(held, most)
        self._settled()

    def _settled(self) -> None:
        """Nothing waits."""
        self.waiting = 0
        self.columns = torch.empty(self.held, len(self.inverse), dtype=torch.float64)
        self.gains = torch.empty_like(self.columns)
        self.taken = torch.empty(self.held, self.weights.shape[1], dtype=torch.float64)
        channels = len(self.inverse) // self.taps
        here = torch.arange(channels)
        self.blocks = self.inverse.view(channels, self.taps, channels, self.taps)[here, :, here, :]
        rows = self.weights.view(channels, self.taps, -1)
        self.products = rows @ rows.mT

    @property
    def full(self) -> bool:
        """Whether there is no room for another removal to wait."""
        return self.waiting + self.taps > self.held

    def costs(self) -> Tensor:
        """What each channel's removal would add, (channels,)."""
        if self.taps == 1:  # no tiny systems to solve
            single: Tensor = self.products[:, 0, 0] / (self.blocks[:, 0, 0] * self.total)
            return single
        solved: Tensor = torch.linalg.solve(self.blocks, self.products)
        return solved.diagonal(dim1=1, dim2=2).sum(1) / self.total

    def remove(self, channel: int) -> None:
        """Takes a channel out and re-solves the others."""
        mine, t, n = slice(channel * self.taps, (channel + 1) * self.taps), self.taps, self.waiting
        columns, gains, taken = self.columns[:n], self.gains[:n], self.taken[:n]
        column = self.inverse[mine] - gains[:, mine].T @ columns  # (taps, columns): the inverse is symmetric
        weights = self.weights[mine] - gains[:, mine].T @ taken
        gain = torch.linalg.solve(column[:, mine], column)
        shared = self.weights @ weights.T - gains.T @ (taken @ weights.T)  # all filters' products with these, (columns, taps)
        each, lost = gain.T.reshape(-1, t, t), shared.view(-1, t, t)
        half = each @ lost.mT
        self.products += each @ shared[mine] @ each.mT - half - half.mT
        self.blocks -= column.T.reshape(-1, t, t) @ each.mT
        self.products[channel] = 0.0
        self.blocks[channel] = torch.eye(t, dtype=torch.float64)
        self.waiting += t
        self.columns[n : n + t], self.gains[n : n + t], self.taken[n : n + t] = column, gain, weights

    def keep(self, alive: Tensor) -> None:
        """Lets nothing wait any more, and forgets the channels that are gone."""
        rows, n = alive.repeat_interleave(self.taps).nonzero()[:, 0], self.waiting
        columns, gains = (t[:n].index_select(1, rows) for t in (self.columns, self.gains))
        self.inverse = self.inverse.index_select(0, rows).index_select(1, rows).addmm_(columns.T, gains, alpha=-1.0)
        self.weights = self.weights.index_select(0, rows).addmm_(gains.T, self.taken[:n], alpha=-1.0)
        self._settled()
