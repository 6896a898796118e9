"""From measured networks to a table's coefficients: few samples suffice, because each step knows what the last one found.

1. Times of single kernels, summed by layer, say how the *kinds* of layers (1x1, 3x3, depthwise) take time per unit of work.
2. Each layer is fitted to its own times, drawn towards its kind.
3. Times of whole networks, unprofiled and by a clock that neighbours cannot disturb, correct what profiling distorts: a factor
   per kind and quantity, and a smaller one per layer, each drawn towards 1, and the part that no layer explains.

Everything is least squares with bounds (no work takes negative time). Pure NumPy and SciPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.core import FEATURES, Floats, PredictionError

_OWN = 0.5
"""How far a layer may be from its kind, relative, before it costs as much as a residual of one deviation."""
_NODE_NOISE, _WHOLE_NOISE = 0.08, 0.012
"""Deviations of a layer's and of a whole network's relative time."""
_KIND_SPREAD, _LAYER_SPREAD, _REST_SPREAD = 0.15, 0.05, 0.05
_FOLDS = 6


@dataclass(frozen=True)
class Sample:
    """One measured network.

    Attributes:
        features: shape (layers, features).
        layers: seconds by layer in a profiled session, kernels without a weight counted to the layer they run before,
            shape (layers,); None where there is no such profile.
        ratio: time of the whole network over the unpruned one's, interleaved.
    """

    features: Floats
    layers: Floats | None
    ratio: float


@dataclass(frozen=True)
class Fitted:
    """Coefficients, shape (layers, features), and what no layer explains; in units of the unpruned network's time."""

    coefficients: Floats
    constant: float

    def predict(self, features: Floats) -> float:
        """Latency relative to the unpruned network."""
        return float((self.coefficients * features).sum() + self.constant)


def fit(samples: Sequence[Sample], kinds: Sequence[str]) -> Fitted:
    """Coefficients from measured networks, the unpruned one among them (its ratio is 1).

    Args:
        samples: at least two.
        kinds: of each layer.
    """
    features = np.stack([s.features for s in samples])  # (networks, layers, features)
    ratios = np.array([s.ratio for s in samples])
    times = np.stack([_relative(s) for s in samples])
    by_kind = _kinds(features, times, kinds)
    own = np.stack([_layer(features[:, i], times[:, i], by_kind[kind]) for i, kind in enumerate(kinds)])
    return _whole(features, ratios, own, kinds)


def validate(samples: Sequence[Sample], kinds: Sequence[str]) -> PredictionError:
    """Errors on networks that a fit did not see, by folds; the first sample, the unpruned network, is in every fit."""
    order = np.arange(1, len(samples))
    errors = []
    for fold in range(min(_FOLDS, len(order))):
        out = set(order[fold::_FOLDS].tolist())
        made = fit([s for i, s in enumerate(samples) if i not in out], kinds)
        errors += [abs(made.predict(samples[i].features) / samples[i].ratio - 1) for i in sorted(out)]
    return PredictionError(float(np.median(errors)), float(np.max(errors)), len(errors))


def _relative(sample: Sample) -> Floats:
    """Layers' times in units of the unpruned network's: their proportions are the profile's, their sum the whole's."""
    if sample.layers is None:
        return np.full(len(sample.features), np.nan)
    return np.asarray(sample.layers * (sample.ratio / sample.layers.sum()))


def _kinds(features: Floats, times: Floats, kinds: Sequence[str]) -> dict[str, Floats]:
    """Non-negative coefficients of each kind, from all its layers; relative errors count."""
    from scipy.optimize import nnls

    found = {}
    floor = float(np.nanmean(times)) / 20
    for kind in sorted(set(kinds)):
        members = [i for i, k in enumerate(kinds) if k == kind]
        rows, wanted = features[:, members].reshape(-1, len(FEATURES)), times[:, members].reshape(-1)
        known = np.isfinite(wanted)
        weight = 1 / (wanted[known] + floor)
        scale = np.maximum(np.abs(rows[known]).max(axis=0), 1e-12)
        answer, _ = nnls(rows[known] / scale * weight[:, None], wanted[known] * weight)
        found[kind] = answer / scale
    return found


def _layer(features: Floats, times: Floats, kind: Floats) -> Floats:
    """One layer's coefficients: its own samples, and its kind's as the prior."""
    from scipy.optimize import nnls

    known = np.isfinite(times)
    rows, wanted = features[known], times[known]
    usual = np.maximum(rows.mean(axis=0), 1e-12)
    typical = max(float(wanted.mean()), 1e-12)
    # A layer as a whole may be dearer or cheaper than its kind: that first, then the quantities apart.
    expected = rows @ kind
    level = float((expected @ wanted) / max(float(expected @ expected), 1e-30)) if len(rows) else 1.0
    prior = kind * np.clip(level, 0.2, 5.0)
    spread = _OWN * prior * usual + 0.02 * typical  # in units of time at the usual widths
    noise = _NODE_NOISE * wanted + 0.02 * typical
    system = np.vstack([rows / usual / noise[:, None], np.diag(1 / spread)])
    answer, _ = nnls(system, np.concatenate([wanted / noise, prior * usual / spread]))
    return np.asarray(answer / usual)


def _whole(features: Floats, ratios: Floats, own: Floats, kinds: Sequence[str]) -> Fitted:
    """Factors on what the layers' fits say, so that whole networks come out."""
    from scipy.optimize import lsq_linear

    names = sorted(set(kinds))
    parts = own[None] * features  # (networks, layers, features)
    columns = []
    for kind in names:
        members = [i for i, k in enumerate(kinds) if k == kind]
        columns.append(parts[:, members].sum(axis=1))  # (networks, features)
    by_kind = np.concatenate(columns, axis=1)
    by_layer = parts.sum(axis=2)
    count, several = by_kind.shape[1], by_layer.shape[1]
    noise = _WHOLE_NOISE * ratios
    noise[0] /= 4  # the unpruned network's ratio is 1 by definition
    measured = np.concatenate([by_kind, by_layer, np.ones((len(ratios), 1))], axis=1) / noise[:, None]
    spread = np.concatenate([np.full(count, _KIND_SPREAD), np.full(several, _LAYER_SPREAD), [_REST_SPREAD]])
    system = np.vstack([measured, np.diag(1 / spread)])
    wanted = np.concatenate([(ratios - by_layer.sum(axis=1)) / noise, np.zeros(len(spread))])  # deviations from 1
    low = np.concatenate([np.full(count, -0.6), np.full(several, -0.4), [-0.5]])
    answer = lsq_linear(system, wanted, bounds=(low, np.full(len(spread), 4.0))).x
    factors = np.empty_like(own)
    for i, kind in enumerate(kinds):
        start = names.index(kind) * len(FEATURES)
        factors[i] = 1 + answer[start : start + len(FEATURES)] + answer[count + i]
    return Fitted(np.maximum(own * factors, 0.0), float(answer[-1]))
