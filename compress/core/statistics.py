"""How much accuracy can have been lost, certified without a single label.

Where two networks agree they are both right or both wrong, so for any labels

    accuracy(before) - accuracy(after) = P(only before right) - P(only after right) <= P(they disagree).

Disagreement is a coin that needs no labels to be tossed: on images that played no part in making the pruned network, an
exact one-sided interval (Clopper and Pearson, Biometrika 1934) bounds its probability, hence the drop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Certificate:
    """The accuracy drop is at most ``bound``, with this confidence, for images like these.

    Attributes:
        images: unlabelled images that neither the search nor the recovery has seen.
        disagree: on how many of them the two networks name different classes.
        bound: upper end of the one-sided interval of the share of disagreement, a fraction.
        confidence: how often such a bound holds.
        source: which images they are.
    """

    images: int
    disagree: int
    bound: float
    confidence: float = CONFIDENCE
    source: str = ""


def upper(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """The largest probability under which ``count`` or fewer out of ``total`` are not rarer than ``1 - confidence``."""
    from scipy.special import bdtri

    return 1.0 if count >= total else float(bdtri(count, total, 1 - confidence))


def certificate(disagree: int, images: int, source: str = "", confidence: float = CONFIDENCE) -> Certificate:
    """What so many disagreements among so many images certify."""
    return Certificate(images, disagree, upper(disagree, images, confidence), confidence, source)


def images_needed(drop: float, confidence: float = CONFIDENCE) -> int:
    """How many images without any disagreement certify this drop: the least that can be enough."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-drop)) if 0 < drop < 1 else 1
