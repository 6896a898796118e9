"""Long short-term memories and gated units, in one direction or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import ImportRefused
from compress.importing.graph import Constant
from compress.importing.node import Made, Maker, Node
from compress.importing.operators.tensors import parameter

_ORDERS: Mapping[str, Sequence[int]] = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
"""torch's gates by their places in ONNX: input, forget, cell, output; reset, update, new."""


class Recurrent(nn.Module):
    """One layer of torch's, called as ONNX does: time first, directions a dimension of their own.

    Attributes:
        layer: torch's.
        states: how many states go in and come out.
    """

    def __init__(self, layer: nn.LSTM | nn.GRU, initial: Sequence[np.ndarray | None], given: Sequence[bool]) -> None:
        super().__init__()
        self.layer, self.given = layer, tuple(given)
        for number, state in enumerate(initial):
            self.register_buffer(f"initial_{number}", None if state is None else torch.from_numpy(np.array(state)))

    def forward(self, x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """All outputs (time, directions, batch, hidden) and the last states (directions, batch, hidden)."""
        queue, directions = iter(given), 2 if self.layer.bidirectional else 1
        zero = x.new_zeros(directions, x.shape[1], self.layer.hidden_size)
        states = []
        for number, computed in enumerate(self.given):
            held = getattr(self, f"initial_{number}")
            state = next(queue) if computed else zero if held is None else held.expand_as(zero)
            states.append(state)
        output, last = self.layer(x, tuple(states) if len(states) == 2 else states[0])
        output = output.reshape(x.shape[0], x.shape[1], directions, self.layer.hidden_size).permute(0, 2, 1, 3)
        return (output, *last) if isinstance(last, tuple) else (output, last)

    def stored(self) -> dict[int, Constant]:
        """Its weights by the node's inputs, in ONNX's order."""
        kind, found = ("LSTM" if isinstance(self.layer, nn.LSTM) else "GRU"), dict[str, list[Constant]]()
        back = np.argsort(_ORDERS[kind])
        for suffix in ("", "_reverse")[: 2 if self.layer.bidirectional else 1]:
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                array = getattr(self.layer, f"{name}_l0{suffix}").detach().cpu().numpy()
                found.setdefault(name, []).append(_ordered(array, back.tolist(), self.layer.hidden_size))
        bias = [np.concatenate(pair) for pair in zip(found["bias_ih"], found["bias_hh"], strict=True)]
        return {1: np.stack(found["weight_ih"]), 2: np.stack(found["weight_hh"]), 3: np.stack(bias)}


def recurrent(node: Node) -> Made:
    """``LSTM`` and ``GRU`` with their usual activations."""
    states = 2 if node.kind == "LSTM" else 1
    _check(node, states)
    w, r = node.floats(1), node.floats(2)
    directions, gates, width = w.shape
    hidden = gates // len(_ORDERS[node.kind])
    kind: Any = nn.LSTM if node.kind == "LSTM" else nn.GRU
    bias = node.floats(3) if node.has(3) else np.zeros((directions, 2 * gates), np.float32)
    if r.shape != (directions, gates, hidden) or bias.shape != (directions, 2 * gates) or node.shape()[2] != width:
        raise node.refused(f"has weights {list(w.shape)} and {list(r.shape)} for inputs {list(node.shape())}")
    layer = kind(1, 1, bidirectional=directions == 2)
    layer.input_size, layer.hidden_size = width, hidden
    reverse = node.attribute("direction", "forward") == "reverse"
    for number, suffix in zip(range(directions), ("", "_reverse"), strict=False):
        rows = {
            "weight_ih": w[number],
            "weight_hh": r[number],
            "bias_ih": bias[number, :gates],
            "bias_hh": bias[number, gates:],
        }
        for name, array in rows.items():
            setattr(layer, f"{name}_l0{suffix}", parameter(_ordered(array, _ORDERS[node.kind], hidden)))
    if reverse:
        raise node.refused("goes backwards only")
    places = (5, 6)[:states]
    initial = [node.constant(place) for place in places]
    given = [node.computed(place) for place in places]
    takes = (0, *(place for place, computed in zip(places, given, strict=True) if computed))
    return Made(module=Recurrent(layer, initial, given), takes=takes, stored=(1, 2, 3) if node.has(3) else (1, 2))


def _check(node: Node, states: int) -> None:
    """Refuses what torch's layers do not do.

    Raises:
        ImportRefused: it is such a one.
    """
    usual = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}[node.kind]
    told = [a.decode() if isinstance(a, bytes) else a for a in node.attribute("activations", [])]
    other = (
        bool(told) and told not in (usual, usual * 2),
        node.attribute("clip") is not None,
        bool(node.attribute("layout", 0)),
        bool(node.attribute("input_forget", 0)),
        node.kind == "GRU" and not node.attribute("linear_before_reset", 0),
        node.has(4) and not _whole(node),
        node.has(7),
        any(node.constant(place) is not None and node.constant(place).ndim != 3 for place in (5, 6)[:states]),  # type: ignore[union-attr]
    )
    if any(other) or not node.computed(0) or node.rank() != 3:
        raise node.refused("is a form that is not known here (activations, clip, layout, peepholes, lengths)")
    w = node.floats(1)
    if w.ndim != 3 or w.shape[0] not in (1, 2) or w.shape[1] % len(_ORDERS[node.kind]):
        raise ImportRefused(f"the node {node.proto.name[:80]!r} has a weight {list(w.shape)}")


def _whole(node: Node) -> bool:
    """Whether the lengths that are given are those of all of the input."""
    lengths = node.constant(4)
    return lengths is not None and bool((lengths == node.shape()[0]).all())


def _ordered(array: Constant, order: Sequence[int], hidden: int) -> Constant:
    return np.concatenate([array[i * hidden : (i + 1) * hidden] for i in order])


MAKERS: Mapping[str, Maker] = {"LSTM": recurrent, "GRU": recurrent}
