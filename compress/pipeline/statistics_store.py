"""What was measured of a network's channels, kept: a run that goes on, a pick and the next run need not measure it again.

A record is one safetensors file in the run's own folder ``statistics``, and a link to it (a copy where there can be none) in
the user's cache, where other runs of the same network on the same images find it; what was not used for longest leaves the
cache when it is full. A record is taken only if its header says that it stands on the very same things, its tensors have the
shapes and types that are wanted, and their digest is the header's; otherwise it is measured again. Nothing fails because a
record cannot be kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from compress.core import aside, code_digest, make_folder, user_cache
from compress.errors import CompressError
from compress.evaluation import outputs_of
from compress.networks import state_digest

FOLDER = "statistics"
_LARGEST = 1 << 30
"""Bytes of a record at the most."""
_FULL = 4 << 30
"""Bytes that the user's cache of records may take."""
_SEEN = 2
"""Images whose outputs say which code computes with the weights."""

WantedTensors = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Tensor -> what is wanted of it; of a length -1 any number fits."""


@dataclass(frozen=True)
class StatisticsStore:
    """Records of one network on one set of images.

    Attributes:
        folder: of the run; None keeps nothing.
        shared: of the user; None shares nothing.
        context: everything that all records stand on, as text.
    """

    folder: Path | None
    shared: Path | None
    context: str

    def get(self, kind: str, about: Any, wanted: WantedTensors) -> dict[str, Tensor] | None:
        """A record; None where there is none that can be believed.

        Args:
            kind: the first part of its file's name.
            about: what else it stands on, JSON.
            wanted: its tensors.
        """
        record = self._record(kind, about)
        for place in (self.folder, self.shared):
            path = None if place is None else place / _name(kind, record)
            found = None if path is None else _read(path, record, wanted)
            if found is not None and path is not None:
                with suppress(OSError):
                    os.utime(path)  # it was used
                return found
        return None

    def put(self, kind: str, about: Any, tensors: Mapping[str, Tensor]) -> None:
        """Keeps a record, where it can be kept."""
        if self.folder is None:
            return
        record = self._record(kind, about)
        path = self.folder / _name(kind, record)
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        data = save(plain, {"record": record, "digest": state_digest(plain)})
        if len(data) > _LARGEST:
            return
        with suppress(CompressError, OSError):
            make_folder(self.folder, hint="")
            with aside(path) as temporary:
                temporary.write_bytes(data)
            if self.shared is not None:
                self.shared.mkdir(parents=True, exist_ok=True)
                _link(path, self.shared / path.name)
                _trim(self.shared, _FULL)

    def _record(self, kind: str, about: Any) -> str:
        return json.dumps([self.context, kind, about], sort_keys=True)


def store_of(folder: Path | None, model: nn.Module, images: Tensor, identity: Mapping[str, Any]) -> StatisticsStore:
    """The records of a network on these images, as this version of the code computes them on this machine.

    Args:
        folder: of the run; None keeps nothing.
        model: eval mode.
        images: that statistics are taken on.
        identity: what else they stand on: digests of weights and structure.
    """
    if folder is None:
        return StatisticsStore(None, None, "")
    outputs = outputs_of(model, images[:_SEEN])
    context = {
        **identity,
        "images": state_digest({"images": images}),
        "outputs": state_digest({str(i): t for i, t in enumerate(outputs)}),
        "code": code_digest(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    return StatisticsStore(folder / FOLDER, shared_folder(), json.dumps(context, sort_keys=True))


def shared_folder() -> Path:
    """Where runs share their records: beside the latency tables."""
    return user_cache() / FOLDER


def _name(kind: str, record: str) -> str:
    return f"{kind}-{hashlib.sha256(record.encode()).hexdigest()[:20]}.safetensors"


def _read(path: Path, record: str, wanted: WantedTensors) -> dict[str, Tensor] | None:
    """The file's tensors, in memory that the system may take back; None where they are not what is wanted."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            if told.get("record") != record or set(file.keys()) != set(wanted):
                return None
            if not all(_fits(file.get_slice(name).get_shape(), shape) for name, (_, shape) in wanted.items()):
                return None
            found = {name: file.get_tensor(name) for name in wanted}
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError):
        return None
    typed = all(found[name].dtype == dtype for name, (dtype, _) in wanted.items())
    return found if typed and state_digest(found) == told.get("digest") else None


def _fits(have: list[int], want: tuple[int, ...]) -> bool:
    return len(have) == len(want) and all(w in (h, -1) for h, w in zip(have, want, strict=True))


def _link(path: Path, other: Path) -> None:
    """The same file under another name, or a copy on another file system."""
    if other.exists():
        return
    try:
        os.link(path, other)
    except OSError:
        with aside(other) as temporary:
            shutil.copyfile(path, temporary)


def _trim(folder: Path, most: int) -> None:
    """What was not used for longest goes until the rest takes no more than so many bytes."""
    seen = sorted(((f.stat().st_mtime, f.stat().st_size, f) for f in folder.glob("*.safetensors")), reverse=True)
    total = 0
    for _, size, file in seen:
        total += size
        if total > most:
            with suppress(OSError):
                file.unlink()
