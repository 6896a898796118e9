"""Settings that all tests share."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile

# Before torch is imported: two workers with two threads each on two cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What runs share between them is that of these tests: nothing of the machine's own, and nothing is left there.
os.environ["COMPRESS_CACHE"] = tempfile.mkdtemp(prefix="compress-cache-")

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer.testing
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    from compress.data import Data
    from compress.networks.network import Network

_ALWAYS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=6, derandomize=True, **_ALWAYS)  # the same draws everywhere
settings.register_profile("slow", max_examples=30, **_ALWAYS)
settings.register_profile("thorough", max_examples=400, **_ALWAYS)
settings.register_profile("unshrunk", max_examples=6, derandomize=True, phases=(Phase.explicit, Phase.generate), **_ALWAYS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Typer builds every command of an app anew for each call of a test: nine tenths of what a refused call costs.
typer.testing._get_command = cache(typer.testing._get_command)


def pytest_sessionfinish() -> None:
    shutil.rmtree(os.environ["COMPRESS_CACHE"], ignore_errors=True)


def pytest_collection_finish() -> None:
    """What importing torch and the tests has made stays to the end: collecting garbage need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    gc.get_freeze_count = cache(gc.get_freeze_count)  # counting a million takes 0.1 s, and every trace asks


@pytest.fixture(scope="module")
def digits() -> tuple[Network, Data]:
    """The reference network and its images."""
    from compress_models import MODELS

    from compress.data import open_data
    from compress.networks import checkpoint
    from compress.networks.network import network_from

    file = Path(__file__).parent.parent / "models" / "checkpoints" / "digits-net.safetensors"
    network = network_from(checkpoint.load(file, zoo=MODELS))
    return network, open_data("digits", preprocessing=network.preprocessing, num_classes=10)


@pytest.fixture(scope="module")
def unlabelled(digits: tuple[Network, Data]) -> Data:
    """The same images, nothing known about them."""
    from dataclasses import replace

    from compress.data import Split

    data = digits[1]
    blind = {s.name: Split(s.name, s._images, s.indices, -abs(s.labels) - 1, s.preprocessing) for s in data.splits}
    return replace(data, **blind)
