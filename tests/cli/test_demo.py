"""The demonstration: a network that comes with the library, wherever it is installed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import compress_models
import pytest
from compress_cli import demo
from support.commands import DIGITS, compress

from compress.errors import ModelError


def test_the_network_is_found_in_a_checkout_and_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo.network_file() == DIGITS
    zoo = tmp_path / "compress_models"  # as pyproject.toml puts it into a wheel
    shutil.copytree(DIGITS.parent, zoo / "checkpoints")
    monkeypatch.setattr(compress_models, "__file__", str(zoo / "__init__.py"))
    assert demo.network_file() == zoo / demo.NETWORK
    (zoo / demo.NETWORK).unlink()
    with pytest.raises(ModelError, match="not whole"):
        demo.network_file()


@pytest.mark.slow
def test_the_demo_runs(tmp_path: Path) -> None:
    done = compress("demo", "--method", "uniform", "--out", tmp_path / "run", "--json")
    assert done.exit_code in (0, 6), done.stderr
    assert json.loads(done.stdout)["target"].startswith("macs") and (tmp_path / "run" / "model.onnx").exists()
