"""Where in a checkpoint's content the state_dicts lie, and under which keys a network may know their tensors.

People keep a network's tensors bare, under a name beside an optimiser's, several levels down, once plain and once averaged, and
with the prefixes of whatever wrapped the network while it was trained. Here every place that may hold them is listed; which of
them fits an architecture is decided elsewhere (:mod:`compress.networks.recognition`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compress.core import plural

PLAIN = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params", "net_state_dict"
)  # fmt: skip
_AVERAGED = re.compile(r"(?<![a-z])(ema|averaged?|avg|swa|shadow|polyak)(?![a-z])")
_COUNTERS = ("n_averaged", "steps", "step", "initted", "num_updates", "decay")
_PROFILER = ("total_ops", "total_params")  # left behind by FLOP counters
_DEEPEST, _MOST_PLACES, _MOST_ENTRIES, _MOST_FORMS = 6, 20_000, 24, 48


@dataclass(frozen=True, slots=True)
class Form:
    """The tensors of an entry under the keys that a network may have for them.

    Attributes:
        state: key -> tensor.
        prefix: what was taken off every key.
        left: how many tensors do not lie under the prefix.
        doubtful: what was left may be a part of the network: only taken for an architecture that the user named.
    """

    state: Mapping[str, Tensor]
    prefix: str = ""
    left: int = 0
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A place in a file that may hold a network's tensors.

    Attributes:
        name: the keys that lead there, joined by dots; empty for the whole file.
        held: its tensors, or a pickled network.
        averaged: the tensors are averages over training (EMA, SWA), by the entry's name or by what lies beside them.
        joined: several nested entries under one, their names before the keys.
    """

    name: str
    held: Mapping[str, Any] | nn.Module
    averaged: bool = False
    joined: bool = False

    @property
    def known(self) -> bool:
        """Whether the name is one that people keep a whole network under; the file itself is."""
        return all(part in PLAIN for part in self.name.split(".")) or not self.name

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What of it is a tensor of a network."""
        content = self.held.state_dict() if isinstance(self.held, nn.Module) else self.held
        entries = ((k, v) for k, v in content.items() if isinstance(k, str) and k.rpartition(".")[2] not in _PROFILER)
        return {k: v.detach() for k, v in entries if isinstance(v, Tensor)}

    def told(self) -> str:
        """Itself in a message."""
        kind = "a pickled network" if isinstance(self.held, nn.Module) else f"{plural(len(self.tensors), 'tensor')}"
        return f"{self.name[:60] or 'the file'!r} ({kind}{', averaged' if self.averaged else ''})"


def is_averaged(name: str) -> bool:
    """Whether a name speaks of averaged weights: ``model_ema``, ``ema.module``, ``emaModel``, ``swa_state_dict``."""
    return _AVERAGED.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()) is not None


def entries_of(content: Any) -> list[Entry]:
    """Every place in the content that may hold a network: plain ones first, those of well-known names before others.

    Circles end, and what is nested too deep or too widely to be a checkpoint is not followed to its end.
    """
    found: list[Entry] = []
    seen: set[int] = set()
    _collect(content, (), found, seen)
    order = {name: rank for rank, name in enumerate(PLAIN)}

    def rank(entry: Entry) -> tuple[bool, bool, bool, int, int]:
        first = order.get(entry.name.partition(".")[0], len(order) if entry.name else -1)
        held = entry.held
        size = 0 if isinstance(held, nn.Module) else sum(v.numel() for v in held.values() if isinstance(v, Tensor))
        return entry.averaged, not entry.known, entry.joined, first, -size

    return sorted(found, key=rank)[:_MOST_ENTRIES]


def _collect(content: Any, path: tuple[str, ...], found: list[Entry], seen: set[int]) -> list[Entry]:
    """Adds the entries at and below a place; returns those at it that are a state_dict or a network."""
    if id(content) in seen or len(path) > _DEEPEST or len(seen) > _MOST_PLACES:
        return []
    name, averaged = ".".join(path), any(map(is_averaged, path))
    if isinstance(content, nn.Module):
        seen.add(id(content))
        found.append(Entry(name, content, averaged))
        return found[-1:]
    if isinstance(content, list | tuple):
        seen.add(id(content))
        for index, item in enumerate(content[:8]):
            if isinstance(item, Mapping | nn.Module):
                _collect(item, (*path, str(index)), found, seen)
        return []
    if not isinstance(content, Mapping):
        return []
    seen.add(id(content))
    below: list[Entry] = []
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping | nn.Module | list | tuple):
            below += _collect(value, (*path, key), found, seen)
    parts = {e.name[len(name) + bool(name) :]: e.held for e in below if not e.averaged or averaged}
    states = {part: held for part, held in parts.items() if isinstance(held, Mapping)}
    if len(states) > 1:
        joined = {f"{part}.{k}": v for part, held in states.items() for k, v in held.items() if isinstance(k, str)}
        found.append(Entry(name, joined, averaged, joined=True))
    if not any(isinstance(v, Tensor) and v.dim() > 0 for v in content.values()):
        return []
    here = [Entry(name, content, averaged or "n_averaged" in content)]
    found += [*here, *_split(content, name)]
    return here


def _split(state: Mapping[str, Any], name: str) -> Iterator[Entry]:
    """Averaged weights that lie beside the plain ones in one state_dict, and the plain ones without them."""
    keys = [k for k in state if isinstance(k, str) and isinstance(state[k], Tensor)]
    flat = {f"ema_{k.replace('.', '_')}": k for k in keys}  # the buffers that mmcv's hook registers
    inside = {k: flat[k] for k in keys if k in flat}
    first = {k.partition(".")[0] for k in keys if "." in k}
    groups = {part: [k for k in keys if k.startswith(f"{part}.")] for part in first if is_averaged(part)}
    for part, members in groups.items():
        held = {k.removeprefix(f"{part}."): state[k] for k in members}
        yield Entry(f"{name}.{part}".strip("."), held, averaged=True)
    if len(inside) > 1:
        yield Entry(f"{name}.ema_*".strip("."), {inside[k]: state[k] for k in inside}, averaged=True)
    apart = {*inside, *(k for members in groups.values() for k in members)}
    if apart and len(apart) < len(keys):
        yield Entry(name, {k: state[k] for k in keys if k not in apart})


def forms_of(state: Mapping[str, Tensor], *, joined: bool = False, lightning: bool = False) -> tuple[Form, ...]:
    """The same tensors under their own keys first, then with ever more of what wraps the network taken off.

    Args:
        state: key -> tensor.
        joined: its first components are entries of the file: none is left out.
        lightning: metrics and losses may lie beside the network.
    """
    forms = [Form(dict(state))]
    for form in forms:  # which grows
        if len(forms) >= _MOST_FORMS or form.prefix.count(".") >= _DEEPEST:
            break
        keys = [k for k in form.state if k not in _COUNTERS or form.state[k].numel() > 1]
        groups: dict[str, int] = {}
        for key in keys:
            part, dot, _ = key.partition(".")
            groups[part + dot] = groups.get(part + dot, 0) + 1
        whole = len(groups) == 1
        for part, count in sorted(groups.items(), key=lambda pair: -pair[1])[: 1 if joined else 8]:
            if not part.endswith(".") or count < 2 or (joined and not whole):
                continue
            inside = {k.removeprefix(part): v for k, v in form.state.items() if k.startswith(part)}
            left = form.left + sum(not k.startswith(part) for k in keys)
            doubtful = form.doubtful or not (whole or (lightning and 2 * count > len(keys)))
            forms.append(Form(inside, form.prefix + part, left, doubtful))
    return tuple(forms[:_MOST_FORMS])


def listed(entries: Sequence[Entry]) -> str:
    """Entries in a message."""
    return ", ".join(e.told() for e in entries[:6]) + (f" and {len(entries) - 6} more" if len(entries) > 6 else "")
