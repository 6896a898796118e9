"""What a report says in words: the verdict, the red flags; pure functions of what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from compress.core import Certificate, Measured, images_needed
from compress.data import Data
from compress.latency import LatencyResult
from compress.report.formatting import machine_of
from compress.report.model import Latency, Report


def latency_of(result: LatencyResult, name: str = "pruned") -> Latency:
    """Base against one arm, as a report keeps it."""
    ratio, interval, control = result.ratios[name], result.ratios[name].decisive, result.control.decisive
    base, pruned = result.arm("base").latency, result.arm(name).latency
    return Latency(
        runtime=result.runtime + (" without copies" if result.settings.transfer == "device" else ""),
        batch=result.settings.batch,
        threads=result.environment.threads or 0,
        base_p50=base.p50,
        pruned_p50=pruned.p50,
        base_p90=base.p90,
        pruned_p90=pruned.p90,
        speedup=interval.ratio,
        low=interval.low,
        high=interval.high,
        verdict=ratio.verdict.value,
        clock=ratio.decided_by,
        control=control.ratio,
        control_low=control.low,
        control_high=control.high,
        rounds=result.rounds,
        flags=result.flags,
    )


def flags(data: Data | None, accuracy: Sequence[Measured], latency: Sequence[Latency]) -> list[str]:
    """The red flags of a run: what was not measured, what was destroyed, what is not faster."""
    found = []
    if not accuracy:
        why = "no data was given" if data is None else "the images have no labels"
        found.append(f"accuracy was not measured: {why}; the outputs were only compared with the unpruned network's")
    elif data is not None:
        found += _destroyed(accuracy, 1 / len(data.classes))
    return [*found, *speed_flags(latency)]


def _destroyed(accuracy: Sequence[Measured], chance: float) -> list[str]:
    """A network that lost most of what it knew beyond chance."""
    split = accuracy[-1].split
    base, final = (next((a.top1 for a in row if a.split == split), 0.0) for row in (accuracy, accuracy[::-1]))
    if final - chance >= (base - chance) / 2:
        return []
    fall = f"{100 * base:.1f} % -> {100 * final:.1f} % ({split} images, chance is {100 * chance:.3g} %)"
    return [f"the pruned network is of no use as it is: {fall}; --recover reconstruct, train it (--epochs), or cut less"]


def speed_flags(latency: Sequence[Latency]) -> list[str]:
    """What is red about measurements: not faster, or not to be trusted."""
    flags = []
    for found in latency:
        where = machine_of(found)
        if found.high <= 1.0:
            flags.append(f"{where}: slower than the unpruned network ({found.speedup:.2f}x)")
        elif found.verdict != "different" or found.low <= 1.0:
            flags.append(f"{where}: not measurably faster ({found.speedup:.2f}x, {found.verdict})")
        flags += [f"{where}: {flag}" for flag in found.flags]
    return flags


def missed_drop(target: str, value: float, accuracy: Sequence[Measured], certificate: Certificate | None) -> list[str]:
    """A drop beyond what was allowed, in the final figures; without labels, one that cannot be excluded."""
    test = {a.when: a.top1 for a in accuracy if a.split == "test"}
    if target != "max_drop":
        return []
    if not {"base", "final"} <= set(test):
        if certificate is None:
            allowed = f"{100 * value:g} points"
            return [f"nothing certifies that the accuracy dropped by at most {allowed}: no image was left to ask"]
        if certificate.bound <= value:
            return []
        few = images_needed(value, certificate.confidence)
        why = f"; so few images cannot say less, at least {few} are needed" if certificate.images < few else ""
        return [
            f"without labels a drop of up to {100 * certificate.bound:.2f} points cannot be excluded, "
            f"{100 * value:g} were allowed{why}"
        ]
    drop = test["base"] - test["final"]
    return [f"the test accuracy dropped by {100 * drop:.2f} points, {100 * value:g} were allowed"] if drop > value else []


def verdict_of(report: Report) -> str:
    """The sentence again, from what the report holds now."""
    return verdict_sentence(report.latency, report.accuracy, report.speedup_macs, report.certificate)


def verdict_sentence(
    latency: Sequence[Latency], accuracy: Sequence[Measured], promised: float, certificate: Certificate | None
) -> str:
    """One sentence for somebody who decides."""
    if not latency:
        speed = f"{promised:.2f}x fewer MACs (latency not measured)"
    else:
        first = latency[0]
        word = (
            "faster"
            if first.low > 1 and first.verdict == "different"
            else "slower"
            if first.high <= 1
            else "not measurably faster"
        )
        interval = f"(95 % interval {first.low:.2f} to {first.high:.2f})"
        speed = f"{first.speedup:.2f}x the speed on {machine_of(first)} {interval}: {word}"
        speed += f", for {promised:.2f}x fewer MACs"
    test = {a.when: a for a in accuracy if a.split == "test"}
    if "base" in test and "final" in test:
        drop = 100 * (test["final"].top1 - test["base"].top1)
        return (
            f"{speed}; test accuracy {100 * test['base'].top1:.2f} % -> {100 * test['final'].top1:.2f} % ({drop:+.2f} points)"
        )
    if certificate is not None:
        most = f"{100 * certificate.bound:.2f} points at most with {100 * certificate.confidence:.0f} % confidence"
        return f"{speed}; accuracy not measured, certified to have dropped by {most}"
    return f"{speed}; accuracy not measured"
