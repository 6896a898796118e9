"""A training that several processes share: run by torchrun, or by hand with RANK and WORLD_SIZE.

``python -m support.trained_together FOLDER CASE [kill=EPOCH,STEP] [data=N]``; every rank writes its losses and weights.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES, BATCH, EPOCHS = 3, 16, 2


@dataclass(frozen=True)
class Patterns:
    """Noisy images of a class's pattern; the process that is to be killed ends itself at a batch."""

    count: int = 39
    killed: tuple[int, int] | None = None

    @property
    def digest(self) -> str:
        return f"patterns-{self.count}"

    def __len__(self) -> int:
        return self.count

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(1)
        labels = torch.arange(self.count) % CLASSES
        patterns = torch.randn(CLASSES, 2, 6, 6, generator=draw)
        images = patterns[labels] + torch.randn(self.count, 2, 6, 6, generator=draw)
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(shuffle_seed or 0))
        passes.append(0)
        for step, part in enumerate(order.split(batch_size)):
            if self.killed == (len(passes), step):
                os.kill(os.getpid(), signal.SIGKILL)
            yield images[part], labels[part]


passes: list[int] = []


class HalvesNorm(nn.BatchNorm2d):
    """What two processes make of a batch norm, in one: even and odd images are normalised separately."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        result, before = torch.empty_like(x), (self.running_mean.clone(), self.running_var.clone())
        after = []
        for half in (0, 1):
            mean, var = (t.clone() for t in before)
            result[half::2] = F.batch_norm(x[half::2], mean, var, self.weight, self.bias, True, self.momentum, self.eps)
            after.append((mean, var))
        self.running_mean.copy_((after[0][0] + after[1][0]) / 2)
        self.running_var.copy_((after[0][1] + after[1][1]) / 2)
        return result


class Branched(nn.Sequential):
    """A network with a parameter that no step uses."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.unused = nn.Parameter(torch.ones(3))


def network(case: str) -> nn.Module:
    torch.manual_seed(3)
    norm: type[nn.Module] = {"norms": nn.BatchNorm2d, "halves": HalvesNorm, "still": nn.BatchNorm2d}.get(case, nn.Identity)
    made = Branched(
        nn.Conv2d(2, 8, 3, padding=1),
        norm(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    if case == "still":
        made[1].requires_grad_(False)
    return made


def rewrite(case: str) -> Any:
    """C-SGD's, which makes neighbouring filters of the first layer equal."""
    from compress.recovery import GradientRewrite, Pull, Tied

    if case != "equal":
        return None
    owner = torch.arange(8) // 2
    pull = Pull((Tied("0.weight", 0, owner, torch.full((4,), 2.0), True),), 0.3)
    return GradientRewrite(pull, pull.identity)


def train(folder: Path, case: str, killed: tuple[int, int] | None, count: int) -> None:
    from safetensors.torch import save_file

    from compress.core import this_process
    from compress.recovery import EpochDone, Schedule, fit

    place = this_process()
    told: list[Any] = []
    schedule = Schedule(epochs=EPOCHS, lr=0.1, batch=BATCH, precision="fp32", sync_batch_norm=case == "synchronised")
    trained = fit(
        network(case if case != "synchronised" else "norms"),
        Patterns(count, killed if place.rank == place.world - 1 else None),
        schedule,
        teacher=network("taught"),
        state_dir=folder / "state",
        save_every=1,
        listen=told.append,
        rewrite=rewrite(case),
    )
    save_file({k: v.contiguous() for k, v in trained.state_dict().items()}, folder / f"{place.rank}.safetensors")
    seen = [(e.loss, e.accuracy) for e in told if isinstance(e, EpochDone)]
    (folder / f"{place.rank}.json").write_text(json.dumps(seen))


def main() -> int:
    folder, case, *more = sys.argv[1:]
    options = dict(text.partition("=")[::2] for text in more)
    os.environ["LOCAL_RANK"] = os.environ.get("LOCAL_RANK", os.environ.get("RANK", "-1"))
    from compress.errors import CompressError

    epoch, _, step = options.get("kill", "").partition(",")
    code = 0
    try:
        train(Path(folder), case, (int(epoch), int(step)) if epoch else None, int(options.get("data", 39)))
    except CompressError as error:
        print(f"rank {os.environ.get('RANK')}: {type(error).__name__}: {error}", file=sys.stderr)
        code = error.exit_code
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return code


if __name__ == "__main__":
    sys.exit(main())
