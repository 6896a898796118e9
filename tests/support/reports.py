"""A report to render, and a strategy that makes any."""

from __future__ import annotations

from hypothesis import strategies as st

from compress.core.accuracy import Measured
from compress.core.statistics import Certificate, Difference
from compress.core.step import Step
from compress.core.toolkit_version import MadeBy
from compress.report.candidates import Finalist, Finalists, FinalistScore, FrontLatency, FrontPoint
from compress.report.model import BranchSpan, Latency, Report, Sensitivity, Size, Width

SAMPLE = Report(
    name="digits-net-smoea",
    verdict="1.42x the speed on ort-cpu, test accuracy 99.44 % -> 98.89 %",
    warnings=("ort-cpu: noisy: the base against itself may be off by 2.7%",),
    notes=("1 group has fewer than 16 channels",),
    method="smoea",
    citation="Li, Sun, Huang, Chen: SMOEA, arXiv 2211.01957",
    target="macs <= 0.5",
    reached=0.4985,
    architecture="digits_net",
    data="digits (10 classes)",
    before=Size(2_960_000, 116_602, 469_000),
    after=Size(1_480_000, 51_300, 209_000),
    scores=(
        Measured("base", "validation", 0.9889, 0.968, 0.996, 270),
        Measured("cut", "validation", 0.2593, 0.211, 0.315, 270),
        Measured("fine-tuned", "validation", 0.9556, 0.924, 0.974, 270),
        Measured("base", "test", 0.9944, 0.98, 0.998, 359),
        Measured("final", "test", 0.9721, 0.949, 0.985, 359),
    ),
    widths=(
        Width("stem.0", 16, 16, "narrow", "conv", 9216, 9216, 1024, 1024),
        Width("stage1.0", 32, 24, "", "conv", 294_912, 221_184, 2048, 1536),
        Width("stage2.0", 64, 56, "", "linear", 2048, 1344, 64, 56),
    ),
    latency=(
        Latency(
            "ort-cpu", 1, 1, 49.0e-6, 42.9e-6, 60e-6, 50e-6, 1.13, 1.12, 1.14, "different", "cpu", 1.0, 0.99, 1.01, 345,
            ("noisy: the base against itself may be off by 2.7%",),
        ),
    ),
    parity={"verdict": "pass", "error": 1.7e-7},
    guard={"error": 2.5e-16, "where": "classifier"},
    search={"points": 12, "budget": 3000},
    seconds={"search": 1.01, "export": 65.2},
    digests={"network": "4da6c6cfa67e1ade"},
    environment={"cpu": "some | processor", "versions": {"torch": "2.14.1"}},
    job={"method": "smoea", "value": 0.5, "ignore": []},
    command="compress prune digits-net.safetensors --data digits",
    change=Difference(mean=-0.0223, low=-0.0402, high=-0.0045, images=359, seeds=1),
    branches=(BranchSpan("stage1", ("stage1.0",)), BranchSpan("stage2", ("stage2.0",), left_out=True)),
    sensitivity=(Sensitivity("stem.0", 0.02, 0.0), Sensitivity("stage1.0", 0.3, 0.1), Sensitivity("stage2.0", 0.5)),
    certificate=Certificate(1976, 41, 0.0272, 0.95, "1976 validation images that the run had not used"),
)  # fmt: skip

_TEXT = st.text(max_size=12)
_NUMBER = st.floats(0, 1e9)
_COUNT = st.integers(0, 10**12)
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_FREE = st.dictionaries(_TEXT, _PLAIN, max_size=3)
_TEXTS = st.lists(_TEXT, max_size=2).map(tuple)

reports = st.builds(
    Report,
    **dict.fromkeys(["name", "verdict", "method", "citation", "target", "architecture", "data", "command"], _TEXT),
    warnings=_TEXTS,
    notes=_TEXTS,
    reached=st.floats(0, 1),
    before=st.builds(Size, _COUNT, _COUNT, _COUNT),
    after=st.builds(Size, _COUNT, _COUNT, _COUNT),
    scores=st.lists(
        st.builds(
            Measured,
            st.sampled_from(["base", "cut", "fine-tuned", "final", "odd"]),
            st.sampled_from(["validation", "test"]),
            *[st.floats(0, 1)] * 3,
            _COUNT,
        ),
        max_size=3,
    ).map(tuple),
    steps=st.lists(
        st.builds(Step, st.sampled_from(["cut", "batch norm", "fine-tuned", "odd"]), st.floats(0, 1), st.booleans()), max_size=3
    ).map(tuple),
    widths=st.lists(st.builds(Width, _TEXT, _COUNT, _COUNT, _TEXT, _TEXT, *[_COUNT] * 4), max_size=3).map(tuple),
    latency=st.lists(
        st.builds(
            Latency,
            _TEXT,
            _COUNT,
            _COUNT,
            *[_NUMBER] * 7,
            st.sampled_from(["same", "different", "inconclusive"]),
            st.sampled_from(["wall", "cpu"]),
            *[_NUMBER] * 3,
            _COUNT,
            _TEXTS,
            *[_TEXT] * 2,
            *[_NUMBER] * 2,
        ),
        max_size=2,
    ).map(tuple),
    **dict.fromkeys(["parity", "guard", "search", "environment", "job"], _FREE),
    seconds=st.dictionaries(_TEXT, _NUMBER, max_size=3),
    digests=st.dictionaries(_TEXT, _TEXT, max_size=3),
    certificate=st.none() | st.builds(Certificate, _COUNT, _COUNT, st.floats(0, 1), st.floats(0, 1), _TEXT),
    front_latency=st.none()
    | st.builds(
        FrontLatency,
        _TEXT,
        *[_COUNT] * 3,
        st.lists(st.builds(FrontPoint, _COUNT, *[st.floats(1e-3, 4)] * 5), max_size=3).map(tuple),
        *[st.none() | st.floats(-1, 1)] * 2,
        st.just(()),
        _TEXTS,
    ),
    finalists=st.none()
    | st.builds(
        Finalists,
        st.lists(
            st.builds(
                Finalist,
                *[_TEXT] * 2,
                st.floats(0, 1),
                *[st.none() | st.floats(0, 1)] * 2,
                st.lists(st.builds(FinalistScore, _COUNT, *[st.none() | st.floats(0, 1)] * 3), max_size=2).map(tuple),
                st.booleans(),
            ),
            max_size=2,
        ).map(tuple),
        _COUNT,
        _NUMBER,
        _COUNT,
        _TEXT,
    ),
    image=st.lists(_COUNT, max_size=3).map(tuple),
    branches=st.lists(
        st.builds(BranchSpan, _TEXT, st.lists(_TEXT, min_size=1, max_size=2).map(tuple), st.booleans()), max_size=2
    ).map(tuple),
    sensitivity=st.lists(st.builds(Sensitivity, _TEXT, _NUMBER, st.none() | _NUMBER), max_size=2).map(tuple),
    change=st.none() | st.builds(Difference, *[st.floats(-1, 1)] * 3, *[_COUNT] * 2, st.just(0.95), st.booleans()),
    made_by=st.none() | st.builds(MadeBy, *[_TEXT] * 3),
    schema=st.just(SAMPLE.schema),
)
