"""Networks by their source: a server, torchvision, timm and a hub, each as a stand-in on this machine."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from compress_cli.inputs import Inputs, stem
from compress_models import MODELS
from support.commands import DIGITS, compress
from support.hub_server import Hub, running_hub
from torch import nn

from compress.errors import CheckpointError, ConfigError
from compress.networks import load
from compress.networks.remote import is_remote


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server, and caches of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with running_hub() as found:
        yield found


def written(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


# ---- addresses -------------------------------------------------------------------------------------------------------


def test_an_address_is_its_file_and_is_asked_once(hub: Hub, tmp_path: Path) -> None:
    hub.files["digits.safetensors"] = DIGITS.read_bytes()
    wanted, address = load(DIGITS, zoo=MODELS), f"{hub.address}/files/digits.safetensors?download=1"
    for named in (address, address, DIGITS.as_uri()):
        found = load(named, zoo=MODELS)
        assert (found.digest, found.architecture, found.plan) == (wanted.digest, wanted.architecture, wanted.plan)
        assert found.metadata["source"] == named
    assert hub.asked == ["GET /files/digits.safetensors?download=1"]
    other = f"{hub.address}/files/digits.safetensors?download=2"
    hub.files["digits.safetensors"] = b"no network at all"
    with pytest.raises(CheckpointError, match="no weights"):
        load(other, zoo=MODELS)
    assert load(address, zoo=MODELS).digest == wanted.digest


def test_what_cannot_be_fetched_says_how_to_do_without(hub: Hub, tmp_path: Path) -> None:
    hub.files["short.pt"] = written({"w": torch.ones(3)})
    hub.short.add("short.pt")
    for address in (f"{hub.address}/files/none.pt", f"{hub.address}/files/short.pt", "http://127.0.0.1:1/x.pt", "http://[/x"):
        with pytest.raises(CheckpointError, match="cannot be fetched") as caught:
            load(address)
        assert address in caught.value.hint and "give the file" in caught.value.hint
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_nothing_that_is_fetched_is_executed(hub: Hub, tmp_path: Path) -> None:
    hub.files["trap.pt"] = written({"w": torch.ones(2), "x": Trap(tmp_path / "trapped")})
    for trust, said in ((False, "trap.pt"), (True, "nothing that is fetched is executed")):
        with pytest.raises(CheckpointError, match=said):
            load(f"{hub.address}/files/trap.pt", trust_pickle=trust)
    assert not (tmp_path / "trapped").exists()


# ---- libraries -------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_torchvision(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], nn.Module]:
    """Makes torchvision have a network of ours, whose weights lie on the server under a name that tells a digest."""
    from torchvision.models import _api
    from torchvision.transforms._presets import ImageClassification

    def add(file: str) -> nn.Module:
        class LocalWeights(_api.WeightsEnum):
            FIRST = _api.Weights(f"{hub.address}/files/{file}", partial(ImageClassification, crop_size=24, resize_size=28), {})
            DEFAULT = FIRST

        def lent_net(*, weights: LocalWeights | None = None, num_classes: int = 5, progress: bool = True) -> nn.Module:
            return MODELS["resnet20"](num_classes=num_classes)

        lent_net.__module__ = "torchvision.models.lent"
        lent_net.__annotations__["weights"] = LocalWeights
        monkeypatch.setitem(_api.BUILTIN_MODELS, "lent_net", lent_net)
        torch.manual_seed(0)
        model = lent_net()
        hub.files[file] = written(model.state_dict())
        return model

    return add


def test_a_network_of_torchvision_comes_with_its_weights_and_pixels(hub: Hub, in_torchvision: Any) -> None:
    model = in_torchvision("lent.pth")
    found = load("torchvision:lent_net")
    assert found.architecture.name == "torchvision:lent_net" and found.preprocessing is not None
    assert (found.preprocessing.size, found.preprocessing.resize) == ((24, 24), 28)
    x = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(found.model(x), model.eval()(x))
    hub.files.clear()
    assert load("torchvision:lent_net").digest == found.digest  # torch's own cache


def test_weights_that_are_not_what_their_name_tells_are_refused(in_torchvision: Any) -> None:
    in_torchvision("lent-01234567.pth")
    with pytest.raises(CheckpointError, match="01234567 was wanted"):
        load("torchvision:lent_net")


def test_a_name_that_a_library_has_not_is_told() -> None:
    for source, meant in (("torchvision:resnet5O", "'resnet50'"), ("timm:resnet18.a1_in1", "'resnet18.a1_in1k'")):
        with pytest.raises(CheckpointError) as caught:
            load(source)
        assert meant in caught.value.hint
    with pytest.raises(CheckpointError, match="no repository"):
        load("hf-hub:just-a-name")


def made_of(source: str) -> Any:
    """What becomes of a source: name, pixels and digest, or what is said."""
    try:
        found = load(source, zoo=MODELS)
    except CheckpointError as error:
        return f"{error.message} {error.hint}"
    return found.architecture.name, found.preprocessing, found.digest


def test_a_hub_s_networks_come_with_what_their_repository_says(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    from safetensors.torch import save

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=7)
    about = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.2] * 3, "crop_pct": 0.9, "interpolation": "bicubic"}
    tensors = save(model.state_dict())
    config = {"architecture": "test_resnet", "pretrained_cfg": about}
    hub.repositories = {
        "me/net": {"model.safetensors": tensors, "config.json": json.dumps(config).encode()},
        "timm/test_resnet.r160_in1k": {"model.safetensors": save(timm.create_model("test_resnet").state_dict())},
        "me/odd": {
            "model.safetensors": tensors,
            "config.json": json.dumps({**config, "pretrained_cfg": {"mean": "x"}}).encode(),
        },
        "me/evil": {"model.safetensors": tensors, "config.json": b'{"architecture": "os:system"}'},
        "me/old": {"pytorch_model.bin": written(Trap(tmp_path / "trapped"))},
        "me/none": {"README.md": b""},
        "me/ours": {"model.safetensors": DIGITS.read_bytes(), "config.json": b'{"architecture": "test_resnet"}'},
    }
    found = {name: made_of(f"hf-hub:{name}") for name in (*hub.repositories, "me/nothing")}
    name, shown, digest = found["me/net"]
    assert name == "timm:test_resnet" and (shown.size, shown.resize, shown.std) == ((64, 64), 71, (0.2,) * 3)
    assert found["me/odd"] == (name, None, digest)
    assert "timm has no network 'os:system'" in found["me/evil"]
    assert "--trust-pickle" in found["me/old"] and not (tmp_path / "trapped").exists()
    assert "neither model.safetensors nor" in found["me/none"] and "me/nothing" in found["me/nothing"]
    assert found["me/ours"] == made_of(str(DIGITS))
    by_name = made_of("timm:test_resnet")
    assert by_name[0] == name and by_name[1].size == (160, 160)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert made_of("hf-hub:me/net") == found["me/net"] and "hf download me/new" in made_of("hf-hub:me/new")


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("torchvision:resnet50", "resnet50"),
        ("timm:resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("hf-hub:me/net@v2", "net"),
        ("https://host/a%20b/net.v1.pt?x=1", "net.v1"),
        ("net.v1.pt", "net.v1"),
    ],
)
def test_a_run_is_called_after_its_network(source: str, name: str) -> None:
    assert stem(source) == name and is_remote(source) == (":" in source)


def test_a_file_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("timm:mine").write_bytes(DIGITS.read_bytes())
    assert not is_remote("timm:mine") and not is_remote(Path("timm:other"))
    assert load("timm:mine", zoo=MODELS).digest == load(DIGITS, zoo=MODELS).digest


def test_what_a_folder_names_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.files["digits.safetensors"] = DIGITS.read_bytes()
    address = f"{hub.address}/files/digits.safetensors"
    seen = compress("inspect", address, "--size", "8")
    assert seen.exit_code == 0 and len(hub.asked) == 1
    (tmp_path / "run").mkdir()
    Inputs(address).remember(tmp_path / "run")
    with pytest.raises(ConfigError, match="is not fetched") as caught:
        Inputs.of(tmp_path / "run")
    assert address in caught.value.hint and Inputs.of(tmp_path / "run", Inputs(address)).model == address
    assert len(hub.asked) == 1
