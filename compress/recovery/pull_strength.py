"""Whether a schedule is long enough for Centripetal SGD, and how strong a pull it needs: arithmetic, before any training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from compress.core import plural
from compress.errors import TrainError
from compress.recovery.schedule import Schedule, learning_rate

LEAST_EXPONENT = 15.0
"""A deviation that shrank by exp(-15) is below the resolution of float32 beside the weights."""
PAPER_EPS = 3e-3
"""The CVPR paper's, on CIFAR-10 with 600 epochs."""
VECTORS = 0.1
"""Share of eps on tensors of one dimension."""
BIASES = 2.0
"""Factor of the biases' learning rate."""
_CALM = 0.05
"""Below this share of the critical rate, momentum SGD decays as its closed form says."""


@dataclass(frozen=True, slots=True)
class Strength:
    """How far a schedule draws clusters together: a deviation shrinks by exp(-exponent).

    Attributes:
        eps: the pull on tensors of two or more dimensions.
        vector_eps: on batch-norm scales, shifts and biases.
        kernels: exponent of tensors of two or more dimensions.
        vectors: of the others.
        raised: whether the pulls were raised for this.
    """

    eps: float
    vector_eps: float
    kernels: float
    vectors: float
    raised: bool = False

    @property
    def enough(self) -> bool:
        """Whether both make slices equal."""
        return min(self.kernels, self.vectors) >= LEAST_EXPONENT


def rates(schedule: Schedule, steps: int) -> list[float]:
    """The learning rate of every step; ``steps`` is an epoch's."""
    return [learning_rate(schedule, epoch + step / steps) for epoch in range(schedule.epochs) for step in range(steps)]


def exponent(learning: list[float], pull: float, momentum: float) -> float:
    """-log of what a training leaves of a deviation inside a cluster, at the most.

    Inside a cluster the loss has no say: a deviation d follows SGD on pull/2 d², and shrinks by exp(-sum(lr) pull / (1 -
    momentum)) while lr pull is far below the critical ((1 - momentum) / (1 + momentum))². Above, it swings, momentum limits
    how fast it can shrink, and too strong a pull makes it grow; so the recursion itself is run (Nesterov's, as torch has it).
    Where in its swing the falling rate catches it is luck, which is not counted on: from there on it starts at its amplitude.

    Args:
        learning: the learning rate of every step.
        pull: weight decay + eps.
        momentum: of SGD.
    """
    critical = ((1 - momentum) / (1 + momentum)) ** 2
    if max(learning, default=0.0) * pull < _CALM * critical:
        return sum(learning) * pull / (1 - momentum)
    caught = max((i for i, lr in enumerate(learning) if lr * pull > critical), default=-1)
    distance, velocity, done = 1.0, 0.0, 0.0
    for i, lr in enumerate(learning):
        velocity = momentum * velocity + pull * distance
        distance -= lr * (pull * distance + momentum * velocity)
        if i == caught:
            distance = math.hypot(distance, velocity * math.sqrt(lr / pull))
            velocity = pull * distance / (1 - momentum)
        size = abs(distance) + abs(velocity) / pull
        if not 1e-9 < size < 1e9:  # rescaled: thousands of steps would leave the range of floats
            if size == 0.0:
                return math.inf
            done -= math.log(size)
            distance, velocity = distance / size, velocity / size
    return done - math.log(max(abs(distance), 1e-300))


def strength(schedule: Schedule, steps: int, eps: float | None = None) -> Strength:
    """The pull of a schedule: as given, the papers', or the weakest that suffices.

    Where the papers' would be too weak and ``eps`` is None, kernels and vectors each get the weakest pull that makes them
    equal: the longer filters may differ, the less is lost on the way. (In a short training the papers' ratio of 10 would make
    the kernels equal at once.)

    Args:
        schedule: how to train.
        steps: of an epoch.
        eps: as given, vectors with a tenth of it; None chooses.

    Raises:
        TrainError: the schedule cannot make filters equal; the hint names the eps, or the number of epochs, that would.
    """
    found = _reached(schedule, steps, PAPER_EPS if eps is None else eps)
    if found.enough:
        return found
    better = _weakest(schedule, steps)
    if better is not None and eps is None:
        return better
    if better is not None:
        paired = _round_up(max(better.eps, better.vector_eps / VECTORS))
        hint = f"eps {paired:.2g} would do, or leave it out" if _reached(schedule, steps, paired).enough else "leave eps out"
    else:
        epochs = _epochs_that_do(schedule, steps)
        fits = eps is None or _reached(replace(schedule, epochs=epochs), steps, eps).enough
        hint = f"train for at least {plural(epochs, 'epoch')}{'' if fits else ' and leave eps out'}, or in smaller batches"
    raise TrainError(
        f"eps {found.eps:.2g} over {plural(schedule.epochs, 'epoch')} of {plural(steps, 'step')} cannot make filters equal: "
        f"a deviation inside a cluster shrinks by exp(-{found.kernels:.1f}) in kernels, exp(-{found.vectors:.1f}) in vectors, "
        f"exp(-{LEAST_EXPONENT:g}) is wanted",
        hint=hint,
    )


def _reached(schedule: Schedule, steps: int, eps: float) -> Strength:
    learning = rates(schedule, steps)
    kernels, vectors = _of_kernels(learning, schedule, eps), _of_vectors(learning, schedule, VECTORS * eps)
    return Strength(eps=eps, vector_eps=VECTORS * eps, kernels=kernels, vectors=vectors)


def _of_kernels(learning: list[float], schedule: Schedule, eps: float) -> float:
    return exponent(learning, eps + schedule.weight_decay, schedule.momentum)


def _of_vectors(learning: list[float], schedule: Schedule, eps: float) -> float:
    """Scales and shifts, or biases, which learn faster and hence may be the first to diverge."""
    return min(exponent([factor * lr for lr in learning], eps, schedule.momentum) for factor in (1.0, BIASES))


def _weakest(schedule: Schedule, steps: int) -> Strength | None:
    """The weakest sufficient pulls, but none below the papers'; None where momentum is too slow for any."""
    learning = rates(schedule, steps)
    closed = LEAST_EXPONENT * (1 - schedule.momentum) / max(sum(learning), 1e-30)
    found: list[tuple[float, float]] = []
    for of, least in ((_of_kernels, PAPER_EPS), (_of_vectors, VECTORS * PAPER_EPS)):
        trial = max(least, 0.8 * closed)  # the closed form says where to begin; the recursion decides
        while (reached := of(learning, schedule, trial)) < LEAST_EXPONENT:
            trial *= 1.03
            if trial * schedule.lr > 2:
                return None
        found.append((trial, reached))
    (eps, kernels), (vector_eps, vectors) = found
    return Strength(eps=eps, vector_eps=vector_eps, kernels=kernels, vectors=vectors, raised=True)


def _round_up(value: float) -> float:
    unit: float = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit


def _epochs_that_do(schedule: Schedule, steps: int) -> int:
    epochs = schedule.epochs + 1
    while _weakest(replace(schedule, epochs=epochs), max(steps, 1)) is None:
        epochs = math.ceil(1.2 * epochs)
    return epochs
