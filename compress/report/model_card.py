"""A card beside the model, as hubs read it: a front matter in YAML, then what the network is, costs and lost, in Markdown.

Nothing of the machine stands in it but what ran the files: no path, no processor, no command.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from compress.core import markdown, markdown_code, plural, printable
from compress.report.formatting import STATES, certified, changed, score_text, sizes, speed_in_words, wanted
from compress.report.markdown import table_lines
from compress.report.model import Report

LIBRARY = "smaller-convnets"
_PIPELINES: Mapping[str, str] = {
    "classification": "image-classification",
    "binary": "image-classification",
    "multilabel": "image-classification",
    "segmentation": "image-segmentation",
    "detection": "object-detection",
    "restoration": "image-to-image",
}
"""Task -> what hubs call it."""
_METRICS: Mapping[str, str] = {"top-1 accuracy": "accuracy", "mIoU": "mean_iou", "PSNR": "psnr", "MAE": "mae"}
"""Figure -> what hubs call it; others by their own name."""


def card_text(report: Report) -> str:
    """The card of a run's network: ``model-card.md``.

    Args:
        report: of the run.
    """
    return "\n".join([*_front_matter(report), *_body(report)]).rstrip() + "\n"


def _front_matter(report: Report) -> Iterator[str]:
    """YAML, of which JSON's strings and numbers are part: a name cannot end a value or begin another."""
    task = _PIPELINES.get(report.task, "")
    final = report.measured("final", "test")
    metric = _METRICS.get(report.scored_by.name, report.scored_by.name)
    yield "---"
    yield f"library_name: {LIBRARY}"
    if task:
        yield f"pipeline_tag: {task}"
    yield f"tags: {_text(['pruning', 'model-compression', 'onnx', report.architecture, report.method])}"
    if final is not None:
        yield f"metrics: {_text([metric])}"
        yield "model-index:"
        yield f"- name: {_text(report.name)}"
        yield "  results:"
        yield f"  - task: {{type: {task or 'other'}}}"
        yield f"    dataset: {{name: {_text(report.data)}, type: {_text(report.data)}, split: test}}"
        yield "    metrics:"
        yield f"    - {{type: {_text(metric)}, value: {final.value:.6g}, name: {_text(report.scored_by.name)}}}"
    yield "---"


def _text(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    # As it is, not escaped: of a pair of surrogates YAML would make two characters. Two signs it does not take at all.
    return json.dumps(printable(value), ensure_ascii=False).translate({0xFFFE: "\ufffd", 0xFFFF: "\ufffd"})


def _body(report: Report) -> Iterator[str]:
    figure = report.scored_by
    yield f"# {markdown(report.name)}"
    yield ""
    yield (
        f"{markdown(report.architecture)}, pruned by {markdown(report.method)}: asked for {markdown(wanted(report))}. "
        f"Images: {markdown(report.data)}."
    )
    yield ""
    yield f"**{markdown(report.verdict)}**"
    yield ""
    for warning in report.warnings:
        yield f"> ⚠️ {markdown(warning)}"
        yield ">"
    yield ""
    yield "## Before and after"
    yield ""
    rows = [(row.name, row.before, row.after, row.ratio) for row in sizes(report)]
    base, final = (report.measured(when, "test") for when in ("base", "final"))
    if base is not None and final is not None:
        change = "" if report.change is None else figure.signed_range(report.change.low, report.change.high)
        rows.append((f"{figure.name}, test", score_text(base, figure), score_text(final, figure), change))
    yield from table_lines(("", "unpruned", "this network", "change, with its 95 % interval"), rows)
    for x in report.latency:
        yield f"- {markdown(x.runtime)}, batch {x.batch}, {plural(x.threads, 'thread')}: {markdown(speed_in_words(x))}"
    if report.certificate is not None:
        yield f"- {markdown(certified(report.certificate))}"
    yield ""
    yield "## How it was made"
    yield ""
    yield f"- {markdown(report.citation)}"
    out = [b.name for b in report.branches if b.left_out]
    left = f"; left out beside shortcuts: {markdown(', '.join(out))}" if out else ""
    yield f"- {len(changed(report))} of {plural(len(report.widths), 'layer')} lost channels{left}"
    passed = [s for s in STATES if any(a.when == s for a in report.scores) and s not in report.refused]
    if passed:
        yield f"- steps: {markdown(', '.join(passed))}"
    if report.made_by is not None:
        yield f"- by {markdown(report.made_by.text)} ({LIBRARY})"
    if "model" in report.digests:
        yield f"- digest of the network: {markdown_code(report.digests['model'])}"
    yield ""
    yield "## Use"
    yield ""
    yield from ("```python", "import compress", "", 'network = compress.from_pretrained("FOLDER or ORG/NAME")', "```")
    yield ""
    yield "`network.model` is a `torch.nn.Module`; `model.onnx` computes the same in any ONNX runtime."
    yield ""
    yield "## Limits"
    yield ""
    yield (
        "What the unpruned network was trained on, and whom it serves badly, it has passed on: its own card says more. "
        "The figures hold for images like the ones named above; single classes may have changed more than the whole."
    )
