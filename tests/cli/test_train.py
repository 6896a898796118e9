"""``compress train``: from a name to a trained network, wider where it is to be squeezed back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compress_cli import progress
from compress_models import MODELS
from support.commands import compress, stopped_after_an_epoch, text

from compress.networks.checkpoint import load


def test_it_saves_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "wide.safetensors"
    result = compress("train", "digits_net", "--data", "digits", "--width", "1.25", "--epochs", "6", "--out", out, "--json")
    assert result.exit_code == 0, text(result)
    told = json.loads(result.stdout)
    loaded = load(out, zoo=MODELS)
    assert loaded.digest == told["digest"] and loaded.metadata["trained"]["accuracy"] == told["accuracy"]
    assert dict(loaded.architecture.kwargs) == {"num_classes": 10, "width": 1.25}
    assert loaded.model.stem[0].out_channels == 20 and loaded.preprocessing is not None
    assert float(told["accuracy"][1].split()[1]) > 80
    assert [p.name for p in tmp_path.iterdir()] == [out.name], "the training's state stays only while it is needed"
    again = compress("train", "digits_net", "--data", "digits", "--out", out)
    assert again.exit_code == 3 and "--fresh" in again.stderr


def test_it_goes_on_where_it_was_stopped_and_says_what_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    arguments = ["train", "digits_net", "--width", "1.5", "--data", "digits", "--epochs", "2", "--quiet", "--out"]
    ended = compress(*arguments, whole)
    assert ended.exit_code == 0 and "--method csgd --set options.squeeze=1.5" in " ".join(ended.stdout.split())
    with monkeypatch.context() as patch:
        patch.setattr(progress, "listening", stopped_after_an_epoch)
        assert compress(*arguments, broken).exit_code == 130
    assert not broken.exists()
    assert compress(*arguments, broken).exit_code == 0
    assert load(broken, zoo=MODELS).digest == load(whole, zoo=MODELS).digest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits_nett", "--data", "digits"], "digits_net"),
        (["digits_net"], "--data"),
        (["torchvision:resnet18", "--width", "2", "--data", "digits"], "takes no width"),
        (["digits_net", "--width", "0", "--data", "digits"], "--width 0"),
        (["digits_net", "--data", "digits", "--epochs", "-1"], "epochs"),
    ],
)
def test_mistakes_are_told(arguments: list[str], words: str, tmp_path: Path) -> None:
    ended = compress("train", *arguments, "--out", tmp_path / "x.safetensors")
    assert ended.exit_code in (2, 3) and words in " ".join(ended.stderr.split()), text(ended)
    assert not list(tmp_path.iterdir())
