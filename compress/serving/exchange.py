"""HTTP exchanges that end: one deadline over all of connecting, sending and the answer, and a bound on what is read.

A timeout of the standard library bounds each read. A server that sends one byte a second is never late by it, and neither is
one that says "100 Continue" for ever. Here the time that is left is set anew before every operation on the socket.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_HEAD = 1 << 20
"""Bytes beside the body: status lines, headers, chunk sizes, trailers."""


class TooLong(Exception):
    """An answer of more bytes than are read."""


class Deadline:
    """A point in time.

    Args:
        seconds: from now.
        outer: another one, that this one does not outlive.
    """

    def __init__(self, seconds: float, outer: Deadline | None = None) -> None:
        ends = time.monotonic() + seconds
        self.ends: float = ends if outer is None else min(ends, outer.ends)

    def left(self) -> float:
        """Seconds until then.

        Raises:
            TimeoutError: none.
        """
        seconds = self.ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the deadline has passed")
        return seconds


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One connection to one server, opened when it is needed and kept; not to be shared between threads."""

    def __init__(self, host: str, port: int | None, *, secure: bool) -> None:
        self._http = _Bounded(host, port, secure=secure)

    @property
    def kept(self) -> bool:
        """Whether it is open, as after an earlier exchange: the server may have closed it meanwhile."""
        return self._http.sock is not None

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *, deadline: Deadline, most: int
    ) -> Reply:
        """Ask, and read the whole answer; redirects are answers like others.

        Args:
            method: HTTP's.
            path: of the request.
            body: sent with it; None without.
            headers: sent with it.
            deadline: for all of it.
            most: bytes of the answer's body.

        Raises:
            TimeoutError: the answer was not complete in time.
            TooLong: it is longer.
            OSError: the connection failed.
            http.client.HTTPException: what came is no answer.
        """
        self._http.limits = _Limits(deadline, most + _HEAD)
        self._http.request(method, path, body=body, headers=dict(headers))
        with self._http.getresponse() as response:
            if (response.length or 0) > most:
                raise TooLong
            answer = response.read(most + 1)
            if len(answer) > most:
                raise TooLong
            if response.length:  # the server hung up before the end, which reading in part does not say
                raise http.client.IncompleteRead(answer, response.length)
            return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, answer)


@dataclass(slots=True)
class _Limits:
    """What is left to one exchange."""

    deadline: Deadline
    bytes: int

    def took(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise TooLong


class _Bounded(http.client.HTTPConnection):
    """The standard library's connection on a socket that knows its exchange's limits."""

    def __init__(self, host: str, port: int | None, *, secure: bool) -> None:
        super().__init__(host, port or (443 if secure else 80))
        self.default_port = 443 if secure else 80
        self._context = ssl.create_default_context() if secure else None
        self.limits = _Limits(Deadline(0.0), 0)
        self.sock: Any = None

    def connect(self) -> None:
        """Within the exchange's deadline: the name, every address, the handshake."""
        plain = _connected(self.host, self.port, self.limits.deadline)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is None:
            self.sock = _Socket(plain, self)
            return
        plain.settimeout(self.limits.deadline.left())
        self.sock = _Socket(self._context.wrap_socket(plain, server_hostname=self.host), self)


class _Socket:
    """The part of a socket that http.client uses; every operation is given the seconds that are left."""

    def __init__(self, plain: socket.socket, owner: _Bounded) -> None:
        self.plain, self.owner = plain, owner

    def sendall(self, data: bytes) -> None:
        self.plain.settimeout(self.owner.limits.deadline.left())
        self.plain.sendall(data)  # its timeout is for all of the data

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self))

    def close(self) -> None:
        self.plain.close()


class _BoundedReader(io.RawIOBase):
    """What arrives on a socket, as long as its exchange may last."""

    def __init__(self, source: _Socket) -> None:
        super().__init__()
        self._source, self._file = source, source.plain.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        limits = self._source.owner.limits
        self._source.plain.settimeout(limits.deadline.left())
        count = self._file.readinto(buffer) or 0
        limits.took(count)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _connected(host: str, port: int, deadline: Deadline) -> socket.socket:
    """The first address that answers; each has its share of the time, so that one that is silent leaves some for the others."""
    addresses = _addresses(host, port, deadline)
    failure: OSError = OSError(f"{host} has no address")
    for at, (family, kind, protocol, _, address) in enumerate(addresses):
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(deadline.left() / (len(addresses) - at))
            made.connect(address)
        except OSError as error:
            made.close()
            failure = error
        else:
            return made
    raise failure


def _addresses(host: str, port: int, deadline: Deadline) -> list[Any]:
    """A name's addresses. The system's resolver knows no deadline: a thread that is left to itself waits for it."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        pass
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # a label of a name may be too long to be encoded
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(deadline.left())
    if not found:
        raise TimeoutError(f"the name {host} was not found in time")
    if isinstance(found[0], Exception):
        raise OSError(f"{host}: {getattr(found[0], 'strerror', None) or found[0]}") from found[0]
    return list(found[0])
