"""The forms in which a network runs: evaluation and training, one image and several, images of another size.

Code branches on all of these, and channels that meet in one form only belong together all the same: each form is followed,
and ``coupling.merging`` makes one of what they show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from compress.coupling.channel_labels import Provenance
from compress.coupling.merging import merged
from compress.coupling.operation_list import RunListing, dataflow
from compress.coupling.provenance import follow
from compress.errors import CompressError, TraceError, one_line
from compress.surgery import deep_copy

_SHARES = (4, 2)
"""A trial is run on images of a quarter, else of half, of the example's height and width, where the network allows."""
_LEAST = 64
"""Never on smaller ones than this: deep networks have a pixel or two left of them."""
_CHEAP = 128 * 128
"""Examples of up to so many pixels are followed at a larger and at a smaller size, others at a smaller one."""
_LARGEST = 256 * 256
"""No larger size than this many pixels."""
_FACTORS = (4, 3, 2)
"""What the sides of a small example are multiplied with: the first that is not too large."""
_TRAINING = "training mode"
_KNOWN = (_NormBase, _DropoutNd)
"""Modules of which it is known what training mode changes: statistics and zeros, and no channel meets another."""


@dataclass(frozen=True)
class Followed:
    """What all forms of a network show.

    Attributes:
        run: their provenance, merged; operations, positions and MACs are those of one image in evaluation mode.
        small: an example with fewer pixels on which the network runs the very same operations, where there is one.
        trains_otherwise: in training mode it runs other operations, batch norms and dropout aside.
        unfollowed: forms in which it does not run, and why, for people.
    """

    run: Provenance
    small: tuple[Tensor] | None
    trains_otherwise: bool
    unfollowed: tuple[str, ...]


def follow_all(network: nn.Module, examples: Sequence[Tensor]) -> Followed:
    """Follows the channels in evaluation and in training mode, at two batch sizes and at another image size.

    Args:
        network: is in evaluation mode afterwards, and otherwise left alone: other forms run on copies.
        examples: its inputs, one image each.

    Raises:
        TraceError: the network does not run on the examples.
    """
    first = _evaluated(network.eval(), examples)
    small, listed = _smaller(network, examples, first.operations)
    forms, sizes = _Forms(network, first), list(_other_sizes(examples))
    batches = [_images(x, 3) for x in (*(sizes[0] if sizes else ()), examples)]
    found = [forms.first_that_runs(batches, "batches of several images")]
    found += [forms.first_that_runs(ways) for ways in sizes[1:]]
    trains_otherwise = forms.train_otherwise(small or examples, listed or dataflow(network, examples))
    if trains_otherwise:
        trained = forms.first_that_runs([_images(x, 2) for x in (small, examples) if x is not None], _TRAINING)
        if trained is not None:
            trained.asked = [f"{line} in training mode" for line in trained.asked if line not in first.asked]
        found.append(trained)
    runs = [first, *(run for run in found if run is not None)]
    return Followed(merged(runs), small, trains_otherwise, tuple(forms.unfollowed))


def _evaluated(network: nn.Module, examples: Sequence[Tensor]) -> Provenance:
    """One image in evaluation mode: this has to run."""
    try:
        run = follow(network, examples, _keys(network))
    except CompressError:
        raise
    except Exception as error:  # whatever the user's forward raises
        shapes = " and ".join(str(tuple(x.shape)) for x in examples)
        raise TraceError(
            f"{type(network).__name__} does not run on an input of shape {shapes}: {type(error).__name__}: {error}",
            hint="give the input size the network expects with --size",
        ) from error
    if not run.layers:
        raise TraceError(f"{type(network).__name__} has no convolution or linear layer that runs on the example")
    return run


class _Forms:
    """One copy of the network, which is run in several forms: batch norms and the user's code may leave something behind.

    Attributes:
        unfollowed: forms in which it does not run, and why.
    """

    def __init__(self, network: nn.Module, first: Provenance) -> None:
        self.network, self.first, self.copied = network, first, deep_copy(network)
        self.unfollowed: list[str] = []

    def first_that_runs(self, forms: Sequence[Sequence[Tensor]], what: str = "") -> Provenance | None:
        """The run on the first inputs that the network takes.

        Args:
            forms: inputs.
            what: what is said not to have been followed where it takes none of them; ``training mode`` runs in it.
        """
        why = ""
        for examples in forms:
            try:
                run = follow(self.copied.train(what == _TRAINING), examples, _keys(self.copied))
            except Exception as error:  # whatever the user's forward raises; what it returns in training mode is no matter
                why = f"{type(error).__name__}: {one_line(error, 160)}"
                self.copied = deep_copy(self.network)
                continue
            if what == _TRAINING or self._alike(run.outputs, len(examples[0])):
                return run
            why = "its outputs have other shapes then"
        if what:
            self.unfollowed.append(f"{what}: not followed, the network does not run so ({why})")
        return None

    def _alike(self, outputs: Sequence[tuple[int, ...]], count: int) -> bool:
        """Whether a row an image is a row an image still: ``view(-1, 512)`` makes other rows of images of another size."""
        if [len(shape) for shape in outputs] != [len(shape) for shape in self.first.outputs]:
            return False
        return all(a[:1] != (1,) or b[:1] == (count,) for a, b in zip(self.first.outputs, outputs, strict=True))

    def train_otherwise(self, examples: Sequence[Tensor], evaluated: RunListing | None) -> bool:
        """Whether training mode runs anything else than evaluation, torch's own batch norms and dropout aside.

        Args:
            examples: inputs.
            evaluated: what evaluation runs on them.
        """
        self.copied.train()
        for module in self.copied.modules():
            if isinstance(module, _KNOWN) and type(module).__module__.startswith("torch."):
                module.eval()
        return dataflow(self.copied, examples) != evaluated


def _keys(network: nn.Module) -> dict[int, str]:
    """``id`` of each parameter and buffer -> its first state_dict key."""
    keys: dict[int, str] = {}
    for key, tensor in network.state_dict(keep_vars=True).items():
        keys.setdefault(id(tensor), key)
    return keys


def _images(examples: Sequence[Tensor], count: int) -> list[Tensor]:
    """The example so many times."""
    return [x.repeat(count, *[1] * (x.dim() - 1)) if x.dim() else x for x in examples]


def _smaller(
    network: nn.Module, examples: Sequence[Tensor], ran: Sequence[str]
) -> tuple[tuple[Tensor], RunListing] | tuple[None, None]:
    """An example with fewer pixels on which the network runs the very same operations, where there is one, and what it runs."""
    if len(examples) != 1 or examples[0].dim() != 4:
        return None, None
    for size in _smaller_sizes(examples[0]):
        example = examples[0].new_zeros(1, examples[0].shape[1], *size)
        listed = dataflow(network, (example,))
        if listed is not None and listed.names == ran:
            return (example,), listed
    return None, None


def _smaller_sizes(example: Tensor) -> Iterator[list[int]]:
    height, width = example.shape[2:]
    for share in _SHARES:
        size = [max(_LEAST, -(-n // (32 * share)) * 32) for n in (height, width)]
        if 2 * size[0] * size[1] <= height * width:
            yield size


def _other_sizes(examples: Sequence[Tensor]) -> Iterator[list[list[Tensor]]]:
    """Inputs of other sizes: larger and smaller ones where that costs little, else smaller ones.

    Of each the likeliest first to show another branch: larger ones that are wide, smaller ones that are high and odd; and, for
    networks that do not take these, some of the example's own shape.
    """
    shaped = [x for x in examples if x.dim() > 2]
    if not shaped:
        return
    pixels, dims = max(math.prod(x.shape[2:]) for x in shaped), max(x.dim() for x in shaped) - 2
    larger = next((float(f) for f in _FACTORS if pixels * f**dims <= _LARGEST), 0.0) if pixels <= _CHEAP else 0.0
    for factor in (larger, 1 / 2 if pixels <= _CHEAP else 1 / _SHARES[0]):
        if factor:
            yield [[_resized(x, factor, uneven=uneven) for x in examples] for uneven in (True, False)]


def _resized(example: Tensor, factor: float, *, uneven: bool) -> Tensor:
    """An input with sides of so many times the length; long ones stay multiples of 32.

    Args:
        example: of any number of sides.
        factor: what they are multiplied with.
        uneven: the last side is longer than the others where they grow, and shorter and odd where they shrink.
    """
    sides = [max(1, math.ceil(n / 32) * 32 if n > 32 else round(n)) for n in (side * factor for side in example.shape[2:])]
    if uneven and sides:
        grown = sides[-1] + (32 if sides[-1] > 32 else math.ceil(sides[-1] / 4))
        sides[-1] = grown if factor > 1 else (sides[-1] * 3 // 4) | 1
    return example.new_zeros(*example.shape[:2], *sides)
