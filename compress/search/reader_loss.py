"""What a layer loses when it stops reading channels, as a quadratic problem of as many variables as it reads channels.

With Z_c what input channel c contributes to a layer's pre-activations about their mean, removing the channels R loses
``||sum_R Z_c||^2 = 1_R^T Q 1_R`` with ``Q_cd = <Z_c, Z_d>`` (*plain*: nothing is re-solved).

*Compensated*, all other weights re-solved by least squares, it loses ``E(R) = tr(W_R^T ((A^-1)_RR)^-1 W_R)``, A the second
moments of the unfolded inputs, which needs every kernel position. With ``X_c = ((A^-1)_cc)^-1 W_c`` and
``S_cd = tr(X_c^T (A^-1)_cd X_d)`` it is bounded below by ``s_R^T (S_RR)^-1 s_R``, s the diagonal of S, with equality for a
single channel (a compression of a positive definite matrix has the smaller inverse). That is the form used here: a matrix of
channels, not of columns. Both are divided by the pre-activations' variance.

Layers' errors are not worth the same. ``knots`` say what an error of this layer is at the network's outputs: measured at a few
removals (``compress.evaluation.reader_losses``), interpolated between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from compress.core import Bits, Floats, GroupId, LayerName

Kind = Literal["compensated", "plain"]

_JITTER = 1e-9


@dataclass(frozen=True)
class ReaderLoss:
    """One reader and the channels of the groups that it reads.

    Attributes:
        layer: the reader.
        sources: (group, channel) of every entry.
        plain: Q over the variance, (entries, entries).
        compensated: S over the variance, (entries, entries).
        knots: (compensated error of the layer, relative squared error of the outputs), increasing from (0, 0).
    """

    layer: LayerName
    sources: tuple[tuple[GroupId, int], ...]
    plain: Floats
    compensated: Floats
    knots: tuple[tuple[float, float], ...] = ((0.0, 0.0), (1.0, 1.0))

    def error(self, removed: Bits, kind: Kind) -> float:
        """The outputs' relative squared error without these entries, (entries,) bits."""
        return self.given(np.zeros(len(self.sources), dtype=bool), kind).error(removed)

    def given(self, removed: Bits, kind: Kind) -> Remaining:
        """The problem that is left when some entries are gone for good."""
        gone = np.flatnonzero(removed)
        if kind == "plain":
            weight = self.plain[:, gone].sum(1)
            return Remaining(
                reader_loss=self,
                kind=kind,
                gone=float(weight[gone].sum()),
                single=self.plain.diagonal() + 2 * weight,
                matrix=self.plain,
            )
        matrix, gain = self.compensated, self.compensated.diagonal()
        if len(gone) == 0:
            return Remaining(reader_loss=self, kind=kind, gone=0.0, single=gain, matrix=matrix)
        block, beside = matrix[np.ix_(gone, gone)], matrix[gone]
        solved = _solve(block, np.column_stack([gain[gone], beside]))
        base = float(gain[gone] @ solved[:, 0])
        return Remaining(
            reader_loss=self,
            kind=kind,
            gone=base,
            single=gain - beside.T @ solved[:, 0],
            matrix=matrix - beside.T @ solved[:, 1:],
        )

    def at_outputs(self, error: float, kind: Kind) -> float:
        """What this layer's relative error is at the outputs; beyond the last knot by the last slope."""
        x, y = (np.array(side) for side in zip(*self.knots, strict=True))
        if kind == "plain":  # measured were re-solved weights: one slope serves
            middle = len(x) // 2
            return error * float(y[middle] / x[middle])
        slope = float((y[-1] - y[-2]) / (x[-1] - x[-2]))
        return float(np.interp(error, x, y)) + slope * max(error - float(x[-1]), 0.0)


@dataclass(frozen=True)
class Remaining:
    """What further removals add, in the coordinates of the whole problem.

    Attributes:
        reader_loss: the whole problem.
        kind: which error.
        gone: the layer's error by what is gone already.
        single: what each entry alone adds, (entries,).
        matrix: (entries, entries).
    """

    reader_loss: ReaderLoss
    kind: Kind
    gone: float
    single: Floats
    matrix: Floats

    @property
    def base(self) -> float:
        """The outputs' error by what is gone already."""
        return self.reader_loss.at_outputs(self.gone, self.kind)

    def error(self, further: Bits) -> float:
        """The outputs' error when these entries, none of them gone already, go as well."""
        more = np.flatnonzero(further)
        if len(more) == 0:
            return self.base
        block, single = self.matrix[np.ix_(more, more)], self.single[more]
        if self.kind == "plain":
            added = float(single.sum() + block.sum() - block.diagonal().sum())
        else:
            added = max(float(single @ _solve(block, single)), 0.0)
        return self.reader_loss.at_outputs(self.gone + added, self.kind)


def _solve(matrix: Floats, right: Floats) -> Floats:
    """A positive definite system; dead channels, whose rows are zero, lose nothing."""
    from scipy.linalg.lapack import dposv

    level = _JITTER * max(float(matrix.diagonal().mean()), 1e-30)
    damped = matrix + level * np.eye(len(matrix))
    _, solved, failed = dposv(damped, right, lower=1)
    if failed:
        return np.asarray(np.linalg.lstsq(damped, right, rcond=None)[0])
    return np.asarray(solved)


def additive(layer: LayerName, group: GroupId, harm: Floats) -> ReaderLoss:
    """A stand-in where no moments are known: every channel's removal adds its own share, whatever else is gone."""
    diagonal = np.diag(harm / max(float(harm.sum()), 1e-30))
    return ReaderLoss(layer=layer, sources=tuple((group, c) for c in range(len(harm))), plain=diagonal, compensated=diagonal)
