"""A run's networks as torch's own runtimes load them: a file's tensors in the structure of the unpruned network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from compress.core import Plan
from compress.errors import ConfigError, ModelError, PlanError
from compress.latency import torch_runtimes
from compress.networks import Network, save
from compress.runtime import TORCH_RUNTIMES, Opens, TorchRuntime
from compress.surgery import deep_copy, shaped_to


def of_torch(runtime: str) -> bool:
    """Whether a runtime's name is one of torch's own."""
    return runtime in TORCH_RUNTIMES


def torch_runtime(
    network: Network, name: str, *, threads: int | None = 1, modules: Mapping[Path, nn.Module] | None = None
) -> TorchRuntime:
    """torch's runtime of that name (``compress.runtime.TORCH_RUNTIMES``) for a network's files.

    Args:
        network: unpruned.
        name: of the runtime.
        threads: on the CPU.
        modules: what stands for which path, in memory; without them paths are files, see :func:`module_opener`.

    Raises:
        ConfigError: the network takes several tensors.
        RuntimeUnavailable: the device is not there.
    """
    return torch_runtimes(module_opener(network, modules), threads)(name)


def check_torch_runtimes(network: Network, names: Iterable[str]) -> None:
    """That torch can measure a network on every runtime of its own among these; said before any work.

    Raises:
        ConfigError: the network takes several tensors.
        RuntimeUnavailable: a device is not there.
    """
    for name in names:
        if of_torch(name):
            torch_runtime(network, name)


def module_opener(network: Network, modules: Mapping[Path, nn.Module] | None = None) -> Opens:
    """Loads a file of tensors, whole or cut, into a copy of the unpruned network: neither it nor any other copy changes.

    Args:
        network: unpruned.
        modules: what stands for which path instead; they are copied.

    Raises:
        ConfigError: the network takes several tensors.
    """
    if not network.takes_images:
        raise ConfigError(
            f"{network.name} takes several tensors, torch's runtimes measure networks that take one",
            hint="measure its ONNX files: --runtime cpu",
        )

    def opens(path: Path) -> tuple[nn.Module, tuple[int, ...]]:
        if modules is not None:
            return deep_copy(modules[path]).eval(), network.shape
        try:
            return shaped_to(network.model, load_file(path)).eval(), network.shape
        except (SafetensorError, OSError, PlanError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{path} holds no cut of {network.name}: {error}", hint="give the folder of a run of this network"
            ) from error

    return opens


def write_module(network: Network, path: Path, model: nn.Module | None = None, plan: Plan | None = None) -> Path:
    """The tensors of a network, or of a cut of it by a plan, in a file that :func:`module_opener` loads."""
    held = network.plan if plan is None else plan
    save(path, model or network.model, architecture=network.architecture, plan=held, preprocessing=network.preprocessing)
    return path


def pair_of(network: Network, run: Path, folder: Path) -> list[Path]:
    """A run's unpruned network, written to a folder, and its ``model.safetensors``.

    Raises:
        ConfigError: the run has none.
    """
    pruned = run / "model.safetensors"
    if not pruned.is_file():
        raise ConfigError(f"{pruned} is missing", hint="give the folder of a finished run")
    return [write_module(network, folder / "base.safetensors"), pruned]
