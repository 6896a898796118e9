"""Networks in files as torch's own runtimes load them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from compress.errors import ConfigError
from compress.latency.measurement import MeasuredFile, identify
from compress.networks import file_state_digest, load, network_from
from compress.runtime import TORCH_RUNTIMES, Opens, TorchRuntime, check_torch_device


def network_opener(
    zoo: Mapping[str, Callable[..., nn.Module]], *, size: tuple[int, ...] | None = None, trust_pickle: bool = False
) -> Opens:
    """Loads a file of a trained network, ours (``model.safetensors``) or a checkpoint whose architecture is recognised.

    Args:
        zoo: networks by name, beside torchvision's and timm's.
        size: height and width of the images, where the file does not say.
        trust_pickle: the files may execute code.
    """

    def opens(path: Path) -> tuple[nn.Module, tuple[int, ...]]:
        network = network_from(load(path, zoo=zoo, trust_pickle=trust_pickle))
        if not network.takes_images:
            raise ConfigError(
                f"{path} takes several tensors, torch's runtimes measure networks that take one",
                hint="export it and measure the .onnx file: compress export",
            )
        shape = network.shape if size is None else (network.shape[0], *size)
        return network.model, shape

    return opens


def identify_network(path: Path) -> MeasuredFile:
    """Name, digests and size of a network's file; only safetensors tell the digest of their tensors.

    Raises:
        ModelError: it cannot be read.
        CheckpointError: it is a damaged safetensors file.
    """
    tensors = file_state_digest(path) if path.suffix == ".safetensors" else ""
    return replace(identify(path), tensors=tensors)


def torch_runtimes(opens: Opens, threads: int | None = 1) -> Callable[[str], TorchRuntime]:
    """Makes torch's runtimes by their names (``compress.runtime.TORCH_RUNTIMES``), where their device is there.

    Args:
        opens: makes a module of a file.
        threads: on the CPU; of a card's host, too.

    Raises:
        RuntimeUnavailable: when called: the device is not there.
    """

    def made(name: str) -> TorchRuntime:
        device, precision = TORCH_RUNTIMES[name]
        runtime = TorchRuntime(opens=opens, device=device, precision=precision, threads=threads)
        check_torch_device(runtime)
        return runtime

    return made
