"""Tensors out of whatever file people keep them in. The file is hostile: nothing in it is executed unless trusted."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from compress.core import file_inside, files_like, plural
from compress.errors import CheckpointError, one_line
from compress.networks.state_dicts import Entry, Form, entries_of, forms_of
from compress.networks.torch_archive import Module, read_archive, read_old, scripted_tensors
from compress.networks.unpickler import Forbidden

SAVE_AGAIN = "save the weights alone: torch.save(model.state_dict(), 'weights.pt')"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry of a file whose tensors are dense, real and as large as they say.

    Attributes:
        entry: where it lies.
        forms: its tensors under the keys that a network may have for them.
        module: the pickled network, from a trusted file.
        notes: what was left out of it.
    """

    entry: Entry
    forms: tuple[Form, ...]
    module: nn.Module | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Weights:
    """What a file holds.

    Attributes:
        candidates: one or more, in the order in which they are preferred.
        header: the text entries of a safetensors file.
    """

    candidates: tuple[Candidate, ...]
    header: Mapping[str, str] = field(default_factory=dict)


def read_weights(path: Path, *, trust_pickle: bool = False) -> Weights:
    """Reads the tensors of a file.

    GPU tensors come to the CPU. TorchScript archives are read without running their code.

    Args:
        path: a file of torch.save, safetensors or torch.jit.save.
        trust_pickle: let the file execute code, which a pickled network needs.

    Raises:
        CheckpointError: the file is missing, damaged or something else; the hint says what to do.
    """
    size, head = _inspect(path)
    header: Mapping[str, str] = {}
    zipped = head[:2] == b"PK"
    if zipped or (head[:1] == b"\x80" and head[1] <= pickle.HIGHEST_PROTOCOL):
        content: Any = _read_pickled(path, size, zipped, trust_pickle)
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        content, header = _read_safetensors(path)
    else:
        raise CheckpointError(f"{path} holds no weights: it starts with {head[:8]!r}", hint=_what_it_may_be(path, head))
    return _unwrap(content, path, size, header)


def _inspect(path: Path) -> tuple[int, bytes]:
    try:
        if path.is_dir():
            hint = file_inside(path, (".pt", ".pth", ".th", ".safetensors"), "name the file that holds the weights")
            raise CheckpointError(f"{path} is a folder, a file was wanted", hint=hint)
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise CheckpointError(f"{path} is no ordinary file", hint="copy it to a file first")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist", hint=files_like(path, "check the path; `ls` its folder")) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint="check its permissions") from error
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes)", hint="copy or download it again")
    if size < 10:
        raise CheckpointError(f"{path} has {size} bytes, too few for weights", hint="copy or download it again")
    return size, head


def _what_it_may_be(path: Path, head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer; fetch the real file with `git lfs pull`"
    if head.startswith(b"\x89HDF") or path.suffix in (".h5", ".keras"):
        return "Keras files are not supported; give PyTorch weights"
    if head.lstrip()[:1] in (b"<", b"{"):
        return "this looks like a web page or JSON, perhaps a failed download"
    return "files of torch.save, safetensors and torch.jit.save can be read; this one may be truncated or of another kind"


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    text = f"{path} is damaged or truncated: {type(error).__name__}: {one_line(error, 200)}"
    return CheckpointError(text, hint="copy or download it again")


def _read_pickled(path: Path, size: int, zipped: bool, trust_pickle: bool) -> Any:
    """What a file of torch.save or torch.jit.save holds, as data. Its code runs only where that does not do, and if trusted."""
    try:
        with path.open("rb") as file:
            if not zipped:
                return read_old(file, size)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                names = [m.filename for m in members]
                if not any(n.endswith("data.pkl") for n in names):
                    raise CheckpointError(
                        f"{path} is a zip archive of {plural(len(names), 'file')}, not one of torch.save",
                        hint="give the weights file; archives of images go to --data",
                    )
                script = any("/code/" in n for n in names)
                _refuse_bombs(path, [m for m in members if not (script and "/code/" in m.filename)], size)
                content = read_archive(file, archive)
                return _script_tensors(path, content) if isinstance(content, Module) else content
    except CheckpointError:
        raise
    except Forbidden as error:
        if trust_pickle:
            return _unpickle(path)
        raise CheckpointError(
            f"{path} pickles Python objects, not only tensors; reading it could run any code (first: {error})",
            hint=f"if you trust whoever wrote it, add --trust-pickle; better, {SAVE_AGAIN}",
        ) from error
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise _damaged(path, error) from error


def _refuse_bombs(path: Path, members: list[zipfile.ZipInfo], size: int) -> None:
    """torch.save stores without compression: a member that claims more than the file has is an attack or an accident."""
    claimed = sum(m.file_size for m in members)
    if claimed > size or any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members):
        raise CheckpointError(
            f"{path}: the archive of {size} bytes claims {claimed} bytes or is compressed, which torch.save never does",
            hint=f"do not use this file; {SAVE_AGAIN}",
        )


def _script_tensors(path: Path, root: Module) -> dict[str, Tensor]:
    tensors = scripted_tensors(root)
    if not tensors:
        raise CheckpointError(
            f"{path} is a frozen TorchScript file: its weights have no names any more",
            hint=f"give the file from before torch.jit.freeze, or {SAVE_AGAIN}",
        )
    return tensors


def _unpickle(path: Path) -> Any:
    """Runs whatever the file says: only for one that the user trusts."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch speaks of its own deprecations here
            return torch.load(path, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{path} pickles classes of {error.name!r}, which is not installed here",
            hint=f"install it, or where the network was trained {SAVE_AGAIN}",
        ) from error
    except Exception as error:  # the pickle's own code
        raise _damaged(path, error) from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = dict(file.metadata() or {})
            return {key: file.get_tensor(key) for key in file.keys()}, header  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, KeyError, UnicodeError) as error:
        raise _damaged(path, error) from error


def _unwrap(content: Any, path: Path, size: int, header: Mapping[str, str]) -> Weights:
    if not isinstance(content, Mapping | nn.Module | list | tuple):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, a state_dict was wanted", hint=SAVE_AGAIN)
    lightning = isinstance(content, Mapping) and "pytorch-lightning_version" in content
    usable, refused = [], list[CheckpointError]()
    for entry in entries_of(content):
        try:
            usable.append(_checked(entry, path, size, lightning))
        except CheckpointError as error:
            refused.append(error)
    if usable:
        return Weights(tuple(usable), header)
    if refused:
        raise refused[0]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, a state_dict was wanted", hint=SAVE_AGAIN)
    inside = ", ".join(f"{str(k)[:40]!r} ({_what(v)})" for k, v in list(content.items())[:6])
    raise CheckpointError(f"{path} holds no tensors of a network; its entries are {inside or 'none'}", hint=SAVE_AGAIN)


def _what(value: Any) -> str:
    if isinstance(value, list | tuple) and value and all(isinstance(v, Tensor) for v in value):
        return f"{plural(len(value), 'tensor')} without names"
    return type(value).__name__


def _checked(entry: Entry, path: Path, size: int, lightning: bool) -> Candidate:
    """An entry whose tensors are what they say."""
    state = entry.tensors
    content = state if isinstance(entry.held, nn.Module) else entry.held
    where = f"{path.name}{f' ({entry.name[:60]})' if entry.name else ''}"
    notes = []
    if not state:
        raise CheckpointError(f"{path} holds no tensors", hint=SAVE_AGAIN)
    if len(state) < len(content) and not entry.joined:
        dropped = [str(k)[:60] for k in content if k not in state]
        notes.append(f"{where}: {len(dropped)} entries are no tensors of a network and were left out, first {dropped[0]!r}")
    total = 0
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
            raise CheckpointError(
                f"{path}: {key[:80]} is sparse, quantised, complex or empty of data; dense real tensors are wanted",
                hint="give the floating-point weights that it was made from",
            )
        bytes_claimed = tensor.numel() * tensor.element_size()
        total += bytes_claimed
        # A stride of 0 lets a few bytes pose as terabytes; tied tensors may count a few times.
        if bytes_claimed > tensor.untyped_storage().nbytes() or total > 4 * size + 2**20:
            raise CheckpointError(
                f"{path}: {key[:80]} claims {bytes_claimed} bytes, more than the file of {size} bytes can hold",
                hint=f"do not use this file; {SAVE_AGAIN}",
            )
    module = entry.held if isinstance(entry.held, nn.Module) else None
    forms = forms_of(state, joined=entry.joined, lightning=lightning) if module is None else (Form(state),)
    return Candidate(entry, forms, module, tuple(notes))
