from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.timed_arms import Spin

from compress.errors import ConfigError
from compress.latency.bounds import Outcome, judge, parse
from compress.latency.comparison import Side, compare, find, side
from compress.latency.intervals import between
from compress.latency.measurement import MeasuredFile, Measurement, identify
from compress.latency.protocol import Settings, measure
from compress.latency.result import LatencyResult
from compress.latency.statistics import Interval
from compress.runtime.ort import OrtRuntime

SHARP = Interval(1.0, 1.0, 1.0)
ratios = st.floats(0.2, 5.0)


@pytest.fixture(scope="module")
def result() -> LatencyResult:
    """The candidate does half of the work."""
    quick = Settings(budget_seconds=60, precision=100.0, min_rounds=12, loads=1)
    return measure(Spin(0.0004), {"half": Spin(0.0002)}, runtime=OrtRuntime(), settings=quick)


def outcome(text: str, result: LatencyResult, ratio: Interval = SHARP, floor: float = 1.0, **more: bool) -> Outcome:
    return judge(parse(text), ratio, floor, result, result.arm("half"), **more).outcome


@pytest.mark.parametrize(
    ("text", "metric", "above", "limit"),
    [
        ("slower>2%", "slower", True, 0.02),
        (" speedup < 1.5 ", "speedup", False, 1.5),
        ("speedup<1.5x", "speedup", False, 1.5),
        ("p99>5ms", "p99", True, 0.005),
        ("p50>300us", "p50", True, 0.0003),
        ("p90>1.5s", "p90", True, 1.5),
        ("throughput<200", "throughput", False, 200.0),
    ],
)
def test_bounds_are_read(text: str, metric: str, above: bool, limit: float) -> None:
    found = parse(text)
    assert (found.metric, found.above, found.text) == (metric, above, text.strip())
    assert found.limit == pytest.approx(limit)


@pytest.mark.parametrize("text", ["", "slower", "slower>2", "slower>2ms", "p99>5", "p99>5%", "p98>5ms", "speedup<50%"])
def test_what_is_no_bound_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert "slower>2%" in caught.value.hint


@given(st.tuples(ratios, ratios, ratios), st.floats(0.0, 100.0))
@settings(max_examples=60, deadline=None)
def test_slower_and_speedup_say_the_same(result: LatencyResult, parts: tuple[float, float, float], percent: float) -> None:
    """slower>p% forbids exactly what speedup<1/(1+p) does, and faster<p% what speedup<1+p does."""
    low, middle, high = sorted(parts)
    ratio, percent = Interval(middle, low, high), round(percent, 6)
    limit = 1 / (1 + percent / 100)
    assume(all(abs(edge - bound) > 1e-6 for edge in parts for bound in (limit, 1 + percent / 100)))
    assert outcome(f"slower>{percent:f}%", result, ratio) is outcome(f"speedup<{limit:.12f}", result, ratio)
    assert outcome(f"faster<{percent:f}%", result, ratio) is outcome(f"speedup<{1 + percent / 100:.12f}", result, ratio)


@given(st.tuples(ratios, ratios, ratios), ratios)
@settings(max_examples=60, deadline=None)
def test_an_outcome_is_about_the_whole_interval(result: LatencyResult, parts: tuple[float, float, float], limit: float) -> None:
    low, middle, high = sorted(parts)
    limit = round(limit, 6)
    found = outcome(f"speedup<{limit:f}", result, Interval(middle, low, high))
    assert found is (Outcome.FAILED if high < limit else Outcome.HELD if low >= limit else Outcome.INCONCLUSIVE)
    opposite = outcome(f"speedup>{limit:f}", result, Interval(middle, low, high))
    assume(limit not in (low, high))
    swapped = {Outcome.FAILED: Outcome.HELD, Outcome.HELD: Outcome.FAILED, Outcome.INCONCLUSIVE: Outcome.INCONCLUSIVE}
    assert opposite is swapped[found]


def test_a_noisy_host_widens_it(result: LatencyResult) -> None:
    slower = Interval(0.95, 0.94, 0.96)
    assert outcome("slower>2%", result, slower, floor=1.01) is Outcome.FAILED
    assert outcome("slower>2%", result, slower, floor=1.08) is Outcome.INCONCLUSIVE
    assert outcome("slower>2%", result, SHARP, floor=1.05) is Outcome.INCONCLUSIVE


def test_times_of_the_file_itself(result: LatencyResult) -> None:
    """0.2 ms of CPU time take as much wall time or more."""
    assert outcome("p50>10us", result) is Outcome.FAILED
    assert outcome("p50>10s", result) is Outcome.HELD
    assert outcome("throughput<1", result) is Outcome.HELD
    assert outcome("throughput>1000000", result) is Outcome.HELD
    p50 = judge(parse("p50>1s"), SHARP, 1.0, result, result.arm("half")).interval
    assert p50 is not None and p50[0] <= p50[1] <= p50[2]
    assert p50[1] == pytest.approx(result.arm("half").latency.p50)


def test_what_cannot_be_said_is_inconclusive_with_the_reason(result: LatencyResult) -> None:
    few = replace(result, rounds=9)
    for text, more, of, said in (
        ("p99>1ms", {}, result, "1,000 samples, 12"),
        ("slower>2%", {}, few, "9 rounds, 10 are wanted"),
        ("slower>2%", {"rationed": True}, result, "quota"),
    ):
        judged = judge(parse(text), SHARP, 1.0, of, of.arm("half"), **more)
        assert judged.outcome is Outcome.INCONCLUSIVE and said in judged.why and judged.interval is None


@given(ratios, ratios)
@settings(max_examples=30, deadline=None)
def test_two_sittings_against_one_base(a: float, b: float) -> None:
    old, new = Interval(a, a / 1.03, a * 1.03), Interval(b, b / 1.04, b * 1.04)
    found = between(old, new)
    assert found.ratio == pytest.approx(b / a)
    assert found.half_width == pytest.approx(math.hypot(math.log(1.03), math.log(1.04)))
    assert between(SHARP, new) == pytest.approx((new.ratio, new.low, new.high)) or between(SHARP, new).low == pytest.approx(
        new.low
    )


def sitting(result: LatencyResult, shift: float = 1.0, name: str = "half", base: str = "b") -> Measurement:
    """The same sitting where everything takes ``shift`` times as long: what ratios must not see."""

    def shifted(times: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(shift * time for time in times)

    arms = tuple(replace(arm, wall=shifted(arm.wall), cpu=shifted(arm.cpu)) for arm in result.arms)
    files = {"base": MeasuredFile("base.onnx", base * 64, 1), name: MeasuredFile(f"{name}.onnx", "c" * 64, 1)}
    return Measurement((replace(result, arms=arms),), files)


def test_a_drifted_machine_does_not_matter_and_another_base_does(result: LatencyResult) -> None:
    old, new = side(sitting(result), None, "old"), side(sitting(result, shift=1.7), None, "new")
    (one,) = compare(old, new, [parse("slower>30%")])
    assert one.ratio.ratio == pytest.approx(1.0) and not one.paired and one.bounds[0].outcome is Outcome.HELD
    assert one.floor >= result.control.floor
    with pytest.raises(ConfigError, match="different bases"):
        compare(old, side(sitting(result, base="d"), None, "new"), [])
    (one,) = compare(side(sitting(result), "base", "old"), new, [parse("speedup<1.5")])
    assert one.ratio.ratio == pytest.approx(2.0, rel=0.1) and one.bounds[0].outcome is Outcome.HELD


def test_one_sitting_has_one_floor(result: LatencyResult) -> None:
    """Two sittings are as uncertain as both together."""
    noisy = replace(result, control=replace(result.control, floor=1.3))
    one = sitting(noisy)
    (paired,) = compare(side(one, "base", "x"), side(one, None, "x"), [])
    (apart,) = compare(side(one, "base", "x"), side(sitting(noisy), None, "y"), [])
    assert paired.paired and paired.floor == pytest.approx(1.3)
    assert apart.floor == pytest.approx(math.exp(math.hypot(math.log(1.3), math.log(1.3))))


def test_other_machines_and_other_batches(result: LatencyResult) -> None:
    old = side(sitting(result), None, "old")
    elsewhere = replace(result, environment=replace(result.environment, cpu="another"))
    with pytest.raises(ConfigError, match=r"cpu .* and another"):
        compare(old, side(sitting(elsewhere), None, "new"), [])
    assert compare(old, side(sitting(elsewhere), None, "new"), [], force=True)
    batch = replace(result, settings=replace(result.settings, batch=8))
    with pytest.raises(ConfigError, match="no runtime and batch"):
        compare(old, side(sitting(batch), None, "new"), [])


def test_which_file_a_measurement_is_about(result: LatencyResult, tmp_path) -> None:  # type: ignore[no-untyped-def]
    one = sitting(result)
    assert side(one, None, "x") == Side(one, "half") and side(one, "base", "x").sha256 == "b" * 64
    two = replace(one, files={**one.files, "other": one.files["half"]})
    with pytest.raises(ConfigError, match="2 files: half, other"):
        side(two, None, "x")
    with pytest.raises(ConfigError, match="measured no 'third'"):
        side(two, "third", "x")
    (tmp_path / "f.onnx").write_bytes(b"1")
    digest = identify(tmp_path / "f.onnx").sha256
    assert find(digest, "f.onnx", [tmp_path]) == tmp_path / "f.onnx"
    assert find(digest, "g.onnx", [tmp_path], [tmp_path / "f.onnx"]) == tmp_path / "f.onnx"
    assert find("0" * 64, "f.onnx", [tmp_path]) is None
