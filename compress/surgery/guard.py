"""The guard: after every cut, the cut network must compute what the masked one does.

The unpruned network with the removed channels' readers zeroed is compared with the cut network, in float64, at the outputs
and at the readers of every cut group. The error is measured against the spread *across inputs*: outputs dominated by a bias,
or a dead or random network, would pass anything else. It is measured channel by channel: what is wrong with scores between
0 and 1 must not hide behind boxes of hundreds of pixels. Beyond what rounding does to the uncut network itself, nothing is
forgiven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode

from compress.core import GroupId, LayerName, Plan, Topology, canonical, gone_keys, kept_positions
from compress.errors import GuardError, one_line
from compress.signature import leaves
from compress.surgery.copying import deep_copy
from compress.surgery.cutting import replaced, simulate
from compress.surgery.seen_values import OUTPUTS, SeenValues, thin, worst_error

TOLERANCE = 1e-5
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)  # what they hold is used in both modes


@dataclass(frozen=True, slots=True)
class Verified:
    """What the guard saw.

    Attributes:
        error: largest difference over the spread across inputs, over the outputs and all observed readers.
        where: the observation with that error.
        observed: how many places were compared.
        tolerance: what was allowed.
    """

    error: float
    where: str
    observed: int
    tolerance: float = TOLERANCE


def verify(
    model: nn.Module,
    topology: Topology,
    plan: Plan,
    small: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    *,
    tolerance: float = TOLERANCE,
) -> Verified:
    """Proves that ``small`` is ``model`` without the plan's channels.

    Args:
        model: the network before the cut.
        topology: its topology.
        plan: what was removed.
        small: the cut network.
        inputs: (n, c, h, w), at least two different ones; a sequence where the network takes several inputs.

    Raises:
        GuardError: they compute different things, or an attribute disagrees with its weight; the group is named.
    """
    attributes(small)
    masked, plan = simulate(model, topology, plan), canonical(topology, plan)
    gone = gone_keys(topology, plan.branches)
    reading = {layer.name for g in plan.cuts for layer in topology.readers(g) if layer.weight not in gone}
    readers = sorted(reading | set(plan.inputs))
    table = kept_positions(topology, plan)
    slots = {name: (topology.by_layer[name].weight, topology.by_layer[name].write_dim) for name in readers}
    opaque = {
        name for name in readers if topology.by_layer[name].kind == "conv_transpose" and topology.by_layer[name].cardinality > 1
    }
    modules = dict(model.named_modules())
    readers = [
        name
        for name in readers
        if isinstance(modules.get(name), _ConvNd | nn.Linear) and not (name in opaque and slots[name] in table)
    ]
    kept = {name: torch.from_numpy(table[slots[name]]) for name in readers if slots[name] in table}
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    wanted = _observe(masked, readers, given, kept)
    for place, seen in wanted.items():
        if not bool(torch.isfinite(seen.values).all()):
            raise GuardError(
                f"nothing can be compared: the uncut network gives NaN or infinity at {place!r}",
                hint="give inputs on which the network computes numbers, and look for NaN in its tensors",
            )
    try:
        got = _observe(small, readers, given, {})
    except Exception as error:  # whatever the user's own code raises on the smaller shapes
        raise GuardError(
            f"the cut network does not run: {type(error).__name__}: {error}",
            hint="the network has a constant that depends on a width; leave those layers alone with --ignore",
        ) from error
    worst, where = worst_error(wanted, got, {})
    if not worst <= tolerance:  # only now is it worth knowing what rounding alone does
        worst, where = worst_error(wanted, got, _observe(masked, readers, nudged(given), kept))
    if not worst <= tolerance:
        groups = [g for g in plan.cuts if any(layer.name == where for layer in topology.readers(g))]
        groups = groups or list(plan.cuts)
        lost = [*groups, *plan.branches]
        raise GuardError(
            f"the cut network computes something else at {where!r}: error {worst:.2e} of the spread across inputs, "
            f"at most {tolerance:.0e} wanted{'; groups ' if groups else '; branches ' if lost else ''}{', '.join(lost[:3])}",
            hint=f'leave the group alone with --ignore "{lost[0] if lost else where}", and please report the network',
        )
    if any(not isinstance(modules.get(key.rpartition(".")[0]), _NORMS) for key in _loose(topology)):
        _trainable(model, small, given)
    return Verified(worst, where, len(wanted), tolerance)


def _loose(topology: Topology) -> Iterator[str]:
    """Tensors that no group runs through and no layer holds: only training may use them."""
    touched = {key for key, _ in topology.slots}
    for key, info in topology.tensors.items():
        owner = key.rpartition(".")[0]
        if info.shape and key not in touched and owner not in topology.by_layer:
            yield key


def _trainable(model: nn.Module, small: nn.Module, inputs: Sequence[Tensor]) -> None:
    """What training mode alone uses (buffers, gains, auxiliary heads) has to have been cut with the rest.

    Raises:
        GuardError: the uncut network runs in training mode, and the cut one does not, or answers in other shapes.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            wanted = _in_training(model, inputs)
        except Exception:  # it cannot be trained uncut either
            return
        try:
            got = _in_training(small, inputs)
        except Exception as error:  # whatever the user's own code raises on the smaller shapes
            raise GuardError(
                f"the cut network does not run in training mode: {type(error).__name__}: {one_line(error)}",
                hint="tensors that only training uses depend on a width; leave those layers alone with --ignore",
            ) from error
    if got != wanted:
        raise GuardError(f"in training mode the cut network gives the shapes {got}, the uncut one {wanted}")


def _in_training(model: nn.Module, inputs: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """Shapes of what a copy gives in training mode."""
    network = deep_copy(model).train()
    kind = next((t.dtype for t in network.parameters() if t.is_floating_point()), torch.float32)
    with torch.no_grad():
        output = network(*(x.to(kind) if x.is_floating_point() else x for x in inputs))
    return [tuple(t.shape) for _, t in leaves(output) if isinstance(t, Tensor)]


def nudged(inputs: Sequence[Tensor]) -> list[Tensor]:
    """The same inputs, off by a few roundings of float64: what moves is noise."""
    generator = torch.Generator().manual_seed(0)

    def off(x: Tensor) -> Tensor:
        signs = torch.rand(x.shape, generator=generator, dtype=torch.float64) * 2 - 1
        return x.double() * (1 + 2.0**-49 * signs.to(x.device)) if x.is_floating_point() else x

    return [off(x) for x in inputs]


def attributes(model: nn.Module) -> None:
    """Compares every layer's attributes with the shapes of its tensors.

    Raises:
        GuardError: in_channels, num_features or the like say something else than the tensor.
    """
    for name, module in model.named_modules():
        for what, seen, wanted in _claims(module):
            if seen != wanted:
                raise GuardError(f"{name}: {what} is {seen}, but its tensor says {wanted}")


def _claims(module: nn.Module) -> list[tuple[str, Any, Any]]:
    if isinstance(module, _ConvNd):
        o, i = module.weight.shape[:2]
        if isinstance(module, _ConvTransposeNd):
            o, i = i * module.groups, o // module.groups
        claims = [("out_channels", module.out_channels, o), ("in_channels", module.in_channels, i * module.groups)]
        return [*claims, ("bias", len(module.bias), o)] if module.bias is not None else claims
    if isinstance(module, nn.Linear):
        claims = [("out_features", module.out_features, module.weight.shape[0])]
        claims.append(("in_features", module.in_features, module.weight.shape[1]))
        return [*claims, ("bias", len(module.bias), module.weight.shape[0])] if module.bias is not None else claims
    if isinstance(module, _NormBase):
        found = [t for t in (module.weight, module.bias, module.running_mean, module.running_var) if t is not None]
        return [("num_features", module.num_features, len(t)) for t in found]
    if isinstance(module, nn.GroupNorm) and module.weight is not None:
        return [("num_channels", module.num_channels, len(module.weight))]
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and module.weight is not None:
        return [("normalized_shape", tuple(module.normalized_shape), tuple(module.weight.shape))]
    return []


def _observe(
    model: nn.Module, names: list[LayerName], inputs: Sequence[Tensor], kept: Mapping[LayerName, Tensor]
) -> dict[str, SeenValues]:
    """Outputs, and pre-activations of the named layers at kept channels, thinned to a bounded number of positions."""
    network = _in_double(model)
    seen: dict[str, SeenValues] = {}

    def keep_as(name: LayerName) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            channel_dim = -1 if isinstance(module, nn.Linear) else 1
            chosen = output if name not in kept else output.index_select(channel_dim, kept[name])
            calls = sum(1 for n in seen if n.split("#")[0] == name)
            seen[f"{name}#{calls}" if calls else name] = thin(chosen)

        return hook

    modules = dict(network.named_modules())
    hooks = [modules[name].register_forward_hook(keep_as(name)) for name in names]
    try:
        with torch.no_grad(), Depthwise():
            output = network(*(x.double() if x.is_floating_point() else x for x in inputs))
    finally:
        for hook in hooks:
            hook.remove()
    for i, tensor in enumerate(t for _, t in leaves(output) if isinstance(t, Tensor)):
        seen[f"output {i}" if i else "output"] = thin(tensor, OUTPUTS)
    return seen


def _in_double(model: nn.Module) -> nn.Module:
    """The network in float64 and eval mode: itself where it is so already, else a copy."""
    tensors = (*model.parameters(), *model.buffers())
    if not any(m.training for m in model.modules()) and all(t.dtype == torch.float64 for t in tensors if t.is_floating_point()):
        return model
    doubled = {k: t.double() for k, t in model.state_dict().items() if t.is_floating_point()}
    return replaced(model, doubled).double().eval()


class Depthwise(TorchFunctionMode):
    """Depthwise convolutions in float64 as sums of shifted products: the library runs them one channel at a time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7:
            x, weight, bias, stride, padding, dilation, groups = args
            if groups > 1 and groups == x.shape[1] and weight.shape[1] == 1 and not isinstance(padding, str):
                return _shifted(x, weight, bias, stride, padding, dilation, weight.shape[0] // groups)
        return func(*args, **(kwargs or {}))


def _shifted(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, multiplier: int
) -> Tensor:
    (sy, sx), (py, px), (dy, dx) = stride, padding, dilation
    x = nn.functional.pad(x, (px, px, py, py))
    if multiplier > 1:
        x = x.repeat_interleave(multiplier, 1)
    rows, columns = weight.shape[2:]
    height = (x.shape[2] - dy * (rows - 1) - 1) // sy + 1
    width = (x.shape[3] - dx * (columns - 1) - 1) // sx + 1
    if rows * columns > height * width:  # a product for every tap of the kernel would be a product of next to nothing
        n, c, down, right = x.stride()
        size = (*x.shape[:2], height, width, rows, columns)
        windows = x.as_strided(size, (n, c, down * sy, right * sx, down * dy, right * dx))
        result = torch.einsum("nchwrs,crs->nchw", windows, weight[:, 0])
        return result if bias is None else result + bias.view(1, -1, 1, 1)
    result = torch.zeros(x.shape[0], x.shape[1], height, width, dtype=x.dtype, device=x.device)
    for r in range(rows):
        for c in range(columns):
            window = x[:, :, r * dy : r * dy + (height - 1) * sy + 1 : sy, c * dx : c * dx + (width - 1) * sx + 1 : sx]
            result.addcmul_(window, weight[:, 0, r, c].view(1, -1, 1, 1))
    return result if bias is None else result + bias.view(1, -1, 1, 1)


def random_plan(topology: Topology, ratio: float, rng: np.random.Generator, groups: list[GroupId] | None = None) -> Plan:
    """A plan that drops this share of every group's channels at random, at least one and never all of an orbit."""
    from compress.core import Cut

    cuts = {}
    for group_id in [g.id for g in topology.groups] if groups is None else groups:
        group = topology.by_id[group_id]
        orbits, keep = group.orbits(), list[int]()
        for shared in group.widths():
            size = len(orbits[shared[0]])
            count = min(size - 1, max(1, round(ratio * size))) if size > 1 else 0
            for number in shared:
                keep.extend(rng.permutation(orbits[number])[count:].tolist())
        if 0 < len(keep) < group.size:
            cuts[group_id] = Cut(tuple(sorted(keep)))
    return Plan(cuts)
