"""The guard in training mode: what a network does only there must be right after the cut as well."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from compress.core import Plan, Topology
from compress.errors import GuardError
from compress.signature import leaves
from compress.surgery.copying import deep_copy
from compress.surgery.cutting import simulate
from compress.surgery.guard import TOLERANCE, Depthwise, nudged
from compress.surgery.seen_values import SeenValues, thin, worst_error


def verify_training(model: nn.Module, topology: Topology, plan: Plan, small: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Compares the outputs in training mode, dropout aside, where these can be compared.

    A network that does not run in training mode is not compared; one of which two runs differ is only run.

    Args:
        model: the network before the cut, in float64.
        topology: its topology.
        plan: what was removed.
        small: the cut network.
        inputs: three or more images.

    Raises:
        GuardError: the cut network does not run in training mode, or computes something else there.
    """
    masked = simulate(model, topology, plan)
    with torch.random.fork_rng(devices=[]):
        try:
            wanted = _outputs(masked, inputs, seed=0)
            again = _outputs(masked, inputs, seed=1)
        except Exception:  # whatever the user's forward raises: it cannot be trained like this anyway
            return
        try:
            got = _outputs(small, inputs, seed=0)
        except Exception as error:
            raise GuardError(
                f"the cut network does not run in training mode: {type(error).__name__}: {error}",
                hint="the network has a constant that depends on a width; leave those layers alone with --ignore",
            ) from error
        if any(not torch.equal(wanted[k].values, again[k].values) for k in wanted):
            return
        worst, where = worst_error(wanted, got, {})
        if not worst <= TOLERANCE:
            worst, where = worst_error(wanted, got, _outputs(masked, nudged(inputs), seed=0))
    if not worst <= TOLERANCE:
        raise GuardError(
            f"the cut network computes something else in training mode at {where!r}: error {worst:.2e} of the spread across "
            f"inputs, at most {TOLERANCE:.0e} wanted",
            hint="leave those layers alone with --ignore, and please report the network",
        )


def _outputs(model: nn.Module, inputs: Sequence[Tensor], *, seed: int) -> dict[str, SeenValues]:
    """The outputs in training mode, of a copy."""
    network = deep_copy(model).double().train()
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    torch.manual_seed(seed)
    with torch.no_grad(), Depthwise():
        output = network(*(x.double() if x.is_floating_point() else x for x in inputs))
    found = [t for _, t in leaves(output) if isinstance(t, Tensor)]
    return {f"output {i}" if i else "output": thin(tensor) for i, tensor in enumerate(found)}
