"""The three places where a plan touches tensors: simulate it, cut it, and give a module new tensors.

``simulate`` keeps every shape and silences the readers of removed channels; ``cut`` removes the channels for real. Both
read ``plan.kept_positions``. The caller's model is never changed; hooks, modes, ``requires_grad``, dtype and memory format
survive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compress.core import READS as READS
from compress.core import (
    SKIPPED,
    WIDTH_OF,
    ChannelGroup,
    Layer,
    LayerName,
    Plan,
    Role,
    Slot,
    Topology,
    attribute_counts,
    canonical,
    check,
    folds,
    gone_keys,
    gone_modules,
    kept_positions,
)
from compress.errors import PlanError, UnsupportedLayer
from compress.surgery.channel_moments import over_kept_channels
from compress.surgery.copying import deep_copy
from compress.surgery.skipping import codes_of, silence, skip


def cut(model: nn.Module, topology: Topology, plan: Plan) -> nn.Module:
    """A new, smaller network: the plan's channels are gone from every tensor and attribute.

    Args:
        model: the traced network; left as it is.
        topology: its topology.
        plan: in the topology's coordinates.

    Raises:
        PlanError: the plan does not fit.
    """
    check(topology, plan)
    whole = model.state_dict()
    small = cut_state(whole, topology, plan)
    own = {key: tensor.clone() if tensor is whole.get(key) else tensor for key, tensor in small.items()}
    return shaped_to(model, own, depthwise={layer.name for layer in topology.layers if layer.depthwise})


def cut_state(state: Mapping[str, Tensor], topology: Topology, plan: Plan) -> dict[str, Tensor]:
    """The tensors after the cut, removed channels folded first where the plan says so."""
    plan = canonical(topology, plan)
    table = kept_positions(topology, plan)
    gone = gone_keys(topology, plan.branches)
    result = {key: tensor for key, tensor in state.items() if key not in gone}
    result |= {f"{module.name}.{SKIPPED}": codes_of(module) for module in gone_modules(topology, plan)}
    for (key, dim), pairs in folds(topology, plan).items():
        result[key] = _fold(result[key], dim, pairs)
    for (key, dim), kept in table.items():
        if is_channel_map(key, topology):
            continue
        tensor = result[key]
        small = tensor.index_select(dim, torch.from_numpy(kept).to(tensor.device))
        result[key] = small.contiguous(memory_format=_memory_format(tensor))
    for key in topology.tensors:
        if is_channel_map(key, topology) and key not in gone:
            result[key] = _cut_map(state[key], table.get((key, 0)), table.get((key, 1)))
    for name in plan.inputs:
        layer = topology.by_layer[name]
        if layer.selection not in topology.tensors:  # else it is a channel map already, cut above
            result[layer.selection] = _reads(topology, plan, layer)
    for key, info in topology.tensors.items():
        if info.same_as and key not in gone:
            result[key] = result[info.same_as]
    for key, values in attribute_counts(topology, plan).items():
        result[key] = torch.tensor(values)
    return result


def is_channel_map(key: str, topology: Topology) -> bool:
    """Whether an entry is a table of channel indices: virtually an (out, in) matrix, stored as one index per output."""
    return key.endswith(("sources", READS)) and len(topology.tensors[key].shape) == 2


def _cut_map(sources: Tensor, kept_out: Any, kept_in: Any) -> Tensor:
    result = sources if kept_out is None else sources[torch.from_numpy(kept_out)]
    if kept_in is None:
        return result.clone()
    new_index = torch.full((int(max(int(sources.max()), int(kept_in.max()))) + 2,), -1, dtype=sources.dtype)
    new_index[torch.from_numpy(kept_in)] = torch.arange(len(kept_in), dtype=sources.dtype)
    return new_index[result]  # -1, "zero", indexes the last entry, which is -1


def _reads(topology: Topology, plan: Plan, layer: Layer) -> Tensor:
    slot = (layer.weight, layer.read_dim)
    arriving = kept_positions(topology, Plan(plan.cuts)).get(slot)
    kept = kept_positions(topology, plan)[slot]
    if arriving is None:
        return torch.from_numpy(kept.copy())
    place = {int(p): i for i, p in enumerate(arriving)}
    return torch.tensor([place[int(p)] for p in kept])


def _fold(tensor: Tensor, dim: int, pairs: list[tuple[int, int]]) -> Tensor:
    removed, heirs = (
        torch.tensor(x, dtype=torch.int64, device=tensor.device) for x in ([a for a, _ in pairs], [b for _, b in pairs])
    )
    return tensor.index_add(dim, heirs, tensor.index_select(dim, removed))


def _memory_format(tensor: Tensor) -> torch.memory_format:
    if tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def simulate(model: nn.Module, topology: Topology, plan: Plan) -> nn.Module:
    """The network after the cut in the shapes of before: removed channels have no reader.

    Zeroing the consumers' columns equals removal whatever stands between, except where moments are taken over channels:
    there, what makes a removed channel is NaN, and moments leave it out (``surgery.channel_moments``).

    Raises:
        PlanError: the plan does not fit.
    """
    check(topology, plan)
    plan = canonical(topology, plan)
    state = model.state_dict()
    changed: dict[str, Tensor] = {}
    for (key, dim), pairs in folds(topology, plan).items():
        changed[key] = _fold(changed.get(key, state[key]), dim, pairs)
    measured = set(topology.moments) & set(plan.cuts)
    fills = {slot: torch.nan for g in measured for slot in _slots(topology.by_id[g], Role.WRITES)}
    fills |= {slot: 0.0 for group in topology.groups for slot in _slots(group, Role.READS)}
    fills |= {(topology.by_layer[n].weight, topology.by_layer[n].read_dim): 0.0 for n in plan.inputs}
    for (key, dim), kept in kept_positions(topology, plan).items():
        if (key, dim) not in fills or is_channel_map(key, topology):
            continue
        tensor = changed.get(key, state[key])
        gone = np.setdiff1d(np.arange(tensor.shape[dim]), kept)
        changed[key] = tensor.index_fill(dim, torch.from_numpy(gone).to(tensor.device), fills[key, dim])
    masked = replaced(model, changed)
    if measured:
        over_kept_channels(masked)
    silence(masked, dict.fromkeys(name for b in plan.branches for name in topology.by_branch[b].silenced))
    return masked


def _slots(group: ChannelGroup, role: Role) -> Iterator[Slot]:
    return ((m.key, m.dim) for m in group.members if m.role is role)


def shaped_to(model: nn.Module, state: Mapping[str, Tensor], *, depthwise: Collection[str] | None = None) -> nn.Module:
    """A copy of a network that holds exactly these tensors, with module attributes taken from their shapes.

    This is how a cut network is made and how a pruned file is reloaded: nothing is traced.

    Args:
        model: the architecture at its original size; left as it is.
        state: the tensors by state_dict key; ``<layer>.reads`` buffers turn the layer into one that selects its inputs,
            ``<module>.skipped`` ones take the place of a module that is gone.
        depthwise: names of the convolutions whose conv-groups follow their channels; by default those with one input channel
            per conv-group, which is right for every network that was not cut yet.

    Raises:
        PlanError: tensors are missing or too many, or a shape makes no sense for its module.
    """
    selecting = {k for k in state if k.endswith("." + READS) or k == READS}
    counting = {k for k in state if k.rpartition(".")[2].startswith(WIDTH_OF)}
    own, skipping = model.state_dict(), {k for k in state if k.endswith("." + SKIPPED)}
    gone = tuple(k.removesuffix(SKIPPED) for k in skipping - set(own))
    missing = sorted(k for k in set(own) - set(state) if not k.startswith(gone))
    extra = sorted(set(state) - set(own) - selecting - counting - skipping)
    if missing or extra:
        raise PlanError(
            f"the tensors do not belong to {type(model).__name__}: {len(missing)} missing (first {missing[:1]}), "
            f"{len(extra)} unknown (first {extra[:1]})",
            hint="load them with the architecture they were saved from",
        )
    result = replaced(model, {k: v for k, v in state.items() if k in own})
    for key in sorted(skipping - set(own)):
        skip(result, key.rpartition(".")[0], state[key])
    originals = dict(model.named_modules())
    for name, module in result.named_modules():
        refresh_attributes(module, originals[name], name, depthwise=None if depthwise is None else name in depthwise)
    for key in sorted(selecting):
        name = key.rpartition(".")[0]
        select_inputs(result.get_submodule(name), state[key].clone(), name)
    for key in sorted(counting):
        name = key.rpartition(".")[0]
        _count_anew(result.get_submodule(name), key, state[key])
    return result


def _count_anew(module: nn.Module, key: str, counts: Tensor) -> None:
    """Writes the counts of a cut into the attribute that held them before, and keeps them beside the tensors.

    Raises:
        PlanError: the module has no such attribute, or these are no counts of channels.
    """
    buffer = key.rpartition(".")[2]
    name = buffer.removeprefix(WIDTH_OF)
    old: Any = vars(module).get(name)
    numbers = (old,) if isinstance(old, int) else tuple(old) if isinstance(old, tuple | list) else ()
    whole = bool(numbers) and all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
    if not whole or counts.dtype != torch.int64 or counts.shape != (len(numbers),) or not bool((counts > 0).all()):
        raise PlanError(
            f"{key} holds no counts for an attribute {name!r} of {type(module).__name__}", hint="save the network anew"
        )
    new = counts.tolist()
    setattr(module, name, new[0] if isinstance(old, int) else type(old)(new))
    if buffer in module._buffers:
        module._buffers[buffer] = counts.clone()
    else:
        module.register_buffer(buffer, counts.clone())


def replaced(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy with some tensors replaced; all others are shared with the original."""
    memo: dict[int, Any] = {}
    for key, old in model.state_dict(keep_vars=True).items():
        if key in tensors and tensors[key] is not old:
            new = tensors[key].detach()
            if id(old) not in memo:  # tied tensors stay tied
                memo[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        else:
            memo.setdefault(id(old), old)
    return deep_copy(model, memo)


def own_tensors(model: nn.Module) -> nn.Module:
    """A copy that shares nothing, to be trained: ``cut`` and ``simulate`` share what they did not change."""
    return deep_copy(model)


def refresh_attributes(module: nn.Module, original: nn.Module, name: str, *, depthwise: bool | None = None) -> None:
    """Sets in_channels, num_features and their like from the tensors' shapes.

    The conv-groups of a depthwise convolution (by default: one with as many as input channels) follow its channels; any
    other keeps their number.

    Raises:
        PlanError: the shapes do not divide.
    """
    if isinstance(module, _ConvNd) and isinstance(original, _ConvNd):
        new, old = module.weight.shape, original.weight.shape
        if original.groups > 1 and (original.in_channels == original.groups if depthwise is None else depthwise):
            module.groups, rest = divmod(original.groups * new[0], old[0])
            if rest or module.groups < 1:
                raise PlanError(
                    f"{name}: {new[0]} filters do not divide by the depthwise multiplier {old[0] // original.groups}"
                )
        if isinstance(module, _ConvTransposeNd):
            module.in_channels, module.out_channels = new[0], new[1] * module.groups
        else:
            module.in_channels, module.out_channels = new[1] * module.groups, new[0]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _NormBase):
        found = module.weight if module.weight is not None else module.running_mean
        if found is not None:
            module.num_features = found.shape[0]
    elif isinstance(module, nn.GroupNorm):
        if module.weight is not None:
            module.num_channels = module.weight.shape[0]
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        if module.weight is not None:
            module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]


class _Selecting:
    """Reads selected inputs: narrows the activation, then does what the layer always did."""

    reads: Tensor
    span: tuple[int, int] | None  # (first, how many) where the selection is contiguous

    def forward(self, input: Tensor) -> Tensor:
        dim = -1 if isinstance(self, nn.Linear) else 1
        if self.span is not None:
            chosen = input.narrow(dim, *self.span)  # exported as Slice
        else:
            chosen = input.index_select(dim, self.reads)  # exported as Gather
        return super().forward(chosen)  # type: ignore[misc,no-any-return]


@cache
def _selecting_class(kind: Any) -> type[nn.Module]:
    return type(f"Selecting{kind.__name__}", (_Selecting, kind), {})


def select_inputs(module: nn.Module, reads: Tensor, name: LayerName | str) -> None:
    """Turns a convolution or linear layer, in place, into one that reads these inputs; name and keys stay.

    Raises:
        UnsupportedLayer: the module is neither, or is grouped.
    """
    kind: Any = type(module)
    if not issubclass(kind, _ConvNd | nn.Linear) or getattr(module, "groups", 1) != 1:
        raise UnsupportedLayer(f"{name}: a {kind.__name__} cannot select inputs")
    if not issubclass(kind, _Selecting):
        module.register_buffer(READS, reads)
        module.__class__ = _selecting_class(kind)
    first, count = int(reads[0]), len(reads)
    module.reads = reads
    module.span = (first, count) if torch.equal(reads, torch.arange(first, first + count)) else None  # type: ignore[assignment]
