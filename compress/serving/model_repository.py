"""Putting a new version of a model into a repository that a server reads, and taking it out again.

The only change under a name that the server knows is one rename, of a folder that is whole and on the disk. A model
that is there keeps its configuration: it is somebody's tuning, and the new file has to fit it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from compress.core import hold_folder, read_bytes, remove
from compress.errors import CompressError, ExportError, ServingError
from compress.export import read_interface
from compress.serving import triton
from compress.serving.packages import package
from compress.serving.settings import Serving
from compress.serving.staging import staged

LOCK = ".compress-deploy.lock"
_ASIDE = ".incoming-"
_OURS = ("preprocessing.json", triton.LABELS)
"""What clients rely on beside the tensors: a new version must not need other images or mean other classes."""


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A version under its final name.

    Attributes:
        folder: ``<repository>/<name>``.
        version: the new one.
        earlier: the versions that were there before, oldest first; empty for a new model.
    """

    folder: Path
    version: int
    earlier: tuple[int, ...]


def require_folder(repository: Path) -> None:
    """Raises ServingError where there is no such folder."""
    if not repository.is_dir():
        raise ServingError(
            f"{repository} is not a folder", hint="give the folder that the server reads: its --model-repository"
        )


@contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Only one deployment at a time works in a repository.

    Raises:
        ServingError: there is no such folder, it cannot be written, or another deployment is at work in it.
    """
    require_folder(repository)
    with ExitStack() as held:
        try:
            held.enter_context(hold_folder(repository, LOCK))
        except BlockingIOError as error:
            raise ServingError(f"another deployment is at work in {repository}", hint="wait until it is done") from error
        except OSError as error:
            raise _unwritable(repository, error) from error
        yield


def publish(onnx: Path, repository: Path, name: str, serving: Serving) -> PublishedVersion:
    """Package a file aside, check it as Triton would, and rename it into the next version.

    Args:
        onnx: the new network.
        repository: locked by the caller.
        name: of the model, new or there already.
        serving: for a new model; one that is there keeps its configuration.

    Raises:
        ExportError: the file cannot be served, or not under the configuration that is there.
        ServingError: somebody left an unfinished version there, or the folder cannot be written.
    """
    final = repository / name
    earlier = _whole_versions(final) if final.exists() else ()
    version = (earlier[-1] if earlier else 0) + 1
    _sweep(repository, final)
    try:
        with staged(repository, name) as aside:
            fresh = package(onnx, aside / "package", "triton", name=name, serving=serving).folder
            (fresh / "1").rename(fresh / str(version))
            if earlier:
                _same_for_clients(fresh, final)
                _fits(fresh, final)
                _rename(fresh / str(version), final / str(version))
            else:
                _rename(fresh, final)
    except OSError as error:
        raise _unwritable(repository, error) from error
    except ExportError as error:
        if isinstance(error.__cause__, OSError):  # it names a folder that is gone by now
            raise _unwritable(repository, error.__cause__) from error
        raise
    return PublishedVersion(final, version, earlier)


def withdraw(published: PublishedVersion) -> None:
    """Take a version out again: first from its name, in one step, then from the disk.

    Raises:
        ServingError: it cannot be renamed; the hint says what to remove by hand.
    """
    place = published.folder / str(published.version) if published.earlier else published.folder
    aside = place.with_name(f"{_ASIDE}withdrawn-{os.getpid()}-{published.version}")
    try:
        if not published.earlier:
            with suppress(OSError), staged(place.parent, place.name) as folder:  # at the top it would pass for a model
                place.rename(folder / place.name)
        if place.exists():  # inside a model's folder a server looks at numbers only
            place.rename(aside)
        _sync(place.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ServingError(f"{place} cannot be taken back: {error.strerror}", hint=f"remove it by hand: {place}") from error
    with suppress(CompressError):  # it serves nobody any more; the next deployment sweeps what is left
        remove(aside)


def _whole_versions(folder: Path) -> tuple[int, ...]:
    """The versions of a model that is there; each must hold a file that can be read.

    A server takes the highest number. One that somebody is still writing would become what is served as soon as the
    model is loaded again, or what is fallen back to.
    """
    found = triton.versions(folder)
    for version in found:
        file = folder / str(version) / triton.MODEL
        try:
            read_interface(file)
        except ExportError as error:
            raise ServingError(
                f"version {version} of {folder.name} is not whole ({error.message}): somebody may be writing it",
                hint=f"wait for it, or remove {file.parent}",
            ) from error
    if not found:
        raise ServingError(f"{folder} is there without any version", hint="remove it, or deploy under another --name")
    return found


def _same_for_clients(fresh: Path, final: Path) -> None:
    for name in _OURS:
        ours, theirs = fresh / name, final / name
        if ours.is_file() and theirs.is_file() and read_bytes(ours) != read_bytes(theirs):
            raise ServingError(
                f"the new network's {name} is not that of {final}: clients would be wrong about it",
                hint="deploy it under another --name",
            )


def _fits(fresh: Path, final: Path) -> None:
    """Under the configuration that is there, and served by it."""
    (fresh / triton.CONFIG).write_bytes(read_bytes(final / triton.CONFIG))
    hint = "deploy it under another --name, or change that configuration by hand"
    try:
        triton.check(fresh)
    except ExportError as error:
        raise ServingError(f"the new file does not fit {final / triton.CONFIG}: {error.message}", hint=hint) from error
    if triton.parse(fresh / triton.CONFIG).version_policy.WhichOneof("policy_choice") == "specific":
        raise ServingError(f"{final / triton.CONFIG} names the versions to serve: a new one would not be", hint=hint)


def _rename(source: Path, target: Path) -> None:
    if target.exists():  # rename(2) would replace an empty folder
        raise ServingError(f"{target} appeared meanwhile: somebody else writes there", hint="start the deployment again")
    _sync(source)
    source.rename(target)
    _sync(target.parent)


def _sweep(*folders: Path) -> None:
    """What deployments of an earlier version that were killed left here; nobody else is at work, the lock is ours."""
    for folder in folders:
        for left in folder.glob(f"{_ASIDE}*") if folder.is_dir() else ():
            remove(left)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(repository: Path, error: OSError) -> CompressError:
    return ServingError(
        f"the repository {repository} cannot be written: {error.strerror}", hint="free space, or ask for rights on it"
    )
