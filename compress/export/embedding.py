"""Pre-processing inside the graph: pixels as a camera gives them go in, probabilities come out.

What stays outside is decoding and resizing to the network's size: they depend on the picture, and a batch needs one size.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compress.data import Preprocessing
from compress.errors import ExportError, ParityError
from compress.export.canonical import canonicalise
from compress.export.exporting import beside
from compress.export.file_comparison import compare
from compress.export.interface import read_interface
from compress.export.parity import Parity, ParityVerdict
from compress.runtime import OrtRuntime, OrtSession, read_onnx

PIXELS, PROBABILITIES = "pixels", "probabilities"


class FromPixels(nn.Module):
    """What the file must compute: uint8 (n, h, w, c) to probabilities (n, classes), in torch."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.mean = torch.tensor(preprocessing.mean).view(-1, 1, 1) * 255
        self.std = torch.tensor(preprocessing.std).view(-1, 1, 1) * 255

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalises like the data's own splits."""
        images = pixels.permute(0, 3, 1, 2).float().sub(self.mean).div(self.std)
        logits: Tensor = self.network(images.contiguous())
        return logits.softmax(1)


class _File(nn.Module):
    """An ONNX file where a network is expected."""

    def __init__(self, session: OrtSession) -> None:
        super().__init__()
        self.session = session

    def forward(self, images: Tensor) -> Tensor:
        """The file's first output."""
        return torch.from_numpy(self.session.run(images.numpy())[0])


def pixels_of(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalised images (n, c, h, w) as the pixels they were, uint8 (n, h, w, c)."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return images.mul(std).add(mean).mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def embed(source: Path, target: Path, pixels: Tensor, *, network: nn.Module | None = None) -> Parity:
    """Writes a file with its pre-processing and a softmax inside, compared with the network, or none.

    Args:
        source: an ONNX file of ours: it says how its images are prepared.
        target: the final name.
        pixels: uint8 (n, h, w, c), real ones if there are any, to compare on.
        network: what the file was made from, in evaluation mode; without it, the comparison is with ``source`` itself.

    Raises:
        ExportError: the file does not say how its images are prepared, or gives no row of logits an image.
        ParityError: the new file computes something else.
    """
    preprocessing = embeddable(source)
    with beside(target) as folder:
        aside = folder / target.name
        model = read_onnx(source)
        _rewrite(model, preprocessing)
        facts = {**read_interface(source).metadata, "embedded": "preprocessing"}
        canonicalise(model, name=model.graph.name, metadata=facts)
        aside.write_bytes(model.SerializeToString(deterministic=True))
        opened = nullcontext() if network is not None else OrtRuntime(threads=None).load(source)
        with opened as session:
            plain = network if network is not None else _File(session).eval()  # type: ignore[arg-type]
            parity = compare(aside, FromPixels(plain, preprocessing).eval(), pixels)
        if parity.verdict is ParityVerdict.FAIL:
            raise ParityError(f"pre-processing inside: {parity.message}", hint="package it without --embed-preprocessing")
        aside.replace(target)
    return parity


def embeddable(source: Path) -> Preprocessing:
    """How a file's images are prepared, where that and a softmax can stand in its graph.

    Raises:
        ExportError: the file does not say it, has it inside already, or gives no row of logits an image.
    """
    interface = read_interface(source)
    if interface.embedded or interface.preprocessing is None:
        reason = "has its pre-processing inside already" if interface.embedded else "does not say how its images are prepared"
        raise ExportError(f"{source} {reason}", hint="take the run's model.onnx, or export it again: compress export")
    if not interface.names_classes:
        task = interface.metadata["task"].partition(":")[0]
        raise ExportError(
            f"{source} is of the task {task}, whose outputs are no logits of classes: a softmax would destroy them",
            hint="package it without --embed-preprocessing",
        )
    pictures = len(interface.inputs) == 1 and len(interface.inputs[0].dims) == 4 and len(interface.preprocessing.size) == 2
    if not pictures or len(interface.outputs[0].dims) != 2 or interface.inputs[0].kind != "FP32":
        raise ExportError(
            f"{source} is no classifier of images: {interface.inputs[0].kind} {list(interface.inputs[0].dims)} in, "
            f"{list(interface.outputs[0].dims)} out",
            hint="package it without --embed-preprocessing",
        )
    return interface.preprocessing


def _rewrite(model: onnx.ModelProto, preprocessing: Preprocessing) -> None:
    """Puts transpose, cast and normalisation before the network and a softmax behind it."""
    graph, shape = model.graph, (1, -1, 1, 1)
    entry, leaving = graph.input[0].name, graph.output[0].name
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    mean, std = (np.array(values, np.float32).reshape(shape) * 255 for values in (preprocessing.mean, preprocessing.std))
    graph.initializer.extend([numpy_helper.from_array(mean, "pixel_mean"), numpy_helper.from_array(std, "pixel_std")])
    before = [
        helper.make_node("Transpose", [PIXELS], ["pixels_planar"], perm=[0, 3, 1, 2], name="to_planes"),
        helper.make_node("Cast", ["pixels_planar"], ["pixels_float"], to=TensorProto.FLOAT, name="to_float"),
        helper.make_node("Sub", ["pixels_float", "pixel_mean"], ["pixels_centred"], name="subtract_mean"),
        helper.make_node("Div", ["pixels_centred", "pixel_std"], [entry], name="divide_by_deviation"),
    ]
    nodes = [*before, *graph.node, helper.make_node("Softmax", [leaving], [PROBABILITIES], axis=1, name="softmax")]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    sizes = [batch, *preprocessing.size, preprocessing.channels]
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, sizes))
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [batch, classes or None]))
