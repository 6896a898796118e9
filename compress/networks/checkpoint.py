"""Networks from files and into files.

Our own format is one safetensors file: the tensors, and under ``compress`` in its text header a JSON object with the
architecture, the plan, the pre-processing and free metadata. A pruned network reloads from it without the original:
the architecture is built at its full size and given the smaller tensors (``surgery.shaped_to``); nothing is traced.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.core import READS, SKIPPED, WIDTH_OF, Plan, aside, plural
from compress.data import Preprocessing
from compress.errors import CheckpointError, CompressError
from compress.importing import ImportedNetwork, rebuilt, structure_of
from compress.networks.architecture import UNNAMED, Architecture, Zoo, build, canonical
from compress.networks.onnx_network import from_onnx, is_onnx
from compress.networks.recognition import Match, of_torchvision, search
from compress.networks.remote import is_remote, load_remote
from compress.networks.selection import PLAIN, Selected, select
from compress.networks.weights import Weights, read_weights
from compress.signature import bare
from compress.surgery import cuttable, shaped_to

__all__ = ["Architecture", "Loaded", "load", "save", "state_digest"]

FORMAT = 1
_HEADER = "compress"
_STRUCTURE = "onnx"
_NONE: Mapping[str, Any] = MappingProxyType({})
_WHOLE = Plan()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network from a file.

    Attributes:
        model: on the CPU, float32, in evaluation mode.
        architecture: what it was built from.
        plan: what had been cut already, in the coordinates of the architecture.
        preprocessing: how its images are prepared, where the file says so.
        digest: of the tensors.
        warnings: what a user should know about the choices made.
        metadata: what was saved beside it.
        example: inputs of the sizes that it takes, where the file itself says so and they are no images.
    """

    model: nn.Module
    architecture: Architecture
    plan: Plan
    preprocessing: Preprocessing | None
    digest: str
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    example: Any = None


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Identifies tensors: SHA-256 of names, types, shapes and bytes in the order of the names, shortened."""
    hashed = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        hashed.update(f"{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        hashed.update(tensor.flatten().view(torch.uint8).numpy().data)
    return hashed.hexdigest()[:16]


def load(
    path: str | Path,
    *,
    zoo: Zoo = _NONE,
    arch: str | None = None,
    trust_pickle: bool = False,
    weights: str | None = None,
    size: tuple[int, ...] | None = None,
) -> Loaded:
    """A trained network from a file, ready to be pruned.

    Args:
        path: our own format, a state_dict as people keep them (see ``weights.read_weights``), or an ONNX file, which is
            imported and compared with what ONNX Runtime makes of it. Or the source of one, by which the caller allows to
            fetch its weights: ``torchvision:NAME``, ``timm:NAME``, ``hf-hub:ORG/NAME``, an http, https or file address.
        zoo: networks by name, beside torchvision's.
        arch: the architecture, where it cannot be recognised; also needed, and equal, to load one of our own files whose
            network comes from ``package.module:factory``, because importing that runs its code.
        trust_pickle: the file may execute code.
        weights: which ones, of a file that holds several: ``plain``, ``ema`` (averaged: EMA, SWA) or the name of an entry. None
            takes the ones that fit, plain before averaged; what was left is said.
        size: of the dimensions beside the batch that an ONNX file leaves open, in order; one number for all of them.

    Raises:
        CheckpointError: the file cannot be used; the hint says what to do.
        ImportRefused: an ONNX file cannot be made a network that computes the same.
    """
    if isinstance(path, str) and is_remote(path):
        return load_remote(path, partial(load, zoo=zoo, weights=weights, size=size), arch, trust_pickle)
    path = Path(path)
    if is_onnx(path):
        return _load_onnx(path, size)
    held = read_weights(path, trust_pickle=trust_pickle)
    try:
        if _HEADER in held.header:
            _only_one(path, weights)
            return _load_own(held, path, zoo, arch, trust_pickle)
        chosen = select(held, path, zoo, arch, weights)
        if chosen.match is None:
            return _load_module(chosen, path, zoo, arch)
        match = chosen.match
        model = build(match.architecture, zoo)
        state, notes = _checked(match.state, model.state_dict(), path)
        model.load_state_dict(state, assign=True)
        model = cuttable(model)
    except CompressError as error:
        if str(path) in error.message:
            raise
        raise CheckpointError(f"{path}: {error.message}", hint=error.hint) from error
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: the tensors do not fit: {error}", hint="name the network with --arch") from error
    warnings = (*chosen.notes, *notes)
    return Loaded(
        model=model,
        architecture=match.architecture,
        plan=_WHOLE,
        preprocessing=None,
        digest=state_digest(model.state_dict()),
        warnings=warnings,
    )


def _only_one(path: Path, which: str | None) -> None:
    """A file of our own holds one network, as it is: nothing can be chosen.

    Raises:
        CheckpointError: other weights than the plain ones were asked for.
    """
    if which not in (None, PLAIN):
        raise CheckpointError(
            f"{path} was written by compress and holds one set of weights; there are no {which[:60]!r}",
            hint="leave --weights out, or give the file that it was made from",
        )


def _load_onnx(path: Path, size: tuple[int, ...] | None) -> Loaded:
    """An ONNX file's network, proven against the file."""
    found = from_onnx(path, size)
    state = found.model.state_dict()
    _checked(state, state, path)
    return Loaded(
        model=found.model,
        architecture=Architecture(found.name),
        plan=_WHOLE,
        preprocessing=found.preprocessing,
        digest=state_digest(state),
        warnings=found.notes,
        metadata=found.metadata,
        example=found.example,
    )


def _load_own(weights: Weights, path: Path, zoo: Zoo, arch: str | None, trust: bool) -> Loaded:
    header = _parse(weights.header[_HEADER], path)
    architecture = Architecture.from_json(header["architecture"])
    if arch is not None and arch != architecture.name:
        same = f"torchvision:{arch}" == architecture.name
        architecture = architecture if same else Architecture(arch, architecture.kwargs)
    elif architecture.runs_user_code and not architecture.name.startswith(UNNAMED) and arch is None and not trust:
        raise CheckpointError(
            f"{path} asks to import {architecture.name}, which would run its code",
            hint=f"if that is your own code, add --arch {architecture.name}",
        )
    plan = Plan.from_json(header["plan"])
    preprocessing = None if header["preprocessing"] is None else Preprocessing.from_json(header["preprocessing"])
    state = weights.candidates[0].forms[0].state
    whole = _whole(weights, architecture, zoo, len(state))
    own = whole.state_dict()
    found = state_digest(state)
    if found != header["digest"]:
        raise CheckpointError(
            f"{path} is damaged: its tensors have digest {found}, {header['digest']!s:.40} was saved",
            hint="copy it again from where it was made",
        )
    for key, tensor in state.items():
        if key in own and any(n > most for n, most in zip(tensor.shape, own[key].shape, strict=False)):
            raise CheckpointError(
                f"{path}: {key} is {tuple(tensor.shape)}, {architecture.name} has only {tuple(own[key].shape)}"
            )
        added = key.endswith((READS, SKIPPED)) or key.rpartition(".")[2].startswith(WIDTH_OF)
        if added and key not in own and (tensor.dtype != torch.int64 or tensor.dim() != 1 or not len(tensor)):
            raise CheckpointError(f"{path}: {key} is no table of channels")
    for name in (*plan.cuts, *plan.inputs, *plan.branches):
        if not any(key == name or key.startswith(f"{name}.") for key in own):
            raise CheckpointError(
                f"{path}: its plan cuts {name[:80]!r}, which {architecture.name} does not have",
                hint="do not use this file: plan and tensors are of two networks",
            )
    state, notes = _checked(state, own, path)
    model = shaped_to(whole, state).eval()
    metadata = header.get("metadata")
    return Loaded(
        model=model,
        architecture=architecture,
        plan=plan,
        preprocessing=preprocessing,
        digest=state_digest(model.state_dict()),
        warnings=(*weights.candidates[0].notes, *notes),
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def _whole(weights: Weights, architecture: Architecture, zoo: Zoo, tensors: int) -> nn.Module:
    """The network at its original size, waiting for its tensors."""
    if architecture.name.startswith("onnx:") and _STRUCTURE in weights.header:
        return rebuilt(weights.header[_STRUCTURE])
    return cuttable(build(architecture, zoo, tensors=tensors))


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its header is no JSON", hint="copy it again") from error
    if not isinstance(header, dict) or not {"format", "architecture", "plan", "preprocessing", "digest"} <= header.keys():
        raise CheckpointError(f"{path} is damaged: its header lacks entries", hint="copy it again")
    if header["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {header['format']!s:.20}, this version reads {FORMAT}", hint="install the version that wrote it"
        )
    return header


def _load_module(chosen: Selected, path: Path, zoo: Zoo, arch: str | None) -> Loaded:
    """A trusted pickled network: itself, under the name of its factory where one makes the same class and tensors."""
    module, forms = chosen.candidate.module, chosen.candidate.forms
    assert module is not None
    kind = type(module)
    module = cuttable(module.float().eval())
    _, notes = _checked(forms[0].state, module.state_dict(), path)
    names = chain(zoo, of_torchvision(forms[0].state)) if arch is None else [canonical(arch, zoo)]
    match = search(forms, names, zoo)
    known = isinstance(match, Match) and (arch is not None or type(build(match.architecture, zoo)) is kind)
    unnamed = Architecture(f"{UNNAMED}{kind.__module__}.{kind.__qualname__}")
    architecture = match.architecture if known and isinstance(match, Match) else unnamed
    if not known:
        notes.append(f"no factory for {kind.__qualname__} is known: name it with --arch when the saved network is loaded")
    return Loaded(
        model=module,
        architecture=architecture,
        plan=_WHOLE,
        preprocessing=None,
        digest=state_digest(module.state_dict()),
        warnings=(*chosen.notes, *notes),
    )


def _checked(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors in the architecture's types, refused where they cannot be trained weights."""
    result: dict[str, Tensor] = {}
    converted: dict[str, int] = {}
    for key, tensor in state.items():
        like = wanted.get(key)
        if like is not None and like.is_floating_point():
            if not tensor.is_floating_point():
                raise CheckpointError(
                    f"{path}: {key} has type {tensor.dtype}, floating-point weights were wanted",
                    hint="quantised weights cannot be pruned; give those from before quantisation",
                )
            if tensor.dtype != torch.float32:
                converted[str(tensor.dtype)] = converted.get(str(tensor.dtype), 0) + 1
            tensor = tensor.to(torch.float32)
        bad = 0 if not tensor.is_floating_point() else tensor.numel() - int(torch.isfinite(tensor).sum())
        if bad:
            raise CheckpointError(
                f"{path}: {key} is not finite in {bad} of {plural(tensor.numel(), 'place')}",
                hint="give an earlier checkpoint, if its training diverged; a constant has to be finite, too",
            )
        if key.endswith("running_var") and tensor.is_floating_point() and tensor.numel() and float(tensor.min()) < 0:
            raise CheckpointError(f"{path}: {key} holds a negative variance ({float(tensor.min()):.3g})", hint="copy it again")
        result[key] = tensor.clone(memory_format=torch.contiguous_format)
    notes = [f"{path.name}: {plural(n, 'tensor')} of type {kind} converted to float32" for kind, n in converted.items()]
    return result, notes


def save(
    path: str | Path,
    model: nn.Module,
    *,
    architecture: Architecture,
    plan: Plan = _WHOLE,
    preprocessing: Preprocessing | None = None,
    metadata: Mapping[str, Any] = _NONE,
) -> str:
    """Writes a network as one file, all or nothing.

    Args:
        path: the file; its folder must exist.
        model: whole or cut.
        architecture: what the network was built from, at its original size.
        plan: what was cut, in the architecture's coordinates.
        preprocessing: how its images are prepared.
        metadata: anything JSON-able.

    Returns:
        The digest of the tensors.

    Raises:
        CheckpointError: a tensor is not finite, the metadata is no JSON, or the file cannot be written.
    """
    path = Path(path)
    state = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    # Cloned: safetensors refuses tensors that share memory, and tied weights do.
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in state.items()}
    for key, tensor in plain.items():
        if tensor.is_floating_point() and not math.isfinite(float(tensor.double().sum())) and not tensor.isfinite().all():
            raise CheckpointError(
                f"{key} holds values that are not finite; nothing was written to {path}",
                hint="whatever made this network diverged: train it with a lower learning rate, or take an earlier one",
            )
    found = state_digest(plain)
    header = {
        "format": FORMAT,
        "architecture": architecture.to_json(),
        "plan": plan.to_json(),
        "preprocessing": None if preprocessing is None else preprocessing.to_json(),
        "digest": found,
        "metadata": dict(metadata),
    }
    try:
        told = json.dumps(header, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the metadata of {path} is no JSON: {error}") from error
    inner = bare(model)
    structure = {_STRUCTURE: structure_of(inner)} if isinstance(inner, ImportedNetwork) else {}
    try:
        with aside(path) as temporary:
            save_file(plain, temporary, {_HEADER: told, **structure})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be written: {error}", hint="check that its folder exists, is writable and has space left"
        ) from error
    return found
