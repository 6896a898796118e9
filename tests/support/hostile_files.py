"""Small sound files of every kind that is read."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

from compress.networks.architecture import Architecture
from compress.networks.checkpoint import save


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4))


def samples(folder: Path) -> dict[str, bytes]:
    model = tiny()
    result = {}
    for name, kwargs in {"zip": {}, "old": {"_use_new_zipfile_serialization": False}}.items():
        buffer = io.BytesIO()
        torch.save({"state_dict": model.state_dict(), "epoch": 3}, buffer, **kwargs)
        result[name] = buffer.getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(model.eval()), buffer)
        result["script"] = buffer.getvalue()
    result["safetensors"] = safetensors_bytes(dict(model.state_dict()))
    save(folder / "own", model, architecture=Architecture("tiny"))
    result["own"] = (folder / "own").read_bytes()
    return result
