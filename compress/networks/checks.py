"""What a network has to do before any long work is worth beginning: run, and answer one row an input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.errors import CompressError, ModelError, one_line
from compress.networks.inference import seeded
from compress.networks.network import Network
from compress.signature import first_tensor, signature_of, tensors

_ROWS = (2, 3)


def preflight(network: Network) -> None:
    """Runs the network twice, on two and three random inputs, and looks at what comes back.

    Raises:
        ModelError: it does not run, what it is judged by has no row an input, or shapes that depend on values.
    """
    with seeded(0):
        seen = [_shapes(network.model, random_rows(network, count)) for count in _ROWS]
    (_, first), (name, second) = (judged for judged, _ in seen)
    if first[:1] != _ROWS[:1] or second[:1] != _ROWS[1:] or first[1:] != second[1:]:
        raise ModelError(
            f"the network's output {name!r} has the shapes {first} and {second} for {_ROWS[0]} and {_ROWS[1]} inputs: "
            "no row belongs to an input, so that nothing can be compared before and after a cut",
            hint="wrap the network in a module that returns its tensors before they are selected (detectors: the raw boxes "
            "and scores, before suppression), and give that",
        )
    for name, shape in seen[0][1].items():
        other = seen[1][1].get(name, ())
        if (shape[1:] != other[1:] and len(shape) > 1) or len(shape) != len(other):
            raise ModelError(
                f"the network's output {name!r} has the shapes {shape} and {other}: they depend on what is in the inputs",
                hint="wrap the network in a module that leaves this output out, or returns it before it is selected",
            )


def random_rows(network: Network, count: int) -> Tensor:
    """Random inputs as the network takes them, so many."""
    signature = signature_of(network.model)
    return torch.randn(count, *network.shape) if signature is None else signature.rows(count)


def _shapes(model: nn.Module, inputs: Tensor) -> tuple[tuple[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The name and shape of the tensor that the network is judged by, and the shapes of all."""
    where = next((t.device for t in (*model.parameters(), *model.buffers())), inputs.device)
    try:
        with torch.no_grad():
            answer = model(inputs.to(where))
        judged, named = first_tensor(answer), tensors(answer)
    except CompressError:
        raise
    except Exception as error:  # whatever the user's forward raises
        raise ModelError(
            f"{type(model).__name__} does not run on {len(inputs)} inputs of {list(inputs.shape[1:])}: "
            f"{type(error).__name__}: {one_line(error)}",
            hint="give the size it was trained on (--size), or inputs that it runs on (--example package.module:function)",
        ) from error
    name = next(key for key, tensor in named.items() if tensor is judged)
    return (name, tuple(judged.shape)), {key: tuple(tensor.shape) for key, tensor in named.items()}
