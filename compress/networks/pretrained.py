"""A network out of a folder or a hub's repository, as ``save_pretrained`` and ``push`` leave it, or as timm does."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from compress.errors import CheckpointError
from compress.networks.architecture import Zoo
from compress.networks.checkpoint import load
from compress.networks.network import Network, network_from

_FILE = "model.safetensors"
_NONE: Zoo = MappingProxyType({})


def from_pretrained(source: str | Path, *, zoo: Zoo = _NONE, arch: str | None = None) -> Network:
    """The network of a folder of :func:`compress.save_pretrained`, or of a hub's repository, which is fetched.

    Args:
        source: a folder, or ``ORG/NAME``, ``ORG/NAME@REVISION``.
        zoo: networks by name, beside torchvision's, as for :func:`compress.load`.
        arch: the architecture, where it is of your own code: nothing that a file names is imported otherwise.

    Raises:
        CheckpointError: there is none, or it cannot be used; huggingface_hub is missing, or the hub cannot be reached.
    """
    folder = Path(source)
    if folder.is_dir():
        return network_from(load(folder / _FILE, zoo=zoo, arch=arch))
    if isinstance(source, Path) or folder.exists():
        raise CheckpointError(f"{source} is no folder", hint="give a folder of save_pretrained, or ORG/NAME")
    text = source.removeprefix("hf-hub:")
    return network_from(load(f"hf-hub:{text}", zoo=zoo, arch=arch), name=text.partition("@")[0].rpartition("/")[2])
