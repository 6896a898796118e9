"""Which of the entries of a checkpoint is the network: the one that fits, plain weights before averaged ones, or as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from compress.core import plural
from compress.errors import CheckpointError
from compress.networks.architecture import Zoo, canonical
from compress.networks.recognition import Gap, Match, Shapes, doubts, of_torchvision, refusal, search
from compress.networks.state_dicts import Form, listed
from compress.networks.weights import Candidate, Weights

PLAIN, EMA = "plain", "ema"


@dataclass(frozen=True, slots=True)
class Selected:
    """The entry that is taken.

    Attributes:
        candidate: the entry.
        match: the architecture it fits; None for a pickled network, which is one itself.
        notes: what was chosen or left out.
    """

    candidate: Candidate
    match: Match | None
    notes: tuple[str, ...] = ()


def select(weights: Weights, path: Path, zoo: Zoo, arch: str | None, which: str | None) -> Selected:
    """The entry of a file that fits the architecture.

    Args:
        weights: of the file.
        path: for messages.
        zoo: further networks by name.
        arch: the architecture, where the user names it.
        which: ``plain``, ``ema`` (averaged weights: EMA, SWA) or an entry's name; None prefers plain ones.

    Raises:
        CheckpointError: none fits, two different ones fit, or there are no such weights; the message names what the file holds.
    """
    entries = [c.entry for c in weights.candidates]
    gaps: list[Gap] = []
    known: dict[str, Shapes] = {}
    groups = _groups(weights.candidates, which)
    if not any(groups):
        raise CheckpointError(
            f"{path} has no weights {which[:60] if which else ''!r}; it holds {listed(entries)}",
            hint="leave --weights out, or give plain, ema or the name of an entry",
        )
    asked = [canonical(arch, zoo)] if arch is not None else list(zoo)
    for library in (False,) if arch is not None else (False, True):
        for group in groups:
            fits: list[Selected] = []
            for candidate in group:
                if candidate.module is not None:
                    fits.append(Selected(candidate, None))
                    continue
                if not (forms := _allowed(candidate, arch)):
                    continue
                found = search(forms, of_torchvision(forms[-1].state) if library else asked, zoo, known)
                if isinstance(found, Match):
                    _sole(found, forms, path)
                    fits.append(Selected(candidate, found, () if arch is not None else doubts(found.architecture.name)))
                elif found is not None:
                    gaps.append(found)
            if fits:
                _unambiguous(fits, path, which)
                return _told(fits[0], weights, path)
    inside = "" if len(entries) == 1 and not entries[0].name else f"; the file holds {listed(entries)}"
    raise refusal(gaps, len(entries[0].tensors), arch, inside)


def _allowed(candidate: Candidate, arch: str | None) -> tuple[Form, ...]:
    """Nothing that may belong to the network is left out of it unless the user says what the network is."""
    return tuple(form for form in candidate.forms if arch is not None or not form.doubtful)


def _groups(candidates: Sequence[Candidate], which: str | None) -> list[list[Candidate]]:
    plain, averaged = ([c for c in candidates if c.entry.averaged is wanted] for wanted in (False, True))
    known, other = ([c for c in plain if c.entry.known is wanted] for wanted in (True, False))
    if which is None:
        return [known, other, averaged]
    if which == PLAIN:
        return [known, other]
    if which == EMA:
        return [averaged]
    if named := [c for c in candidates if which in (c.entry.name, c.entry.name.rpartition(".")[2])]:
        return [named]
    under = ((c, tuple(f for f in c.forms if which in (f.prefix.rstrip("."), *f.prefix.split(".")))) for c in candidates)
    return [[replace(c, forms=forms) for c, forms in under if forms]]


def _unambiguous(fits: Sequence[Selected], path: Path, which: str | None) -> None:
    first, *others = fits
    for other in others:
        if not _alike(first, other):
            names = [f.candidate.entry for f in (first, other)]
            raise CheckpointError(
                f"{path} holds several networks that fit: {listed(names)}",
                hint=f"say which: --weights {next((n.name for n in names if n.name not in ('', which)), PLAIN)}",
            )


def _sole(match: Match, forms: Sequence[Form], path: Path) -> None:
    """Two copies of one network in one state_dict, such as a student and its teacher."""
    taken = match.form
    for form in forms if taken.doubtful else ():
        same = form.state.keys() == taken.state.keys() and all(form.state[k].shape == taken.state[k].shape for k in taken.state)
        if same and not all(torch.equal(form.state[k], taken.state[k]) for k in taken.state):
            first, second = sorted((taken.prefix.rstrip("."), form.prefix.rstrip(".")))
            raise CheckpointError(
                f"{path} holds several networks that fit: under {first!r} and under {second!r}",
                hint=f"say which: --weights {first}",
            )


def _alike(one: Selected, other: Selected) -> bool:
    if one.match is None or other.match is None:
        return one.candidate.module is other.candidate.module
    a, b = one.match.state, other.match.state
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _told(chosen: Selected, weights: Weights, path: Path) -> Selected:
    entry, form = chosen.candidate.entry, chosen.match.form if chosen.match is not None else None
    notes = [*chosen.candidate.notes]
    others = [
        c.entry
        for c in weights.candidates
        if c.entry.averaged is not entry.averaged and 2 * len(c.entry.tensors) > len(entry.tensors)
    ]
    name = entry.name or (form.prefix.rstrip(".") if form is not None else "")
    if entry.averaged:
        left = f"the plain ones under {others[0].name!r} were left: --weights plain takes them" if others else "the only ones"
        notes.insert(0, f"{path.name}: the weights under {name!r} were taken; they are averages over the training, {left}")
    elif others:
        left = f"the averaged ones under {others[0].name!r} were left: --weights ema takes them"
        notes.insert(0, f"{path.name}: the weights under {name!r} were taken; {left}")
    elif not entry.known:
        notes.insert(0, f"{path.name}: the weights under {name!r} were taken")
    if form is not None and form.left:
        notes.append(f"{path.name}: {plural(form.left, 'tensor')} outside {form.prefix!r} left out")
    return replace(chosen, notes=(*notes, *chosen.notes))
