"""Getting accuracy back after a cut, without training."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.errors import DataError


def tracked_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Name -> batch norm whose running statistics are there and may move (``momentum`` 0 pins them)."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.momentum != 0
    }


def reestimate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy whose batch-norm running statistics are those of the network as it is now, not as it was.

    After a cut every layer sees other inputs than those it was trained on. One pass over calibration images, in which
    each batch norm normalises by its batch and all else is in eval mode, replaces mean and variance by the exact average
    over the batches, weighted by their images (EagleEye's adaptive batch norm: Li, Wu, Su, Wang, ECCV 2020).

    Batch norms that keep no statistics, have ``momentum`` 0 or are not reached stay as they are; a network without any
    comes back unchanged, and nothing is read from ``batches``.

    Args:
        model: the network; it is left as it is.
        batches: normalised images, shape (n, c, h, w); labels are not needed. A few hundred images will do.

    Raises:
        DataError: there is no image, or a batch too small to have a variance.
    """
    result = copy.deepcopy(model)
    norms = tracked_norms(result)
    if not norms:
        return result
    modes = {module: module.training for module in result.modules()}
    momenta = {norm: norm.momentum for norm in norms.values()}
    images_seen = dict.fromkeys(norms.values(), 0)

    def average(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        # Counted per call, not per batch: a layer may be called twice.
        assert isinstance(norm, _BatchNorm)
        images_seen[norm] += len(args[0])
        norm.momentum = len(args[0]) / images_seen[norm]

    hooks = [norm.register_forward_pre_hook(average) for norm in norms.values()]
    device = next(iter(norms.values())).running_mean.device  # type: ignore[union-attr]
    result.eval()
    for norm in norms.values():
        norm.train()
    total = 0
    try:
        with torch.no_grad():
            for batch in batches:
                result(batch.to(device))
                total += len(batch)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataError(
            "a calibration batch of 1 image has no variance, at least 2 are needed", hint="use a larger calibration batch"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if total == 0:
        raise DataError("no image to re-estimate the batch norms on, at least 2 are needed", hint="give calibration images")
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    for module, training in modes.items():
        module.training = training
    return result
