"""One node as those who make modules of it see it: attributes, constants, and the shapes that arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, helper
from torch import Tensor, nn

from compress.errors import ImportRefused
from compress.importing.graph import Constant
from compress.importing.sizes import Sizes, is_sizes

Value = Tensor | Sizes


@dataclass(frozen=True)
class Held:
    """A constant of a node that its module holds as a tensor.

    Attributes:
        place: which of the node's inputs it is.
        key: of the module's state_dict.
        transposed: the module holds the matrix the other way round.
        shape: of the constant, with -1 where channels are, where the module holds a row of them.
    """

    place: int
    key: str
    transposed: bool = False
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Made:
    """A module for a node.

    Attributes:
        module: called with the inputs that it takes.
        takes: which of the node's inputs these are.
        held: the constants that the module holds.
        counts: attribute or input of the node -> attribute of the module whose number or numbers it is after a cut.
        rows: input of the node -> numbers that stand there from now on; none for one that goes.
        settings: attributes of the node that are others from now on; None takes one away.
        stored: inputs of the node whose constants the module's own ``stored()`` gives.
    """

    module: nn.Module
    takes: tuple[int, ...] = (0,)
    held: tuple[Held, ...] = ()
    counts: tuple[tuple[str | int, str], ...] = ()
    rows: tuple[tuple[int, tuple[int, ...]], ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    stored: tuple[int, ...] = ()


@dataclass(frozen=True)
class Node:
    """A node with what is known of its inputs.

    Attributes:
        proto: itself.
        opset: of the standard operators.
        constants: by place; None for what is computed or left out.
        values: what arrives, at two batch sizes; None for constants and what is left out. Tensors have shapes and no numbers.
        batch: what the file fixed its batch to; 0 where it left it open.
        joined: modules that joined the numbers which arrive, by name of the value, where nothing else reads these.
    """

    proto: NodeProto
    opset: int
    constants: tuple[Constant | None, ...]
    values: tuple[tuple[Value, Value] | None, ...]
    batch: int
    joined: Mapping[str, nn.Module]

    @property
    def kind(self) -> str:
        """Its operator."""
        return self.proto.op_type

    def refused(self, why: str) -> ImportRefused:
        """The error that says that this node cannot be imported."""
        return ImportRefused(f"the node {self.proto.name[:80]!r} ({self.kind}) {why}")

    def attribute(self, name: str, otherwise: Any = None) -> Any:
        """An attribute's value; text as such."""
        for held in self.proto.attribute:
            if held.name == name:
                value = helper.get_attribute_value(held)
                return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return otherwise

    def has(self, place: int) -> bool:
        """Whether something is given at a place."""
        return place < len(self.constants) and (self.constants[place] is not None or self.values[place] is not None)

    def constant(self, place: int) -> Constant | None:
        """The constant at a place, if one stands there."""
        return self.constants[place] if place < len(self.constants) else None

    def computed(self, place: int) -> bool:
        """Whether something that is computed arrives at a place."""
        return place < len(self.values) and self.values[place] is not None

    def value(self, place: int = 0) -> Value:
        """What arrives at a place.

        Raises:
            ImportRefused: nothing that is computed does.
        """
        found = self.values[place] if place < len(self.values) else None
        if found is None:
            raise self.refused(f"has no computed input {place}")
        return found[0]

    def sizes(self, place: int = 0) -> bool:
        """Whether numbers arrive at a place."""
        return self.computed(place) and is_sizes(self.value(place))

    def shapes(self, place: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape that arrives at a place, at two batch sizes."""
        one, two = self.value(place), self.values[place]
        assert two is not None
        return tuple(one.shape), tuple(two[1].shape)

    def shape(self, place: int = 0) -> tuple[int, ...]:
        """The shape of what arrives at a place, or of the constant there."""
        constant = self.constant(place)
        return tuple(constant.shape) if constant is not None else self.shapes(place)[0]

    def rank(self, place: int = 0) -> int:
        """How many dimensions it has."""
        return len(self.shape(place))

    def axis(self, name: str = "axis", otherwise: int = 0, rank: int | None = None) -> int:
        """An axis counted from the front."""
        rank, axis = self.rank() if rank is None else rank, int(self.attribute(name, otherwise))
        if not -rank <= axis < max(rank, 1):
            raise self.refused(f"has {name}={axis} of {rank} dimensions")
        return axis % max(rank, 1)

    def numbers(self, name: str, place: int) -> tuple[int, ...] | None:
        """Whole numbers that older operator sets have as an attribute and newer ones as an input; None where neither is there.

        Raises:
            ImportRefused: they are computed.
        """
        held = self.attribute(name)
        if held is None and self.computed(place):
            raise self.refused(f"computes its {name}")
        if held is None and (constant := self.constant(place)) is not None:
            held = constant.reshape(-1).tolist()
        return None if held is None else tuple(int(n) for n in held)

    def floats(self, place: int, wanted: Sequence[int] | None = None) -> Constant:
        """The floating-point constant at a place.

        Raises:
            ImportRefused: there is none, or it has another shape.
        """
        found = self.constant(place)
        if found is None or found.dtype.kind != "f":
            raise self.refused(f"wants floating-point numbers that are constant as its input {place}")
        if wanted is not None and tuple(found.shape) != tuple(wanted):
            raise self.refused(f"has a constant of shape {list(found.shape)} as its input {place}, {list(wanted)} is wanted")
        return found.astype(np.float32, copy=False)


Maker = Callable[[Node], Made]
