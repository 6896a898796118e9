from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compress_models import MODELS
from safetensors.torch import save_file
from support.covering import in_turns
from torch import Tensor, nn

from compress.core.plan import Cut, Plan
from compress.core.topology import GroupId
from compress.data import Preprocessing
from compress.errors import CheckpointError
from compress.networks.architecture import Architecture
from compress.networks.checkpoint import load, save, state_digest
from compress.networks.recognition import SIBLINGS
from compress.networks.tensor_file import file_state_digest
from compress.surgery.cutting import shaped_to

ZOO = {name: MODELS[name] for name in ("lenet", "digits_net", "resnet20")}  # few: recognition builds each of them


def trained(name: str = "digits_net", **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name](**kwargs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def narrow(model: nn.Module, width: int) -> dict[str, Tensor]:
    """The inner channels of the first residual block cut to the first ``width``, by hand."""
    state = dict(model.state_dict())
    for key in ("0.weight", *(f"1.{n}" for n in ("weight", "bias", "running_mean", "running_var"))):
        state[f"stage1.3.body.{key}"] = state[f"stage1.3.body.{key}"][:width].clone()
    state["stage1.3.body.3.weight"] = state["stage1.3.body.3.weight"][:, :width].clone()
    return state


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda s: s,
    "ordered": OrderedDict,
    "training": lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"lr": 0.1}},
    "data parallel": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "best_prec1": 91.7},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "both": lambda s: {"model": {f"module._orig_mod.{k}": v for k, v in s.items()}},
    "net": lambda s: {"net": s, "acc": 0.9},
    "lightning": lambda s: {
        "pytorch-lightning_version": "2.4",
        "state_dict": {f"model.{k}": v for k, v in s.items()} | {"loss.weight": torch.ones(3)},
    },
    "parameters": lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
    "only averaged": lambda s: {"state_dict_ema": s},
    "profiled": lambda s: s | {"stem.0.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_every_wrapping_is_the_same_network(kind: str, tmp_path: Path) -> None:
    model = trained()
    loaded = load(written(tmp_path / "m.pt", WRAPPED[kind](model.state_dict())), zoo=ZOO)
    assert loaded.architecture == Architecture("digits_net")
    assert loaded.digest == state_digest(model.state_dict())
    assert not loaded.model.training
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded.model(x), model(x))
    assert bool(loaded.warnings) == (kind in ("lightning", "only averaged", "profiled"))


def test_plain_weights_go_before_averaged_ones_and_it_is_said(tmp_path: Path) -> None:
    model = trained()
    zeros = {k: torch.zeros_like(v) for k, v in model.state_dict().items()}
    loaded = load(written(tmp_path / "m.pt", {"model_ema": zeros, "state_dict": model.state_dict()}), zoo=ZOO)
    assert loaded.digest == state_digest(model.state_dict())
    assert "'model_ema' were left" in loaded.warnings[0]


def test_the_old_file_format_and_safetensors_and_torchscript_hold_the_same(tmp_path: Path) -> None:
    model = trained()
    torch.save(model.state_dict(), tmp_path / "old.th", _use_new_zipfile_serialization=False)
    save_file(dict(model.state_dict()), tmp_path / "m.safetensors")
    script = tmp_path / "script.pt"
    traced = tmp_path / "traced.pt"
    _quietly(lambda: torch.jit.script(model).save(script))
    _quietly(lambda: torch.jit.trace(model, torch.randn(1, 1, 8, 8)).save(traced))
    for path in (tmp_path / "old.th", tmp_path / "m.safetensors", script, traced):
        assert load(path, zoo=ZOO).digest == state_digest(model.state_dict()), path.name


def _quietly(make: Callable[[], Any]) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def test_a_frozen_torchscript_file_is_explained(tmp_path: Path) -> None:
    model = trained()
    _quietly(lambda: torch.jit.freeze(torch.jit.script(model)).save(tmp_path / "f.pt"))
    with pytest.raises(CheckpointError, match="frozen"):
        load(tmp_path / "f.pt", zoo=ZOO)


def test_half_precision_becomes_float32_with_a_word(tmp_path: Path) -> None:
    model = trained().half()
    loaded = load(written(tmp_path / "m.pt", model.state_dict()), zoo=ZOO)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert "torch.float16 converted" in loaded.warnings[0]


@in_turns(["vgg14", "resnet20", "resnet20p", "mobilenetv2_cifar", "densenet40", "lenet", "digits_net"], of=2, turn=1)
def test_the_zoo_is_recognised_with_classes_and_channels(name: str, tmp_path: Path) -> None:
    kwargs = {"num_classes": 7, "in_channels": 2}
    path = written(tmp_path / "m.pt", MODELS[name](**kwargs).state_dict())
    assert load(path, zoo=MODELS).architecture == Architecture(name, kwargs)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "regnet_y_400mf", "mobilenet_v3_small"])
def test_torchvision_is_recognised(name: str, tmp_path: Path) -> None:
    from torchvision import models

    path = written(tmp_path / "m.pt", models.get_model(name, weights=None, num_classes=11).state_dict())
    loaded = load(path)
    assert loaded.architecture == Architecture(f"torchvision:{name}", {"num_classes": 11})
    assert not any(p.is_meta for p in (*loaded.model.parameters(), *loaded.model.buffers()))
    assert ("resnetblur18" in " ".join(loaded.warnings)) == (name == "resnet18")
    assert load(path, arch=name).warnings == ()


@pytest.mark.parametrize("name", SIBLINGS)
def test_siblings_really_have_the_same_tensors(name: str) -> None:
    timm = pytest.importorskip("timm")
    from torchvision import models

    def shapes(model: nn.Module) -> dict[str, Any]:
        return {k: v.shape for k, v in model.state_dict().items()}

    with torch.device("meta"):
        own = shapes(models.get_model(name, weights=None))
        for sibling in SIBLINGS[name]:
            assert shapes(timm.create_model(sibling)) == own


def test_the_nearest_network_and_the_first_difference_are_named(tmp_path: Path) -> None:
    state = dict(trained().state_dict())
    state["stage1.0.weight"] = torch.zeros(24, 16, 3, 3)
    with pytest.raises(CheckpointError) as caught:
        load(written(tmp_path / "m.pt", state), zoo=ZOO, arch="digits_net")
    assert "stage1.0.weight is (24, 16, 3, 3), digits_net has (32, 16, 3, 3)" in str(caught.value)
    del state["stage1.0.weight"]
    with pytest.raises(CheckpointError, match=r"nearest is digits_net.*stage1\.0\.weight is missing"):
        load(written(tmp_path / "m.pt", state), zoo=ZOO)


def test_an_architecture_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "m.pt", trained().state_dict())
    named = load(path, arch="compress_models.digits:digits_net")
    assert named.architecture.name == "compress_models.digits:digits_net"
    with pytest.raises(CheckpointError, match=r"did you mean.*resnet50"):
        load(path, arch="resnet5o", zoo=ZOO)
    with pytest.raises(CheckpointError, match="no_such_module"):
        load(path, arch="no_such_module:net")
    with pytest.raises(CheckpointError, match="cannot be built"):
        load(path, arch="math:pi.hex")


@pytest.mark.parametrize("name", ["timm:hf-hub:someone/something", "timm:/etc/passwd", "timm:local-dir:/tmp"])
def test_timm_never_fetches(name: str, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(CheckpointError, match="timm has no network"):
        load(written(tmp_path / "m.pt", trained().state_dict()), arch=name)


PLAN = Plan({GroupId("stage1.3.body.0"): Cut(tuple(range(24)))})


def test_a_pruned_network_comes_back_whole(tmp_path: Path) -> None:
    model = trained()
    small = shaped_to(model, narrow(model, 24)).eval()
    path = tmp_path / "model.safetensors"
    preprocessing = Preprocessing((0.5,), (0.25,), (8, 8))
    wrote = save(
        path, small, architecture=Architecture("digits_net"), plan=PLAN, preprocessing=preprocessing, metadata={"a": [1, "b"]}
    )
    loaded = load(path, zoo=ZOO)
    assert (loaded.plan, loaded.preprocessing, loaded.metadata) == (PLAN, preprocessing, {"a": [1, "b"]})
    assert loaded.digest == wrote == state_digest(small.state_dict())
    assert loaded.model.get_submodule("stage1.3.body.0").out_channels == 24
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded.model(x), small(x))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_selected_inputs_and_channel_tables_come_back(tmp_path: Path) -> None:
    model = trained("resnet20")
    state = dict(model.state_dict())
    state["layer2.1.conv1.weight"] = state["layer2.1.conv1.weight"][:, [0, 3, 5]].clone()
    state["layer2.1.conv1.reads"] = torch.tensor([0, 3, 5])
    state["layer2.0.shortcut.sources"] = torch.randperm(32, generator=torch.Generator().manual_seed(1)) % 17 - 1
    small = shaped_to(model, state).eval()
    save(tmp_path / "m.safetensors", small, architecture=Architecture("resnet20"))
    loaded = load(tmp_path / "m.safetensors", zoo=ZOO)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.model(x), small(x))
    assert not torch.allclose(small(x), model(x))


def test_the_digest_sees_names_types_shapes_and_every_value() -> None:
    state = {"a": torch.arange(6.0), "b": torch.tensor(1)}
    same = {"b": torch.tensor(1), "a": torch.arange(6.0)}
    assert state_digest(state) == state_digest(same)
    others = [
        {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1)},
        {"a": torch.arange(6.0), "c": torch.tensor(1)},
        {"a": torch.arange(6.0), "b": torch.tensor(1, dtype=torch.int32)},
        {"a": torch.nextafter(torch.arange(6.0), torch.tensor(9.0)), "b": torch.tensor(1)},
    ]
    assert len({state_digest(s) for s in (state, *others)}) == 5


def test_loading_leaves_the_random_generators_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "m.pt", trained().state_dict())
    before = torch.get_rng_state()
    load(path, zoo=ZOO)
    load(path, arch="compress_models.digits:digits_net")
    assert torch.equal(before, torch.get_rng_state())


def test_a_pickled_network_needs_trust(tmp_path: Path) -> None:
    model = trained()
    path = written(tmp_path / "m.pt", model)
    with pytest.raises(CheckpointError, match="run any code") as caught:
        load(path, zoo=ZOO)
    assert "--trust-pickle" in caught.value.hint
    loaded = load(path, zoo=ZOO, trust_pickle=True)
    assert loaded.architecture == Architecture("digits_net")
    assert loaded.digest == state_digest(model.state_dict())


def test_a_pickled_network_of_an_unknown_class_can_be_saved_and_named_later(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    loaded = load(written(tmp_path / "m.pt", model), trust_pickle=True)
    assert loaded.architecture.name == "pickled:torch.nn.modules.container.Sequential"
    save(tmp_path / "m.safetensors", loaded.model, architecture=loaded.architecture)
    with pytest.raises(CheckpointError, match="pickled") as caught:
        load(tmp_path / "m.safetensors")
    assert "--arch" in caught.value.hint
    again = load(tmp_path / "m.safetensors", arch="tests_factory:net", zoo={"tests_factory:net": lambda: model})
    assert again.digest == loaded.digest


BAD: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "nan": (lambda s: s | {"stem.0.weight": s["stem.0.weight"] * float("nan")}, r"stem\.0\.weight is not finite in 144 "),
    "inf": (lambda s: s | {"classifier.bias": s["classifier.bias"] / 0}, r"classifier\.bias is not finite in 10 "),
    "variance": (lambda s: s | {"stem.1.running_var": -torch.ones(16)}, "negative variance"),
    "integers": (lambda s: s | {"stem.0.weight": torch.ones(16, 1, 3, 3, dtype=torch.int8)}, "floating-point weights"),
    "no tensors": (lambda s: {"epoch": 3}, r"no tensors.*epoch"),
    "a list": (lambda s: [1, 2], "holds a list"),
    "nothing": (lambda s: {}, "no tensors"),
    "sparse": (lambda s: s | {"stem.0.weight": torch.ones(16, 9).to_sparse()}, "sparse"),
    "posing": (lambda s: s | {"stem.0.weight": torch.ones(1).expand(10**9, 1)}, "more than the file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_tensors_are_named(kind: str, tmp_path: Path) -> None:
    change, message = BAD[kind]
    with pytest.raises(CheckpointError, match=message) as caught:
        load(written(tmp_path / "m.pt", change(dict(trained().state_dict()))), zoo=ZOO)
    assert caught.value.hint


def test_bad_files_are_named(tmp_path: Path) -> None:
    cases: dict[str, tuple[bytes, str]] = {
        "empty.pt": (b"", "is empty"),
        "short.pt": (b"abc", "3 bytes"),
        "text.pt": (b"hello world, this is no network", "holds no weights"),
        "lfs.pt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "holds no weights"),
        "page.pt": (b"<!DOCTYPE html><html></html>", "holds no weights"),
        "image.pt": (b"\x89PNG\r\n\x1a\n" + bytes(30), "holds no weights"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=message) as caught:
            load(tmp_path / name)
        assert caught.value.hint, name
    with pytest.raises(CheckpointError, match="is a folder") as caught:
        load(tmp_path)
    assert ".pt" in caught.value.hint
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "nowhere.pt")


def test_nothing_is_left_where_nothing_can_be_written(tmp_path: Path) -> None:
    model, name = trained(), Architecture("digits_net")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path / "missing" / "m.safetensors", model, architecture=name)
    with pytest.raises(CheckpointError, match="no JSON"):
        save(tmp_path / "m.safetensors", model, architecture=name, metadata={"x": object()})
    with torch.no_grad():
        model.get_parameter("stem.0.weight")[0] = float("inf")
    with pytest.raises(CheckpointError, match="not finite"):
        save(tmp_path / "m.safetensors", model, architecture=name)
    assert not list(tmp_path.iterdir())


def test_a_file_may_be_read_by_whom_other_files_may(tmp_path: Path) -> None:
    save(tmp_path / "m.safetensors", trained(), architecture=Architecture("digits_net"))
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "m.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def header(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["compress"])


def rewritten(path: Path, model: nn.Module, **changes: Any) -> Path:
    """The file with other entries in its header."""
    plain = {k: v.clone() for k, v in model.state_dict().items()}
    save_file(plain, path, {"compress": json.dumps(header(path) | changes)})
    return path


HEADERS: list[tuple[dict[str, Any], str]] = [
    ({"format": 99}, "format 99"),
    ({"digest": "0" * 16}, "damaged"),
    ({"architecture": {"name": "os:system", "kwargs": {"command": "true"}}}, "would run its code"),
    ({"architecture": {"name": "torchvision:resnet18", "kwargs": {"weights": "DEFAULT"}}}, "not accepted"),
    ({"architecture": {"name": "digits_net", "kwargs": {"width": 1e30}}}, "not accepted"),
    ({"architecture": {"name": "digits_net", "kwargs": {"width": 900_000}}}, "not accepted"),
    ({"architecture": {"name": "digits_net", "kwargs": {"width": 4000}}}, "at most"),
    ({"architecture": {"name": "digits_net", "kwargs": {"colour": 3}}}, "cannot be built"),
    ({"architecture": {"name": "lenet", "kwargs": {}}}, "do not belong to"),
    ({"architecture": {"name": "digits_net", "kwargs": {"width": 0.25}}}, "has only"),
    ({"architecture": 3}, "description of an architecture"),
    ({"plan": {"cuts": 3}}, "pruning plan"),
    ({"preprocessing": {"mean": [0], "std": [0], "size": [8, 8]}}, "std"),
]


@pytest.mark.parametrize(("changes", "message"), HEADERS)
def test_a_strangers_header_is_not_believed(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = trained()
    path = tmp_path / "m.safetensors"
    save(path, model, architecture=Architecture("digits_net"))
    with pytest.raises(CheckpointError, match=message):
        load(rewritten(path, model, **changes), zoo=ZOO)


def test_a_files_digest_is_that_of_its_tensors(tmp_path: Path) -> None:
    """Read off the bytes, without torch; every type and shape, none and empty ones too."""
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    state = {f"{i}.weight": (torch.randn(3, i, 2) * 9).to(kind) for i, kind in enumerate(types)} | {"a": torch.tensor(3)}
    save_file(state, tmp_path / "x.safetensors", metadata={"note": "not a tensor"})
    assert file_state_digest(tmp_path / "x.safetensors") == state_digest(state)
    data = (tmp_path / "x.safetensors").read_bytes()
    for broken in (data[:7], data[:40], data[:-1], b"\xff" * 8 + data[8:], data[:8] + b"[" + data[9:]):
        (tmp_path / "y.safetensors").write_bytes(broken)
        with pytest.raises(CheckpointError, match="is damaged"):
            file_state_digest(tmp_path / "y.safetensors")
