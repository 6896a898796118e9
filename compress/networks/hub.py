"""A hub's repositories, through huggingface_hub: its cache, endpoint (``HF_ENDPOINT``), offline switch and login."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from compress.errors import CheckpointError, one_line

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Repository:
    """Where something lies on a hub.

    Attributes:
        name: ``ORG/NAME``.
        revision: a branch, tag or commit; None is the main branch.
    """

    name: str
    revision: str | None = None

    @staticmethod
    def of(text: str) -> Repository:
        """``ORG/NAME`` or ``ORG/NAME@REVISION``.

        Raises:
            CheckpointError: it is something else.
        """
        name, _, revision = text.partition("@")
        if _REPOSITORY.fullmatch(name) is None:
            raise CheckpointError(f"{text[:80]!r} names no repository of a hub", hint="as in hf-hub:timm/resnet18.a1_in1k")
        return Repository(name, revision or None)

    def file(self, name: str) -> Path | None:
        """One of its files, from the hub's cache or fetched; None where it has none of this name.

        Raises:
            CheckpointError: huggingface_hub is not installed, or the hub does not answer or refuses.
        """
        need_hub(f"hf-hub:{self.name}")
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.name, name, revision=self.revision, endpoint=endpoint()))
        except LocalEntryNotFoundError as error:
            raise CheckpointError(
                f"{name} of hf-hub:{self.name} is not in the cache, and the hub cannot be reached: {one_line(error, 120)}",
                hint=f"where there is a connection: `hf download {self.name} {name}`; then give the file itself, with --arch",
            ) from error
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise CheckpointError(
                f"hf-hub:{self.name} cannot be read: {one_line(error, 200)}",
                hint="check its name; one that is private or gated wants `hf auth login`",
            ) from error

    def put(self, folder: Path, *, private: bool, message: str) -> str:
        """All files of a folder as one commit; the repository is made where there is none.

        Returns:
            The commit's address.

        Raises:
            CheckpointError: huggingface_hub is not installed, or the hub refuses or cannot be reached.
        """
        need_hub(f"pushing to {self.name}")
        from huggingface_hub import HfApi

        api = HfApi(endpoint=endpoint())
        try:
            api.create_repo(self.name, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=self.name, folder_path=folder, commit_message=message, revision=self.revision)
        except Exception as error:  # its HTTP library has a tree of errors of its own
            raise CheckpointError(
                f"nothing was pushed to {self.name}: {one_line(error, 200)}",
                hint="`hf auth login` with a token that may write, and check the name; then the same command again",
            ) from error
        return str(done.commit_url)


def endpoint() -> str | None:
    """The hub's address where the environment says one, asked when it is needed; None is huggingface_hub's own."""
    return os.environ.get("HF_ENDPOINT") or None


def need_hub(what: str) -> None:
    """Asks before any work whether huggingface_hub is there.

    Raises:
        CheckpointError: it is not.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise CheckpointError(
            f"{what} needs huggingface_hub, which is not installed", hint="pip install 'smaller-convnets[hub]'"
        )
