"""ModelOpt's FastNAS as an arm of ``equal_latency.py``: its search as it is, its network as a plan of ours.

FastNAS (``nvidia-modelopt``, which needs ``pulp``, ``omegaconf``, ``regex``, ``requests``, ``huggingface_hub`` and
``torchprofile==0.0.4``) scores every layer at every width alone, batch norms calibrated, and takes for all layers the narrowest
widths below one loss that fit a share of the FLOPs. The filters that stay are those with the largest weights. Widths in steps
of 8 instead of its own 32, in its favour: networks for 32-pixel images have layers of 16. What it cannot convert, such as the
streams of zero-padded shortcuts, stays.

Only the search needs ModelOpt. What it found is read off its network: a batch norm says which channels stayed.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.core import Cut, Plan, Topology
from compress.errors import ModelError

STEP = 8
"""Of the widths."""


def there() -> bool:
    """Whether ModelOpt is installed."""
    return importlib.util.find_spec("modelopt") is not None


def plan_at(
    model: nn.Module,
    topology: Topology,
    share: float,
    *,
    images: Sequence[Tensor],
    score: Callable[[nn.Module], float],
    kept: Path,
) -> Plan:
    """What FastNAS takes at a share of the FLOPs.

    Args:
        model: unpruned, left as it is.
        topology: its.
        share: of the FLOPs that may stay.
        images: batches that its batch norms are calibrated on before each score.
        score: what a network is worth, more is better.
        kept: a file for the scores of single layers, which are the same for every share.

    Raises:
        ModelError: so few FLOPs cannot be reached.
    """
    if not there():
        sys.exit(
            "ModelOpt's FastNAS looks for its network with nvidia-modelopt, which is not installed: "
            "pip install --no-deps nvidia-modelopt pulp omegaconf regex requests huggingface_hub torchprofile==0.0.4 "
            "into a folder of its own that PYTHONPATH names last, or choose other --arms"
        )
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        import modelopt.torch.prune as mtp

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        steps = tuple(0.05 * number for number in range(1, 21))
        rules = {
            "nn.Conv2d": {"*": {"channels_ratio": steps, "kernel_size": (), "channel_divisor": STEP}},
            "nn.BatchNorm2d": {"*": {"features_ratio": steps, "feature_divisor": STEP}},
            "nn.Linear": {"*": {"features_ratio": steps, "feature_divisor": STEP}},
        }
        how = {
            "score_func": score,
            "data_loader": [batch.to(device) for batch in images],
            "collect_func": lambda batch: batch,
            "checkpoint": str(kept),
            "verbose": False,
        }
        try:
            small, _ = mtp.prune(
                model=copy.deepcopy(model).to(device).eval(),
                mode=[("fastnas", rules)],
                constraints={"flops": f"{100 * share:.3f}%"},
                dummy_input=images[0][:1].to(device),
                config=how,
            )
        except ValueError as error:
            if "NOT all constraints can be satisfied" not in str(error):
                raise
            raise ModelError(f"FastNAS cannot reach {share:g} of the FLOPs") from error
    return plan_of(model, small, topology)


def plan_of(model: nn.Module, small: nn.Module, topology: Topology) -> Plan:
    """Which channels a narrower copy of a network kept, by the weights of its batch norms; their order does not matter.

    Raises:
        ModelError: two channels cannot be told apart, or one of them is not the network's.
    """
    norms = {name: m for name, m in small.named_modules() if isinstance(m, _BatchNorm)}
    whole = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    cuts = {}
    for group in topology.groups:
        names = [member.key.removesuffix(".weight") for member in group.members]
        norm = next((name for name in names if name in norms and norms[name].num_features < whole[name].num_features), None)
        if norm is None:
            continue
        channels = {marks: channel for channel, marks in enumerate(_marks(whole[norm]))}
        found = [channels.get(marks) for marks in _marks(norms[norm])]
        if len(channels) < group.size or None in found:
            raise ModelError(f"the channels of {norm} cannot be told apart by its weights and biases")
        cuts[group.id] = Cut(tuple(sorted(c for c in found if c is not None)))
    return Plan(cuts)


def _marks(norm: _BatchNorm) -> list[tuple[float, float]]:
    return list(zip(norm.weight.tolist(), norm.bias.tolist(), strict=True))
