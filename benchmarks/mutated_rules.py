"""Are the laws about networks, files and places awake? Breaks one rule at a time on purpose and runs the laws that hold it.

Each mistake below is put in place of the right function in a process of its own, and the tests that are named with it are run
there: they pass without the mistake and have to fail with it. ``mutations.py`` does the same to the index tables.

    python benchmarks/mutated_rules.py               # a table; benchmarks/results/mutated_rules.json
    python benchmarks/mutated_rules.py "lock" "16"   # those whose name holds one of these; the others' results stay
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.core import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "mutated_rules.json"
PASSED, FAILED = 0, 1
"""pytest's exit statuses. Any other says that the law did not run."""


@dataclass(frozen=True)
class MutatedRule:
    """One rule that is broken.

    Attributes:
        name: the mistake.
        place: ``module:attribute``, of the right function or number.
        broken: from that to what stands in its place.
        tests: file, and what pytest's ``-k`` chooses in it.
    """

    name: str
    place: str
    broken: Callable[[Any], Any]
    tests: tuple[str, str]


# ---- the mistakes ------------------------------------------------------------------------------------------------------


def without_counts(right: Any) -> Any:
    return lambda group, cut: right(replace(group, coupled_counts=()), cut)


def over_the_whole(right: Any) -> Any:
    """One scale for all channels: the largest value of the whole output."""
    return lambda wanted, got, noise=None, least=0.0: (
        float(abs(wanted - got).max(initial=0) / abs(wanted).max(initial=1e-30)),
        "",
    )


def guarded_over_the_whole(right: Any) -> Any:
    from compress.surgery.seen_values import relative_error

    return lambda expected, got, noise=None: relative_error(expected.values, got.values)


def written_apart(right: Any) -> Any:
    """What is written over channels is not one with them."""

    def write(ledger: Any, name: str, args: Any) -> None:
        ledger.channels.unite_pairs = lambda one, two: None
        try:
            right(ledger, name, args)
        finally:
            del ledger.channels.unite_pairs

    return write


def emptied(right: Any) -> Any:
    """The lock is opened for writing, wherever it leads."""

    def locked(folder: Path, name: str, make: bool) -> int:
        return os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    return locked


def where_it_says(right: Any) -> Any:
    """The location of a weight is followed."""

    def placed(tensor: Any, path: Path) -> tuple[Path, int, int]:
        told = {entry.key: entry.value for entry in tensor.external_data}
        file = path.parent / told.get("location", "")
        return file, int(told.get("offset", "0")), int(told.get("length", "0"))

    return placed


def permitted(right: Any) -> Any:
    """A run's own word that its images may be fetched is taken for the user's."""

    def of(folder: Path, given: Any = None, *, network: bool = True) -> Any:
        from compress_cli.inputs import _kept

        return replace(right(folder, given, network=network), download=_kept(folder)[0].download)

    return staticmethod(of)


def with_pictures(right: Any) -> Any:
    from rich.console import Console

    return lambda self, **options: Console.__init__(self, **options)


def nothing(right: Any) -> Any:
    return lambda *_, **__: None


def always(value: Any) -> Callable[[Any], Any]:
    """A function that gives this whatever it is asked."""
    return lambda right: lambda *_, **__: value


def instead(value: Any) -> Callable[[Any], Any]:
    """Another number."""
    return lambda right: value


RULES = (
    MutatedRule("coupled counts are not checked", "compress.core.plan:_check_cut", without_counts,
                ("tests/coupling/test_structures.py", "more_of_one_piece")),
    MutatedRule("channels written over others are cut apart", "compress.coupling.tensor_rules:write", written_apart,
                ("tests/coupling/test_structures.py", "trains and overwritten")),
    MutatedRule("numbers that hold widths stay", "compress.coupling.channel_chunks:attributes", always(()),
                ("tests/surgery/test_width_attributes.py", "count_what_is_left")),
    MutatedRule("evaluation mode alone is followed", "compress.coupling.forms:_Forms.train_otherwise", always(False),
                ("tests/coupling/test_forms.py", "exact_in_every_branch and training")),
    MutatedRule("one batch size alone is followed", "compress.coupling.forms:_images",
                lambda right: lambda example, count: example,
                ("tests/coupling/test_forms.py", "what_can_go_goes")),
    MutatedRule("one image size alone is followed", "compress.coupling.forms:_other_sizes",
                lambda right: lambda _: iter(()),
                ("tests/coupling/test_forms.py", "exact_in_every_branch and (large or odd)")),
    MutatedRule("questions for values are not seen", "compress.coupling.value_questions:ValueQuestions.ask", nothing,
                ("tests/coupling/test_forms.py", "told_with_its_line and numpy")),
    MutatedRule("random evaluation is taken for steady", "compress.coupling.tracer:unsteady", always(""),
                ("tests/coupling/test_steadiness.py", "random_and_undefined")),
    MutatedRule("parity over the whole output", "compress.export.parity:channel_error", over_the_whole,
                ("tests/export/test_parity_channels.py", "one_wrong_channel and last")),
    MutatedRule("the guard over the whole output", "compress.surgery.seen_values:channel_error", guarded_over_the_whole,
                ("tests/surgery/test_guard_channels.py", "channel_that_is_wrong and last")),
    MutatedRule("nested checkpoints are not searched", "compress.networks.state_dicts:_DEEPEST", instead(0),
                ("tests/networks/test_state_dicts.py", "entry_that_fits or any_nesting")),
    MutatedRule("16 bits are clipped to 8", "compress.data.pixels:wide_levels", nothing,
                ("tests/data/test_pixels.py", "levels_of_sixteen_bits")),
    MutatedRule("weights beside an ONNX file are followed anywhere", "compress.runtime.onnx_file:_placed", where_it_says,
                ("tests/runtime/test_onnx_file.py", "leads_elsewhere")),
    MutatedRule("digests of a run are not compared", "compress.report.verification:_digests", lambda right: lambda *_: iter(()),
                ("tests/cli/test_runs.py", "exchanged and plan.json")),
    MutatedRule("a run's word that images may be fetched counts", "compress_cli.inputs:Inputs.of", permitted,
                ("tests/cli/test_runs.py", "nothing_is_fetched")),
    MutatedRule("a run's own code is imported", "compress_cli.inputs:Inputs.code", always(""),
                ("tests/cli/test_runs.py", "nothing_is_imported")),
    MutatedRule("each read has its own time", "compress.serving.exchange:Deadline.left", always(1.0),
                ("tests/serving/test_deadlines.py", "every_exchange_ends")),
    MutatedRule("a lock is emptied where a link leads", "compress.core.locks:_locked", emptied,
                ("tests/core/test_locks.py", "no_lock or emptied")),
    MutatedRule("control characters pass", "compress.core.text:printable", lambda right: str,
                ("tests/cli/test_safe_text.py", "whatever_a_text_is")),
    MutatedRule("names between colons become pictures", "compress_cli.safe_console:SafeConsole.__init__", with_pictures,
                ("tests/cli/test_safe_text.py", "between_colons")),
    MutatedRule("what killed processes leave stays", "compress.core.files:_sweep", nothing,
                ("tests/core/test_staging.py", "file_of_a_killed")),
)  # fmt: skip


# ---- one of them, in a process of its own ------------------------------------------------------------------------------


def put_in_place(rule: MutatedRule) -> None:
    """The mistake instead of the right function, wherever it has been imported to by now; later imports get it anyway."""
    name, _, attribute = rule.place.partition(":")
    owner: Any = importlib.import_module(name)
    *classes, last = attribute.split(".")
    for each in classes:
        owner = getattr(owner, each)
    right = getattr(owner, last)
    wrong = rule.broken(right)
    setattr(owner, last, wrong)
    for module in [m for n, m in sys.modules.items() if n.startswith("compress") and not classes]:
        if vars(module).get(last) is right:
            setattr(module, last, wrong)


def run_tests(rule: MutatedRule, *, broken: bool) -> int:
    """pytest's exit status, and the end of what it says is shown where no law ran."""
    command = [sys.executable, __file__, "--in-place" if broken else "--whole", rule.name]
    told = {**os.environ, "HYPOTHESIS_PROFILE": "unshrunk"}  # one failure is enough, and need not be the simplest
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=told)
    if done.returncode not in (PASSED, FAILED):
        print(done.stdout[-600:], done.stderr[-600:])
    return done.returncode


def tested_here(name: str, *, broken: bool) -> int:
    """Runs the laws of a rule in this very process."""
    import pytest

    rule = next(r for r in RULES if r.name == name)
    if broken:
        put_in_place(rule)
    file, chosen = rule.tests
    return int(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", str(ROOT / file), "-k", chosen]))


def main(names: Sequence[str]) -> int:
    if names[:1] in (["--in-place"], ["--whole"]):
        return tested_here(names[1], broken=names[0] == "--in-place")
    rows = {row["mistake"]: row for row in json.loads(RESULTS.read_text())["rules"]} if RESULTS.exists() else {}
    for rule in RULES:
        if names and not any(part in rule.name for part in names):
            continue
        start = time.monotonic()
        seen = run_tests(rule, broken=True) == FAILED and run_tests(rule, broken=False) == PASSED
        rows[rule.name] = {"mistake": rule.name, "place": rule.place, "tests": list(rule.tests), "seen": seen}
        print(f"{rule.name:55s} {'seen' if seen else 'MISSED':7s} {time.monotonic() - start:6.1f} s", flush=True)
        kept = [rows[r.name] for r in RULES if r.name in rows]
        write_json(RESULTS, {"rules": kept, "missed": [row["mistake"] for row in kept if not row["seen"]]})
    missed = [row["mistake"] for row in kept if not row["seen"]]
    print(f"{len(kept) - len(missed)} of {len(kept)} mistakes are seen" + (f"; missed: {missed}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
