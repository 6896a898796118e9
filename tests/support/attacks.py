"""Files that somebody made on purpose: pickles that run code or never end, bombs, tensors that lie about their size."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from support import layouts

TRAP = "/tmp/compress-trap"
"""Nothing makes it: that is what is tested."""


def attacks(own: bytes) -> Mapping[str, bytes]:
    """Checkpoints by name; none may be read, except where the name begins with ``fine``.

    Args:
        own: a checkpoint that compress saved, whose header is rewritten.
    """
    return {**_code(), **_endless(), **_nested(), **_liars(), **_old(), **_headers(), **_own(own)}


# ---- pickles, by hand -------------------------------------------------------------------------------------------------


def archive(content: bytes, storages: Mapping[str, bytes] | None = None, *, script: bool = False) -> bytes:
    """A file of torch.save (or torch.jit.save) around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("m/data.pkl", content)
        file.writestr("m/byteorder", "little")
        file.writestr("m/version", "3\n")
        for key, data in ({"0": bytes(144)} if storages is None else storages).items():
            file.writestr(f"m/data/{key}", data)
        if script:
            file.writestr("m/code/__torch__.py", "class M: pass")
    return buffer.getvalue()


def old(content: bytes, keys: list[str] | None = None, tail: bytes | None = None) -> bytes:
    """A file of torch.save from before it wrote archives."""
    head = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    tail = struct.pack("<q", 36) + bytes(144) if tail is None else tail
    return b"".join([*head, content, pickle.dumps(["0"] if keys is None else keys, 2), tail])


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(value: int) -> bytes:
    if 0 <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    encoded = pickle.encode_long(value)  # type: ignore[attr-defined]
    return b"\x8a" + bytes([len(encoded)]) + encoded


def group(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def storage(count: int = 36, kind: str = "FloatStorage", key: str = "0", view: bytes = b"") -> bytes:
    return group(text("storage"), name("torch", kind), text(key), text("cpu"), whole(count), view) + b"Q"


def tensor(
    size: tuple[int, ...] = (4, 1, 3, 3), stride: tuple[int, ...] = (9, 9, 3, 1), offset: int = 0, held: bytes | None = None
) -> bytes:
    hooks = name("collections", "OrderedDict") + b")R"
    shape = group(*map(whole, size)), group(*map(whole, stride))
    return name("torch._utils", "_rebuild_tensor_v2") + group(held or storage(), whole(offset), *shape, b"\x89", hooks) + b"R"


def entries(**tensors: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(text(k) + v for k, v in tensors.items()) + b"u."


def laughs(levels: int = 60) -> bytes:
    """A tuple of pairs of pairs, two to the power of ``levels`` of them, in six bytes a level."""
    out = b"()q\x00"
    for i in range(levels):
        out += b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
    return out + b"t"


MODULE = name("__torch__", "M") + b")\x81"


def module(attributes: bytes) -> bytes:
    return b"\x80\x02" + MODULE + b"}(" + attributes + b"ub."


def _code() -> dict[str, bytes]:
    """Every way for a pickle to call something, in every kind of file."""
    shell = f"S'touch {TRAP}'\n".encode()
    routes = {
        "reduce": b"cos\nsystem\n(" + shell + b"tR.",
        "inst": b"(" + shell + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + shell + b"o.",
        "stack global": b"\x8c\x02os\x8c\x06system\x93(" + shell + b"tR.",
        "extension": b"\x82\x01.",
        "new with keywords": b"csubprocess\nPopen\n)}\x92.",
        "build": b"cbuiltins\nexec\n(S'import os'\ntRb.",
        "attribute": b"cbuiltins\ngetattr\n(ctorch\nTensor\nS'__class__'\ntR.",
        "hub": b"ctorch.hub\nload\n(S'a/b'\nS'c'\ntR.",
        "script": b"ctorch.jit._serialization\nload\n(S'x'\ntR.",
        "nested load": b"ctorch.storage\n_load_from_bytes\n(C\x01ntR.",
        "dotted": b"\x8c\x05torch\x8c\x0dhub.os.system\x93(" + shell + b"tR.",
        "through torch": b"ctorch\nos.system\n(" + shell + b"tR.",
        "codec": name("_codecs", "encode") + group(text("x"), text("evil")) + b"R.",
        "storage called": name("torch", "FloatStorage") + group(whole(10**9)) + b"R.",
        "allocation": name("torch", "FloatTensor") + group(whole(10**9)) + b"R.",
        "a function changed": name("torch._utils", "_rebuild_tensor_v2") + b"N}" + text("__code__") + b"Ns\x86b.",
        "persistent module": group(text("module"), name("os", "system"), text("x"), text("y")) + b"Q.",
    }
    found = {}
    for route, body in routes.items():
        body = b"\x80\x04" + body
        kinds = {"archive": archive(body), "old": old(body), "script": archive(body, script=True), "bare": body}
        found |= {f"{route}, {kind}": data for kind, data in kinds.items()}
    found["a file within"] = archive(archive(routes["reduce"]))
    found["a second pickle"] = archive(entries(a=tensor()), {"0": bytes(144), "0.pkl": routes["reduce"]})
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for member, data in {"sys_info": b"", "pickle": routes["reduce"], "storages": b"", "tensors": b""}.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    found["tar"] = tar.getvalue()
    return found


def _endless() -> dict[str, bytes]:
    """Few bytes, much work."""
    numbers = b"".join(whole(i * (2**61 - 1)) + b"N" for i in range(1, 60_000))  # all hash to 0
    fan = b"\x80\x02" + MODULE + b"}bq\x000"
    for i in range(60):
        fan += MODULE + b"}(" + text("a") + b"h" + bytes([i]) + text("b") + b"h" + bytes([i]) + b"ubq" + bytes([i + 1]) + b"0"
    fan += b"h" + bytes([60]) + b"."
    circle = b"\x80\x02" + MODULE + b"q\x00}(" + text("a") + b"h\x00" + text("b") + b"h\x00ub."
    found = {
        "key of tuples": archive(b"\x80\x02}(" + laughs() + tensor() + b"u."),
        "set of tuples": archive(b"\x80\x04}(" + text("a") + tensor() + text("x") + b"\x8f(" + laughs() + b"\x90u."),
        "value of tuples": archive(b"\x80\x02}(" + text("a") + tensor() + text("x") + laughs() + b"u."),
        "size of tuples": archive(entries(a=tensor((1,)).replace(group(whole(1)), laughs(), 1))),
        "colliding keys": archive(b"\x80\x02}(" + numbers + b"u."),
        "key of tuples, old": old(b"\x80\x02}(" + laughs() + tensor() + b"u."),
        "key of tuples, script": archive(module(laughs() + tensor()), script=True),
        "modules in a circle": archive(circle, script=True),
        "modules in a fan": archive(fan, script=True),
        "deep lists": archive(b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."),
        "deep dictionaries": archive(b"\x80\x02" + (b"}" + text("model")) * 5000 + b"}" + b"s" * 5000 + b"."),
        "a circle": archive(b"\x80\x02}q\x00(" + text("state_dict") + b"h\x00u."),
        "no end": archive(b"\x80\x02" + b"]" * 1000),
        "a huge memo": archive(b"\x80\x02Nr\xff\xff\xff\x7f."),
        "a huge frame": archive(b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"."),
        "huge bytes": archive(b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"."),
        "a long number": archive(b"\x80\x02L" + b"9" * 500_000 + b"L\n."),
    }
    return found


def _nested() -> dict[str, bytes]:
    """State_dicts in more places, and under more prefixes, than a network could be looked for in."""

    def dictionary(**entries: bytes) -> bytes:
        return b"}(" + b"".join(text(k) + v for k, v in entries.items()) + b"u"

    fan = dictionary(a=tensor()) + b"q\x00"
    for i in range(40):
        fan = b"}(" + text("model") + fan + text("ema") + b"h" + bytes([i]) + b"uq" + bytes([i + 1])
    many = {f"part{i}": dictionary(a=tensor()) for i in range(3000)}
    return {
        "a circle through a list": archive(b"\x80\x02}q\x00(" + text("models") + b"](h\x00e" + text("a") + tensor() + b"u."),
        "a fan of dictionaries": archive(b"\x80\x02" + fan + b"."),
        "thousands of entries": archive(b"\x80\x02" + dictionary(**many) + b"."),
        "thousands of prefixes": archive(entries(**{f"p{i}.q{i}.r{i}.w": tensor() for i in range(3000)})),
        "endless prefixes": archive(entries(**{"a." * 2000 + "w": tensor(), "a." * 2000 + "b": tensor()})),
        "averages of averages": archive(entries(**{"ema." * 200 + "w": tensor(), "ema_w": tensor(), "ema_ema_w": tensor()})),
        "only dots": archive(entries(**{".": tensor(), "..": tensor(), "...": tensor(), "": tensor()})),
        "an average of nothing": archive(entries(n_averaged=tensor(), module=tensor())),
    }


def _liars() -> dict[str, bytes]:
    """Tensors of another size than their bytes."""
    peta = 2**50
    found = {
        "more than its storage": archive(entries(a=tensor()), {"0": bytes(16)}),
        "a mebibyte of nothing": archive(entries(a=tensor((2**18,), (1,), held=storage(2**18))), {"0": bytes(16)}),
        "petabytes": archive(entries(a=tensor((peta,), (1,), held=storage(peta))), {"0": bytes(16)}),
        "negative size": archive(entries(a=tensor((-4, 1, 3, 3)))),
        "negative stride": archive(entries(a=tensor(stride=(-9, 9, 3, 1)))),
        "offset beyond": archive(entries(a=tensor(offset=10))),
        "negative offset": archive(entries(a=tensor(offset=-1))),
        "no stride": archive(entries(a=tensor((2**40,), (0,)))),
        "huge strides": archive(entries(a=tensor(stride=(2**62, 2**62, 2**62, 1)))),
        "no storage": archive(entries(a=tensor()), {}),
        "no number": archive(entries(a=tensor().replace(whole(36), b"N"))),
        "many of one": archive(
            b"\x80\x02}(" + text("a") + tensor((256, 1024), (1024, 1), held=storage(2**18)) + b"q\x05"
            + b"".join(text(f"t{i}") + b"h\x05" for i in range(2000)) + b"u.",
            {"0": bytes(2**20)},
        ),
    }  # fmt: skip
    for kind in ("qtensor", "sparse_tensor", "wrapper_subclass", "meta_tensor_no_storage", "nested_tensor"):
        claim = group(name("torch", "float32"), group(whole(2**45)), group(whole(1)), b"\x89")
        found[f"rebuilt {kind}"] = archive(entries(a=name("torch._utils", f"_rebuild_{kind}") + claim + b"R"))
    return found


def _old() -> dict[str, bytes]:
    big = tensor((10**9,), (1,), held=storage(10**9))
    view = group(text("v"), whole(30), whole(100_000))
    return {
        "old, never filled": old(entries(a=tensor()), [], b""),
        "old, gigabytes": old(entries(a=big), tail=struct.pack("<q", 10**9) + bytes(144)),
        "old, negative": old(entries(a=tensor(held=storage(-36)))),
        "old, view beyond": old(entries(a=tensor((4,), (1,), held=storage(view=view)))),
        "old, ends early": old(entries(a=tensor()))[:-50],
    }


# ---- safetensors and our own ------------------------------------------------------------------------------------------


def safetensors(header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(said) if length is None else length) + said + data


def _headers() -> dict[str, bytes]:
    def one(shape: list[int], end: int, dtype: str = "F32") -> dict[str, Any]:
        return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}

    found = {
        "header of gigabytes": safetensors(one([36], 144), bytes(144), 2**62),
        "header beyond the file": safetensors(one([36], 144), bytes(144), 10**6),
        "shape of petabytes": safetensors(one([2**31, 2**31, 2**31], 144), bytes(144)),
        "nothing of much": safetensors(one([0, 2**62], 0)),
        "deep header": safetensors(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
        "twice": safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 2 + b"}", bytes(4)),
        "deep metadata": safetensors({"__metadata__": {"compress": "[" * 100_000}, **one([36], 144)}, bytes(144)),
    }
    for dtype in ("BOOL", "U8", "I64", "U64", "F8_E5M2", "F4", "C64", "Q4"):
        found[f"type {dtype}"] = safetensors(one([4, 1, 3, 3], 144, dtype), bytes(144))
    return found


ODD: tuple[Any, ...] = (None, 1, -1, 1e400, float("nan"), "", "x" * 10_000, [], {}, [[]], {"a": 1}, True)


def _own(own: bytes) -> dict[str, bytes]:
    """A checkpoint of ours with another header; its tensors and their digest are right."""
    length = struct.unpack("<Q", own[:8])[0]
    header = json.loads(own[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["compress"])

    def changed(**parts: Any) -> bytes:
        told = {**header, "__metadata__": {"compress": json.dumps({**inner, **parts})}}
        return safetensors(told, own[8 + length :])

    fine = {"metadata": ODD, "preprocessing": (None,), "format": (1, True)}
    found = {}
    for part in ("format", "architecture", "plan", "preprocessing", "digest", "metadata"):
        for i, odd in enumerate(ODD):
            mark = "fine, " if any(odd is x for x in fine.get(part, ())) else ""
            found[f"{mark}own {part} {i}"] = changed(**{part: odd})
    names = (
        "torchvision: torchvision:../../x timm: timm:hf-hub:a/b timm:local-dir:/tmp os:system os:path.join pickled:x".split()
    )
    names += ["a b", "\0", "torchvision:vit_b_16", "torchvision:resnet50", "../tiny"]
    arguments: tuple[tuple[str, dict[str, Any]], ...] = (
        ("torchvision:resnet50", {"width_per_group": 4000}),
        ("torchvision:resnet50", {"num_classes": 10**6}),
        ("torchvision:resnet50", {"weights": "DEFAULT"}),
        ("torchvision:densenet121", {"growth_rate": 10**6}),
        ("torchvision:mobilenet_v2", {"width_mult": 4000}),
        ("resnet20", {"width": 1e6}),
        ("resnet20", {"width": 4000}),
        ("resnet20", {"width": -1}),
        ("lenet", {"size": 4000}),
        ("timm:vit_tiny_patch16_224", {"depth": 4000}),
        ("timm:efficientnet_b0", {"depth_multiplier": 4000}),
        ("timm:resnet50", {"checkpoint_path": "/etc/passwd"}),
        ("timm:vit_tiny_patch16_224", {"img_size": 4000}),
    )
    for wanted, kwargs in (*((n, {}) for n in names), *arguments):
        found[f"own {wanted!r} {kwargs}"] = changed(architecture={"name": wanted, "kwargs": kwargs})
    found["own plan of another network"] = changed(plan={"cuts": {"conv1": {"keep": [0, 99]}}})
    return found


# ---- images -----------------------------------------------------------------------------------------------------------


def png(width: int, height: int, *, extra: bytes = b"") -> bytes:
    """Black and white, and all black: some 8,000 pixels a byte."""
    squeeze = zlib.compressobj(9)
    row = b"\0" + bytes((width + 7) // 8)
    data = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    size = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def picture(format: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format, **options)
    return buffer.getvalue()


def _tiff_of(image: Image.Image, tags: Mapping[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    data = buffer.getvalue()
    for tag, value in (tags or {}).items():
        entry = data.index(struct.pack("<HHI", tag, 3, 1), 4)
        data = data[: entry + 8] + struct.pack("<H", value) + data[entry + 10 :]
    return data


def pictures() -> Mapping[str, bytes]:
    """Images by name; each is shown or left out, at once."""
    frames = {"save_all": True, "append_images": [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(50)]}
    packed = zlib.compress(bytes(50_000_000), 9)
    found = {
        "one pixel": png(1, 1),
        "one row": png(65_500, 1),
        "a row of millions": png(20_000_000, 1),
        "one column": png(1, 1_000_000),
        "a bomb": png(8900, 8900),
        "a bomb in its text": png(8, 8, extra=_chunk(b"zTXt", b"a\0\0" + packed)),
        "a bomb in its profile": png(8, 8, extra=_chunk(b"iCCP", b"a\0\0" + packed)),
        "ends early": picture("JPEG", size=(300, 300))[:400],
        "animated gif": picture("GIF", **frames),
        "animated webp": picture("WEBP", **frames),
        "cmyk": picture("JPEG", "CMYK"),
        "nothing": b"",
        "ppm without pixels": b"P6\n8 8\n255\n",
        "ppm of negative size": b"P6\n-8 8\n255\n" + bytes(192),
        "ppm of absurd size": b"P6\n9999999 9999999\n255\n",
        "a drawing": b"<svg/>",
        "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }
    for name, pixels in {
        "infinite floats": np.full((8, 8), np.inf, np.float32),
        "no numbers": np.full((8, 8), np.nan, np.float32),
        "floats of 255": np.full((8, 8), 255, np.float32),
        "integers of 32 bits": np.full((8, 8), 2**31 - 1, np.int32),
        "negative integers": np.full((8, 8), -5, np.int32),
    }.items():
        found[name] = _tiff_of(Image.fromarray(pixels))
    exif = Image.Exif()
    exif[274] = 77
    found["an orientation that is none"] = picture("JPEG", exif=exif)
    found["damaged exif"] = picture("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    found["bits that are not there"] = _tiff_of(Image.new("I;16", (8, 8)), {258: 64})
    for mode in ("I;16", "LA", "P", "1", "RGBA"):
        found[f"mode {mode}"] = picture("PNG", mode)
    for mode in ("F", "I", "CMYK", "LAB"):
        found[f"mode {mode}, tiff"] = picture("TIFF", mode)
    return found


def image_zip(path: Path, odd: bytes, count: int = 3) -> Path:
    """Thirty images of two classes, some of them odd."""
    good = picture()
    with zipfile.ZipFile(path, "w") as file:
        for i in range(30):
            file.writestr(f"{'ab'[i % 2]}/{i}.png", odd if i < count else good)
    return path


# ---- annotations ------------------------------------------------------------------------------------------------------


def annotations() -> Mapping[str, Mapping[str, bytes]]:
    """Trees of images with annotations by name; each is refused at once, except where the name begins with ``fine``."""
    found = {f"voc, {name}": {**_VOC, "d/Annotations/000.xml": data} for name, data in _xmls().items()}
    found |= {f"coco, {name}": {**_COCO, "d/annotations/instances_all.json": data} for name, data in _jsons().items()}
    found |= {f"yolo, {name}": {**_YOLO, "d/labels/000.txt": data} for name, data in _label_files().items()}
    found |= {f"yaml, {name}": {**_YOLO, "d/data.yaml": data} for name, data in _yamls().items()}
    return found | {f"csv, {name}": {**_CSV, "d/targets.csv": data} for name, data in _tables().items()}


_BOXES = layouts.some_boxes(30)
_VOC, _COCO, _YOLO = (make(_BOXES) for make in (layouts.voc, layouts.coco, layouts.yolo))
_CSV = {f"d/{i:03}.png": layouts.photo(i) for i in range(30)}
_MANY = 3 * 2**20


def _xmls() -> Mapping[str, bytes]:
    one = [("blob", (1, 2, 9, 8))]
    laughs = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    fine = layouts.voc_xml(one)  # type: ignore[arg-type]

    def of(text: str) -> bytes:
        return fine.replace(b"<name>blob</name>", f"<name>{text}</name>".encode())

    def box(old: str, new: str) -> bytes:
        return fine.replace(old.encode(), new.encode())

    return {
        "entities that laugh": f'<!DOCTYPE annotation [<!ENTITY e0 "ha">{laughs}]>'.encode() + of("&e11;"),
        "one large entity": f'<!DOCTYPE a [<!ENTITY e "{"x" * 100_000}">]>'.encode() + of("&e;" * 10_000),
        "a file's entity": b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + of("&e;"),
        "somebody's document type": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/x.dtd">' + fine,
        "parameter entities": b'<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///dev/zero"> %p;]>' + fine,
        "nested": b"<annotation>" + b"<a>" * 500_000 + b"</a>" * 500_000 + b"</annotation>",
        "wide": b"<annotation>" + b"<object/>" * 400_000 + b"</annotation>",
        "large": b"<annotation>" + b" " * 9_000_000 + b"</annotation>",
        "another root": b"<svg></svg>",
        "cut": fine[:-20],
        "nothing": b"",
        "no text": bytes(range(256)) * 10,
        "latin": fine.decode().replace("blob", "blöb").encode("latin-1"),
        "an object without a box": b"<annotation><object><name>a</name></object></annotation>",
        "no number": box("<xmin>1<", "<xmin>one<"),
        "nan": box("<xmin>1<", "<xmin>nan<"),
        "infinite": box("<xmax>9<", "<xmax>1e999<"),
        "digits without end": box("<xmax>9<", f"<xmax>{'9' * 1_000_000}<"),
        "outside": box("<xmax>9<", "<xmax>99<"),
        "a name of lines": of("a&#10;b"),
        "a long name": of("x" * 1_000_000),
    }


def _jsons() -> Mapping[str, bytes]:
    def of(**changes: Any) -> bytes:
        return json.dumps(layouts.coco_json(_BOXES) | changes).encode()

    def box(values: Any) -> bytes:
        return of(annotations=[{"id": 0, "image_id": 0, "category_id": 7, "bbox": values}])

    image = {"id": 0, "width": 20, "height": 16}
    return {
        "nested": b"[" * _MANY + b"]" * _MANY,
        "nested objects": b'{"images":' * 100_000 + b"1" + b"}" * 100_000,
        "a list": b"[]",
        "nothing": b"",
        "cut": of()[:-20],
        "digits without end": b'{"images": ' + b"1" * _MANY + b"}",
        "a bomb": b'{"images": "' + b" " * (64 * 2**20) + b'"}',
        "nan": box([float("nan"), 0, 3, 3]),
        "infinite": box([0, 0, float("inf"), 3]),
        "a huge number": box([0, 0, 10**400, 3]),
        "texts": box(["0", "0", "a", "3"]),
        "three numbers": box([0, 0, 3]),
        "nested numbers": box([[0], 0, 3, 3]),
        "outside": box([0, 0, 30, 3]),
        "negative": box([5, 5, -9, 3]),
        "no images": of(images=7),
        "images of numbers": of(images=[1, 2]),
        "a name that leads out": of(images=[image | {"file_name": "../../../etc/passwd"}], annotations=[]),
        "an absolute name": of(images=[image | {"file_name": "/etc/passwd"}], annotations=[]),
        "a name that is none": of(images=[image | {"file_name": 3}], annotations=[]),
        "an unknown image": of(annotations=[{"image_id": 99, "category_id": 7, "bbox": [0, 0, 3, 3]}]),
        "an unknown category": of(annotations=[{"image_id": 0, "category_id": 99, "bbox": [0, 0, 3, 3]}]),
        "an id that is a list": of(categories=[{"id": [7], "name": "a"}]),
        "no categories": of(categories=[]),
        "many categories": of(categories=[{"id": i, "name": "a"} for i in range(20_000)]),
        "a name of bells": of(categories=[{"id": 7, "name": "\a"}]),
    }


def _label_files() -> Mapping[str, bytes]:
    return {
        "a class beyond the names": b"2 0.5 0.5 0.2 0.2",
        "a negative class": b"-1 0.5 0.5 0.2 0.2",
        "half a class": b"0.5 0.5 0.5 0.2 0.2",
        "nan": b"0 nan 0.5 0.2 0.2",
        "infinite": b"0 1e999 0.5 0.2 0.2",
        "underscores": b"0 0_5 0.5 0.2 0.2",
        "other digits": "0 ٠.٥ 0.5 0.2 0.2".encode(),
        "pixels": b"0 300 200 50 50",
        "outside": b"0 0.9 0.5 0.4 0.2",
        "four numbers": b"0 0.5 0.5 0.2",
        "a confidence": b"0 0.5 0.5 0.2 0.2 0.9",
        "texts": b"cat 0.5 0.5 0.2 0.2",
        "no text": bytes(range(128, 256)),
        "many boxes": b"0 0.5 0.5 0.2 0.2\n" * 200_000,
        "one long line": b"0 " + b"0.5 " * 2_000_000,
        "digits without end": b"0 0." + b"5" * _MANY,
        "a bomb": b" " * (64 * 2**20),
    }


def _yamls() -> Mapping[str, bytes]:
    aliases = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    code = f"!!python/object/apply:os.system ['touch {TRAP}']\n".encode()
    merges = "".join(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}\n" for i in range(1, 40))
    return {
        "fine, code that is not run": b"names: [bar, blob]\ntrain: " + code,
        "code for a name": b"names: " + code,
        "fine, aliases beside the names": f"a0: &a0 [x]\n{aliases}names: [bar, blob]\n".encode(),
        "aliases in the names": f"a0: &a0 [x]\n{aliases}names: *a11\n".encode(),
        "aliases as keys": f"a0: &a0 [x]\n{aliases}names: {{? *a11 : x}}\n".encode(),
        "fine, merges beside the names": f"m0: &m0 {{x: 1}}\n{merges}names: [bar, blob]\n".encode(),
        "nested": b"names: " + b"[" * 100_000,
        "large": b"names: [" + b"a, " * 200_000 + b"]",
        "a gap": b"names: {0: bar, 2: blob}",
        "a text": b"names: bar",
        "a list": b"- bar",
        "tabs": b"names:\n\t- bar",
    }


def _tables() -> Mapping[str, bytes]:
    rows = b"".join(f"{i:03}.png,{i}\n".encode() for i in range(30))
    return {
        "nan": rows + b"000.png,nan\n",
        "infinite": rows + b"000.png,inf\n",
        "no number": rows + b"000.png,x\n",
        "two numbers in a row": rows + b"000.png,1,2\n",
        "a file that leads out": rows + b"../../etc/passwd,1\n",
        "one cell": b"000.png\n",
        "nothing": b"",
        "a quote that never ends": rows + b'"000.png,' + b"x" * 1_000_000,
        "no text": bytes(range(256)),
    }


def annotated_zip(path: Path, tree: Mapping[str, bytes]) -> Path:
    """The tree, packed as tightly as it goes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, data in tree.items():
            file.writestr(name, data)
    return path
