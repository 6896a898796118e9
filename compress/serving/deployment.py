"""Replacing a model while it is asked: publish, load, compare, and back again if anything is wrong.

The server goes on answering with the version it has until the new one is loaded; what comes after that is compared with ONNX
Runtime on this machine, on the user's own images, and taken back if it differs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.core import Clock, Listen, ignore, plural
from compress.errors import CompressError, ServerRefused, ServerSilent, ServingError
from compress.export import BATCHES, Interface, ParityVerdict, deviation, judge, read_interface
from compress.runtime import Array, OrtRuntime
from compress.serving import triton
from compress.serving.client import Client, Served
from compress.serving.model_repository import PublishedVersion, locked, publish, require_folder, withdraw
from compress.serving.packages import model_name
from compress.serving.settings import Serving

TOLERANCE = 1e-4
"""Of the outputs' scale: what the kernels of another device may differ by. A CPU with as many threads differs by nothing."""
_POLLING = "polling is enabled"
"""Triton's answer to a load in the modes in which it looks at the repository by itself."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A version that serves, and how it was compared.

    Attributes:
        previous: the version that served before; empty for a new model.
        images: compared, in batches of ``batches``, once asking for the version and once for the model.
        error: largest difference from ONNX Runtime on this machine, as a fraction of the outputs' scale.
        spread: how far the outputs of different images lie apart, in the same unit.
        exact: not one bit differed.
        seconds: by phase.
    """

    name: str
    version: str
    previous: str
    url: str
    images: int
    batches: tuple[int, ...]
    error: float
    spread: float
    exact: bool
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DeploymentLimits:
    """What a new version may differ by, and how long its server may take.

    Attributes:
        tolerance: how far an answer may be off, as a fraction of the outputs' scale.
        timeout: seconds that one answer may take, all of it; also what looking at the server beforehand, loading with all
            the waiting for it, comparing, and going back may take as a whole each. Three times as long after publishing, at
            the latest, the new version serves or is out of the repository.
    """

    tolerance: float = TOLERANCE
    timeout: float = 60.0


def deploy(
    onnx: Path,
    images: Array,
    *,
    repository: Path,
    url: str,
    name: str = "",
    serving: Serving | None = None,
    limits: DeploymentLimits | None = None,
    listen: Listen = ignore,
) -> Deployed:
    """Make a file the newest version of a model on a running Triton, or leave everything as it was.

    Args:
        onnx: the network.
        images: inputs to compare on, as the file takes them, first dimension the batch: real ones if there are any.
        repository: the folder that the server reads.
        url: the server's HTTP address.
        name: of the model, there already or new; from the file or its folder where it is empty.
        serving: configuration of a new model.
        limits: of differences and of time.
        listen: receives the phases.

    Raises:
        ServingError: with what went wrong and what serves now.
        ExportError: the file cannot be served; nothing was touched.
    """
    require_folder(repository)
    limits, clock, name = limits or DeploymentLimits(), Clock(listen), model_name(onnx, name)
    timeout = limits.timeout
    with Client(url, timeout=timeout) as client:
        with clock.phase("check", f"the server at {url}, and what the file answers here"):
            with client.within(timeout):
                live = client.live()
            if not live:
                raise ServingError(f"the server at {url} says that it is not live", hint="see its log, and try again then")
            interface = read_interface(onnx)
            wanted = _outputs_here(onnx, images)
        with locked(repository):
            with client.within(timeout):
                served = _served(client, name)
            if served is not None:
                _same_interface(served, interface, name)
                _same_folder(served, repository, name)
            with clock.phase("land", f"write aside, check, rename in {repository}"):
                published = publish(onnx, repository, name, serving or Serving())
            try:
                with clock.phase("load", f"version {published.version} of {name}"), client.within(timeout):
                    _load(client, name, published)
                with clock.phase("compare", f"{plural(len(images), 'image')} with ONNX Runtime here"), client.within(timeout):
                    batches = _fitting(published, len(images))
                    answers = _outputs_there(client, published, _Question(interface.inputs[0].name, images, wanted, batches))
                    error, spread, exact = _compared(answers, published, wanted, limits.tolerance)
            except BaseException as fault:
                with clock.phase("roll back"), client.within(timeout):
                    outcome = _back(client, name, published, served)
                if isinstance(fault, CompressError):
                    raise ServingError(f"{fault.message}; {outcome}", hint=fault.hint) from fault
                raise
    previous = max(served.versions, key=_number, default="") if served else ""
    version = str(published.version)
    return Deployed(
        name=name,
        version=version,
        previous=previous,
        url=url,
        images=len(images),
        batches=batches,
        error=error,
        spread=spread,
        exact=exact,
        seconds=dict(clock.seconds),
    )


def _outputs_here(onnx: Path, images: Array) -> dict[str, Array]:
    """What ONNX Runtime computes on this machine; a network that answers NaN is not worth a server's time."""
    if len(images) < 2:
        raise ServingError(f"{plural(len(images), 'image')} to compare on, 2 or more are wanted", hint="give more with --data")
    with OrtRuntime(threads=1).load(onnx) as session:
        rows = [session.run(np.ascontiguousarray(images[i : i + 1])) for i in range(len(images))]
        found = {name: np.concatenate([row[at] for row in rows]) for at, name in enumerate(session.output_names)}
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise ServingError(f"output {name!r} of {onnx} holds NaN or infinity", hint="export it again: compress export")
    return found


def _served(client: Client, name: str) -> Served | None:
    return client.interface(name) if client.ready(name) else None


def _same_interface(served: Served, interface: Interface, name: str) -> None:
    """Clients of the model that serves must not notice more than other numbers."""
    for what, theirs, ours in (("inputs", served.inputs, interface.inputs), ("outputs", served.outputs, interface.outputs)):
        if sorted(theirs, key=str) != sorted(ours, key=str):
            raise ServingError(
                f"{name} serves {what} {_words(theirs)}, the new file has {_words(ours)}", hint="deploy it under another --name"
            )


def _same_folder(served: Served, repository: Path, name: str) -> None:
    """A server that reads another folder would never see the new version, and could pass the old one off as it."""
    missing = [version for version in served.versions if not (repository / name / version).is_dir()]
    if missing:
        raise ServingError(
            f"the server serves version {', '.join(missing)} of {name}, which is not in {repository}",
            hint="give the folder that this server reads: its --model-repository",
        )


def _words(ports: tuple[Any, ...]) -> str:
    return ", ".join(f"{port.name} {port.kind} {list(port.dims)}" for port in ports)


def _load(client: Client, name: str, published: PublishedVersion) -> None:
    """Tell the server, and wait until the version takes requests."""
    try:
        client.load(name)
    except ServerRefused as refused:
        if _POLLING not in refused.message:
            hint = f"the server's log says more; does it read {published.folder.parent}?"
            raise ServingError(f"the server cannot load version {published.version}: {refused.message}", hint=hint) from refused
    client.until_ready(name, str(published.version), within=client.timeout)


def _fitting(published: PublishedVersion, images: int) -> tuple[int, ...]:
    """The usual batch sizes, as far as the configuration and the images allow."""
    most = int(triton.parse(published.folder / triton.CONFIG).max_batch_size) or images
    return tuple(size for size in BATCHES if size <= min(most, images))


@dataclass(frozen=True, slots=True)
class _Question:
    """What the server is asked: images for one input, in batches, and what is computed for them here."""

    input: str
    images: Array
    wanted: dict[str, Array]
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Outputs:
    """What the server computed, by output, and for which image each row is."""

    outputs: dict[str, Array]
    asked: Array
    batches: tuple[int, ...]


def _outputs_there(client: Client, published: PublishedVersion, question: _Question) -> _Outputs:
    """The version is asked by number, and as what the model's clients get.

    Raises:
        ServingError: another version answers, or the answers have another shape.
    """
    name, batches, images = published.folder.name, question.batches, question.images
    got: dict[str, list[Array]] = {output: [] for output in question.wanted}
    asked: list[int] = []
    for version in (str(published.version), ""):
        start = 0
        while start < len(images):
            size = batches[len(asked) % len(batches)]
            rows = np.arange(start, min(start + size, len(images)))
            answer = client.infer(name, {question.input: np.ascontiguousarray(images[rows])}, version)
            if answer.version != str(published.version):
                raise ServingError(
                    f"the server answers for {name} with version {answer.version or 'unknown'}, {published.version} was loaded",
                    hint="does the version_policy of its config.pbtxt serve the newest version?",
                )
            for output, array in question.wanted.items():
                found = answer.outputs.get(output)
                if found is None or found.shape != array[rows].shape:
                    shape = "nothing" if found is None else f"shape {list(found.shape)}"
                    raise ServingError(
                        f"the server answers {shape} for {output!r}, wanted {list(array[rows].shape)}",
                        hint="compare its configuration with the file's outputs",
                    )
                got[output].append(found)
            asked.extend(rows)
            start += len(rows)
    return _Outputs({output: np.concatenate(parts) for output, parts in got.items()}, np.asarray(asked), batches)


def _compared(
    answers: _Outputs, published: PublishedVersion, wanted: dict[str, Array], tolerance: float
) -> tuple[float, float, bool]:
    """Error, spread, and whether every bit is equal.

    Raises:
        ServingError: the server computes something else, or the images could not have shown it.
    """
    asked, count = answers.asked, max(map(len, wanted.values()))
    outputs = [deviation(output, array[asked], answers.outputs[output], np.arange(count)) for output, array in wanted.items()]
    parity = judge(outputs, batches=answers.batches, tolerance=tolerance, warn=tolerance)
    if parity.verdict is ParityVerdict.FAIL:
        raise ServingError(
            f"version {published.version} computes something else on the server than here: off by {parity.error:.1e} of the "
            f"outputs' scale, at most {tolerance:.0e} is wanted",
            hint=f"other kernels are expected on a GPU: --tolerance {parity.would_pass_at:.0e} would pass",
        )
    if parity.verdict is ParityVerdict.INCONCLUSIVE:
        raise ServingError(
            f"the answers to different images lie only {parity.spread:.1e} apart, {parity.discrimination:.3g} times the error: "
            "no fault could have been seen",
            hint="compare on real images with --data",
        )
    exact = all(np.array_equal(array[asked], answers.outputs[output]) for output, array in wanted.items())
    return parity.error, parity.spread, exact


def _back(client: Client, name: str, published: PublishedVersion, served: Served | None) -> str:
    """Everything as it was; says in words what serves now."""
    withdraw(published)
    before = "" if served is None else max(served.versions, key=_number, default="")
    try:
        if served is None:
            _tell(client.unload, name)
            return f"{name} is not served, as before" if published.earlier else f"{name} was removed again"
        _tell(client.load, name)
        client.until_ready(name, before, within=client.timeout)
    except ServerSilent:
        kept = f"version {before} of {name} serves when it is back" if before else f"{name} is not in the repository"
        return f"the server does not answer any more, the repository is as it was: {kept}"
    except ServingError as error:
        return f"the repository is as it was, but the server does not go back: {error.message}"
    return f"rolled back, version {before} serves"


def _tell(order: Any, name: str) -> None:
    """A server that looks by itself takes no orders, and needs none."""
    try:
        order(name)
    except ServerRefused as refused:
        if _POLLING not in refused.message:
            raise


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0
