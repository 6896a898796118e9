"""What seen counts say of true shares: intervals, the certificate without labels, and two networks judged on the same images.

The certificate: where two networks agree they are both right or both wrong, so for any labels

    accuracy(before) - accuracy(after) = P(only before right) - P(only after right) <= P(they disagree).

Disagreement is a coin that needs no labels to be tossed: on images that played no part in making the pruned network, an
exact one-sided interval (Clopper and Pearson, Biometrika 1934) bounds its probability, hence the drop.

Pairs: on the same images, those on which two networks differ decide, not the spread of the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

from compress.core.figures import TOP1, Figure

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


def wilson(correct: int, total: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Where a fraction lies that was seen ``correct`` times out of ``total`` (Wilson 1927); z = 1.96 is 95 %."""
    p, shrink = correct / total, 1 + z * z / total
    centre = (p + z * z / (2 * total)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    # Rounding must not put the fraction itself outside.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


# ---- without labels ----------------------------------------------------------------------------------------------------

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Certificate:
    """A figure is worse by at most ``bound``, with this confidence, for images like these.

    Attributes:
        images: unlabelled images that neither the search nor the recovery has seen.
        disagree: on how many of them the two networks name different classes; None where a task names no single class.
        bound: upper end of the one-sided interval of the mean change, a fraction or in the figure's unit.
        confidence: how often such a bound holds.
        source: which images they are.
        figure: what is bounded.
        change: by how much the answers changed on average, where they are no single classes.
    """

    images: int
    disagree: int | None
    bound: float
    confidence: float = CONFIDENCE
    source: str = ""
    figure: Figure = TOP1
    change: float | None = None


def upper(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """The largest probability under which ``count`` or fewer out of ``total`` are not rarer than ``1 - confidence``."""
    from scipy.special import bdtri

    return 1.0 if count >= total else float(bdtri(count, total, 1 - confidence))


def certificate(
    disagree: int, images: int, source: str = "", confidence: float = CONFIDENCE, figure: Figure = TOP1
) -> Certificate:
    """What so many disagreements among so many images certify."""
    bound = upper(disagree, images, confidence)
    return Certificate(images=images, disagree=disagree, bound=bound, confidence=confidence, source=source, figure=figure)


def bounded_mean(changes: Sequence[float] | NDArray[np.float64], share: bool, confidence: float = CONFIDENCE) -> float:
    """The upper end of the one-sided interval of the mean of independent numbers of 0 or more.

    Shares: of whole ones exact (Clopper and Pearson); of fractions never too low, by Bentkus (Annals of Probability 2004): a
    mean of numbers in [0, 1] is below k/n at most e times as often as one of ones and zeros. Numbers in a unit have no limit,
    so that nothing exact is known of them: Student's t, with one pseudo-number of twice the largest.

    Args:
        changes: one an image, one at least.
        share: they are in [0, 1].
        confidence: how often the true mean is to be below.
    """
    import numpy as np

    values = np.asarray(changes, dtype=np.float64)
    total = len(values)
    if share:
        whole = bool(np.isin(values, (0.0, 1.0)).all())
        count = math.ceil(float(values.sum()) - 1e-9)
        return upper(count, total, confidence if whole else 1 - (1 - confidence) / math.e)
    from scipy.special import stdtrit

    padded = np.append(values, 2 * values.max())
    half = float(stdtrit(total, confidence)) * float(padded.std(ddof=1)) / math.sqrt(total + 1)
    return float(padded.mean()) + half


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Where the mean of what numbers like these are drawn from lies, at 95 % confidence (Student's t); all of them for one."""
    from scipy.special import stdtrit

    total, mean = len(values), float(values.mean())
    if total < 2:
        return mean, mean
    half = float(stdtrit(total - 1, 0.5 + CONFIDENCE / 2)) * float(values.std(ddof=1)) / math.sqrt(total)
    return mean - half, mean + half


Pool: TypeAlias = "Callable[[NDArray[np.float64]], float]"
"""From what images contribute, (images, k), to a figure."""


def resampled(rows: NDArray[np.float64], pool: Pool, *, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Where a figure lies that is computed from all images together, at 95 % confidence: the percentile bootstrap over images.

    Args:
        rows: (images, k).
        pool: the figure of such rows.
        draws: of as many images, with replacement.
        seed: of the draws.
    """
    import numpy as np

    rng, seen = np.random.default_rng(seed), pool(rows)
    found = [pool(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(draws)]
    low, high = np.nanquantile(found, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return min(float(low), seen), max(float(high), seen)


def share_interval(low: float, high: float, images: int) -> tuple[float, float]:
    """An interval of a share within [0, 1], that is never without doubt.

    Where every image is answered perfectly, or none at all, spread and bootstrap see no doubt, however few images there are:
    then it is Wilson's, each image one trial.
    """
    low, high = max(0.0, low), min(1.0, high)
    if high - low < 1e-9 and min(low, 1 - high) < 1e-9:
        return wilson(round(low) * images, images)
    return low, high


def images_needed(drop: float, confidence: float = CONFIDENCE) -> int:
    """How many images without any disagreement certify this drop: the least that can be enough."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-drop)) if 0 < drop < 1 else 1


# ---- on the same images ------------------------------------------------------------------------------------------------

Right: TypeAlias = "NDArray[np.bool_]"
"""Per image: whether the answer was right."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The figure of ours minus that of theirs, on the same images, averaged over the seeds.

    Attributes:
        mean: a fraction.
        low: lower end of the interval.
        high: upper end.
        images: how many were judged.
        seeds: runs of ours.
        confidence: of the interval.
        higher: more is better.
    """

    mean: float
    low: float
    high: float
    images: int
    seeds: int
    confidence: float = CONFIDENCE
    higher: bool = True

    @property
    def verdict(self) -> str:
        """``ahead``, ``behind`` or ``not distinguishable``."""
        more, less = ("ahead", "behind") if self.higher else ("behind", "ahead")
        return more if self.low > 0 else less if self.high < 0 else "not distinguishable"


def difference(ours: Sequence[Right], theirs: Sequence[Right], confidence: float = CONFIDENCE) -> Difference:
    """How much more often ours are right.

    Each image gives one number, its share of right answers over our seeds minus that over theirs, and the images are the
    sample: the interval speaks of other images, for these very runs; the seeds' own spread stands beside it. One pseudo-image
    is won, one lost by halves and one tied (Agresti and Min, Statistics in Medicine 2005), or few images with no difference
    would pass for certainty.

    Args:
        ours: per seed, (images,).
        theirs: the same images in the same order; any number of seeds.
        confidence: of the interval.
    """
    import numpy as np

    gap = np.mean(np.stack(ours), axis=0) - np.mean(np.stack(theirs), axis=0)
    images = len(gap)
    padded = images + 2
    mean = float(gap.sum()) / padded
    variance = (float((gap**2).sum()) + 1.0) / padded - mean**2
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(variance / padded)
    seen = float(gap.mean())
    return Difference(
        mean=seen,
        low=min(seen, mean - half),
        high=max(seen, mean + half),
        images=images,
        seeds=len(ours),
        confidence=confidence,
    )


def pooled_difference(
    ours: Sequence[NDArray[np.float64]],
    theirs: Sequence[NDArray[np.float64]],
    pool: Pool,
    *,
    higher: bool = True,
    share: bool = False,
    draws: int = 1000,
    seed: int = 0,
) -> Difference:
    """How much more ours have of a figure that is computed from all images together: the paired bootstrap over images.

    Args:
        ours: per seed, (images, k).
        theirs: the same images in the same order; any number of seeds.
        pool: the figure of such rows.
        higher: more is better.
        share: the figure is one; where every draw says the same, the interval is that of as many images without a difference,
            since the next image may make one.
        draws: of as many images, with replacement, the same for both.
        seed: of the draws.
    """
    import numpy as np

    images, rng = len(ours[0]), np.random.default_rng(seed)

    def gap(which: NDArray[np.int64]) -> float:
        return float(np.mean([pool(rows[which]) for rows in ours]) - np.mean([pool(rows[which]) for rows in theirs]))

    seen = gap(np.arange(images))
    found = [gap(rng.integers(0, images, images)) for _ in range(draws)]
    low, high = np.nanquantile(found, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    if share and high - low < 1e-9:
        half = difference([np.ones(images, bool)], [np.ones(images, bool)]).high
        low, high = max(-1.0, seen - half), min(1.0, seen + half)
    return Difference(
        mean=seen,
        low=min(float(low), seen),
        high=max(float(high), seen),
        images=images,
        seeds=len(ours),
        higher=higher,
    )


# ---- luck --------------------------------------------------------------------------------------------------------------


def near_chance(accuracy: float, n: int, num_classes: int) -> bool:
    """Whether so few right answers may be luck: uniform guessing reaches them with a probability above 1 in 1,000.

    A trained network near chance means wrong normalisation or labels.

    Args:
        accuracy: right answers, as a fraction.
        n: images.
        num_classes: outputs of the network.
    """
    from scipy.special import bdtrc

    right = round(accuracy * n)
    return right <= 0 or float(bdtrc(right - 1, n, 1 / num_classes)) > 1e-3
