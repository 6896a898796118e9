"""Workers on Ray as an option names them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from compress.errors import ConfigError

_MOST = 1024
_SPELLINGS = "write ray, ray:4 (four actors), ray://HOST:10001 or ray://HOST:10001/4"


@dataclass(frozen=True, slots=True)
class RayWanted:
    """A Ray cluster, and how many actors there.

    Attributes:
        address: HOST:PORT of the cluster's Ray Client server; None is the cluster that this machine belongs to, or one that
            is started on it.
        actors: None is as many as the cluster has room for.
    """

    address: str | None = None
    actors: int | None = None

    @classmethod
    def read(cls, text: str) -> RayWanted:
        """Reads ``ray``, ``ray:4``, ``ray://HOST:PORT`` or ``ray://HOST:PORT/4``.

        Raises:
            ConfigError: it is none of these, or a number of actors that cannot be.
        """
        try:
            if text.startswith("ray://"):
                parts = urlsplit(text)
                address, count = parts.netloc, parts.path.removeprefix("/")
                if not parts.hostname or not parts.port or parts.query or parts.fragment or parts.username:
                    raise ValueError
            else:
                word, colon, count = text.partition(":")
                address = ""
                if word != "ray" or (colon and not count):
                    raise ValueError
            actors = int(count) if count else None
        except ValueError as error:
            raise ConfigError(f"workers is {text!r}, but names no workers", hint=f"a number, or Ray: {_SPELLINGS}") from error
        if actors is not None and not 1 <= actors <= _MOST:
            raise ConfigError(f"workers is {text!r}, but actors must be between 1 and {_MOST}", hint=_SPELLINGS)
        return cls(address or None, actors)

    @property
    def told(self) -> str:
        """For people."""
        return "Ray" if self.address is None else f"Ray at {self.address}"
