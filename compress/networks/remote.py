"""Networks with their weights from where a library or a server keeps them: named by the user, who thereby allows the fetching.

``torchvision:resnet50``, ``timm:resnet18``, ``hf-hub:ORG/NAME`` and addresses. Only files of tensors are fetched, and they are
read as any stranger's: no pickle is executed. What is in a cache is taken from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from compress.core import did_you_mean, read_text
from compress.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from compress.data import Preprocessing
    from compress.networks.checkpoint import Loaded

_FORM = re.compile(r"(torchvision|timm|hf-hub|https?|file):.+", re.DOTALL)
_TENSORS, _PICKLED, _CONFIG = "model.safetensors", "pytorch_model.bin", "config.json"
_DIGEST = re.compile(r"-([0-9a-f]{8,64})\.")
"""As torch's own file names begin to tell theirs."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file, and what its source says of it.

    Attributes:
        file: on this machine.
        arch: what it is of; None leaves that to the file.
        preprocessing: how images are prepared for these weights; None where the source does not say.
    """

    file: Path
    arch: str | None = None
    preprocessing: Preprocessing | None = None


def is_remote(text: str | Path) -> bool:
    """Whether a network is named by its source and not by a file that is there."""
    return isinstance(text, str) and _FORM.fullmatch(text) is not None and not Path(text).exists()


def short_name(text: str) -> str:
    """What a network of such a source may be called: without library, server and folder."""
    last = urlsplit(text).path if "://" in text else text.partition(":")[2].partition("@")[0]
    return Path(unquote(last)).name


def load_remote(text: str, read: Callable[..., Loaded], arch: str | None, trust_pickle: bool = False) -> Loaded:
    """The network of a source.

    Args:
        text: as :func:`is_remote` knows it.
        read: :func:`compress.load` for a file, but for the architecture.
        arch: the architecture, where the user says it; goes before what the source says.
        trust_pickle: refused: what is fetched is not executed.

    Raises:
        CheckpointError: the source has no such network, cannot be reached, or its file cannot be used.
    """
    if trust_pickle:
        raise CheckpointError(
            f"{text} is fetched, and nothing that is fetched is executed",
            hint="leave --trust-pickle out; or fetch the file yourself, and give it with --trust-pickle if you trust it",
        )
    found = fetched(text)
    loaded = read(found.file, arch=arch or found.arch)
    if loaded.preprocessing is None and arch is None:
        loaded = replace(loaded, preprocessing=found.preprocessing)
    return replace(loaded, metadata={**loaded.metadata, "source": text})


def fetched(text: str) -> Fetched:
    """The file of a source, fetched where it is in no cache.

    Raises:
        CheckpointError: there is none.
    """
    from compress.networks.downloads import download

    library, _, name = text.partition(":")
    if library == "torchvision":
        return _torchvision(name)
    if library == "timm":
        return _timm(name)
    if library == "hf-hub":
        return _hub(name)
    if library == "file":
        return Fetched(Path(url2pathname(urlsplit(text).path)))
    return Fetched(download(text))


def _torchvision(name: str) -> Fetched:
    """The weights that torchvision takes by default, in torch's own cache."""
    from torch.hub import get_dir
    from torchvision import models

    from compress.data import Preprocessing
    from compress.networks.architecture import canonical
    from compress.networks.downloads import download

    arch = canonical(f"torchvision:{name}", {})
    known = list(models.get_model_weights(arch.partition(":")[2]))
    if not known:
        raise CheckpointError(f"torchvision has no weights for {name}", hint=f"give a file of weights, with --arch {arch}")
    weights = models.get_model_weights(arch.partition(":")[2]).DEFAULT
    file = Path(get_dir()) / "checkpoints" / Path(urlsplit(weights.url).path).name
    known_digest = _DIGEST.search(file.name)
    preset = weights.transforms()
    crop = int(preset.crop_size[0])
    shown = Preprocessing(
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        size=(crop, crop),
        resize=max(int(preset.resize_size[0]), crop),
        interpolation=preset.interpolation.value,
    )
    return Fetched(download(weights.url, file, digest=known_digest[1] if known_digest else ""), arch, shown)


def _timm(name: str) -> Fetched:
    """The weights that timm takes by default, or those of a tag as in ``resnet18.a1_in1k``."""
    from compress.networks.architecture import factory_of
    from compress.networks.downloads import download

    factory_of(f"timm:{name.partition('.')[0]}", {})  # says so where timm is missing, or has no such network
    import timm

    config = timm.get_pretrained_cfg(name) if name in timm.list_models(pretrained=True) or "." not in name else None
    if config is None or not (config.hf_hub_id or config.url):
        tagged = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
        raise CheckpointError(
            f"timm has no weights {name!r}", hint=did_you_mean(name, tagged, f"there are {', '.join(tagged[:8]) or 'none'}", 3)
        )
    said = {"architecture": config.architecture, "pretrained_cfg": vars(config)}
    if not config.hf_hub_id:
        return replace(_described(said), file=download(str(config.url)))
    found = _hub(config.hf_hub_id, Path(config.hf_hub_filename or _TENSORS).with_suffix(".safetensors").name)
    return replace(_described(said), file=found.file)


def _hub(text: str, tensors: str = _TENSORS) -> Fetched:
    """A repository of ours or of timm's; of timm's, ``config.json`` names the architecture and how images are prepared."""
    from safetensors import SafetensorError, safe_open

    from compress.networks.hub import Repository

    repository = Repository.of(text)
    file = repository.file(tensors) or repository.file(_PICKLED)
    if file is None:
        raise CheckpointError(
            f"hf-hub:{text} has neither {tensors} nor {_PICKLED}", hint="name a repository with one network's weights"
        )
    try:
        with safe_open(file, framework="numpy") as opened:
            ours = "compress" in (opened.metadata() or {})
    except (SafetensorError, OSError):  # no safetensors file, or a damaged one: whoever reads it says so
        ours = False
    config = None if ours else repository.file(_CONFIG)
    if config is None:
        return Fetched(file)
    try:
        said = json.loads(read_text(config))
        return replace(_described(said), file=file)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{_CONFIG} of hf-hub:{text} is no JSON: {error}", hint="name the network with --arch") from error


def _described(said: Any) -> Fetched:
    """What a configuration of timm's says, as from a stranger: a name that timm has, and plain numbers."""
    from compress.data import Preprocessing
    from compress.networks.architecture import factory_of

    said = said if isinstance(said, Mapping) else {}
    name, about = said.get("architecture"), said.get("pretrained_cfg")
    if not isinstance(name, str):
        return Fetched(Path())
    factory_of(f"timm:{name}", {})
    about = about if isinstance(about, Mapping) else said  # an older form has it all on one level
    try:
        _, height, width = about["input_size"]
        return Fetched(
            Path(),
            f"timm:{name}",
            Preprocessing(
                mean=tuple(about["mean"]),
                std=tuple(about["std"]),
                size=(height, width),
                resize=max(int(height / about["crop_pct"]), height, width),
                interpolation=about["interpolation"],
            ),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, DataError):
        return Fetched(Path(), f"timm:{name}")
