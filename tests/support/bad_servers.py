"""Servers that misbehave on real sockets: they answer for ever, drop by drop, with too much, or with nothing.

A behaviour is given a connection whose request has been read, and ``wait``, which sleeps and says whether the server is to
stop. ``BadServer`` behaves like that from the first request on; :class:`support.v2server.V2Server` can be told to from a
certain path on, so that it is honest until a version is published.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache

Wait = Callable[[float], bool]
Behaviour = Callable[[socket.socket, Wait], None]
PACE = 0.05
"""Seconds between drops: far below every timeout that a test gives, so that no single read is ever late."""
LASTS = 60.0
"""Seconds after which a behaviour gives up by itself: far above what a client may take."""
OK = b"HTTP/1.1 200 OK\r\n"


def _drip(connection: socket.socket, wait: Wait, start: bytes, drop: bytes, pace: float = PACE) -> None:
    connection.sendall(start)
    until = time.monotonic() + LASTS
    while time.monotonic() < until and not wait(pace):
        connection.sendall(drop)


def headers_dripped(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, OK + b"X-Slow: ", b"a")


def status_dripped(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, b"HTTP/1.1 200 ", b"O")


def many_headers_dripped(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, OK, b"A: b\r\n", 0.4)


def body_dripped(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, OK + b"Content-Length: 1000000\r\n\r\n{", b" ")


def body_dripped_until_closed(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, OK + b"Connection: close\r\n\r\n{", b" ")


def chunks_dripped(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n")


def trailers_dripped(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"A: b\r\n")


def endless_continue(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50, 0.01)


def continue_dripped(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, b"", b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_body(connection: socket.socket, wait: Wait) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    _drip(connection, wait, OK + b"Transfer-Encoding: chunked\r\n\r\n", chunk, 0.0)


def endless_trailers(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"A: b\r\n" * 10_000, 0.0)


def huge_header(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, OK + b"X-Huge: ", b"a" * 65536, 0.0)


def many_headers(connection: socket.socket, wait: Wait) -> None:
    _drip(connection, wait, OK, b"A: b\r\n" * 10_000, 0.0)


def huge_length(connection: socket.socket, wait: Wait) -> None:
    connection.sendall(OK + b"Content-Length: 1000000000000000\r\n\r\n{}")
    wait(LASTS)


def half_closed(connection: socket.socket, wait: Wait) -> None:
    connection.shutdown(socket.SHUT_WR)
    wait(LASTS)


def half_closed_in_the_body(connection: socket.socket, wait: Wait) -> None:
    connection.sendall(OK + b"Content-Length: 100\r\n\r\n{")
    connection.shutdown(socket.SHUT_WR)
    wait(LASTS)


def reset(connection: socket.socket, wait: Wait) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def redirect(connection: socket.socket, wait: Wait) -> None:
    there = b"http://127.0.0.1:9/elsewhere"
    connection.sendall(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: " + there + b"\r\nContent-Length: 0\r\n\r\n")


@cache
def _bomb() -> bytes:
    """200 MB of blanks, packed."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([packer.compress(b" " * 1_000_000) for _ in range(200)] + [packer.flush()])


def gzip_bomb(connection: socket.socket, wait: Wait) -> None:
    packed = _bomb()
    connection.sendall(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)


def junk(connection: socket.socket, wait: Wait) -> None:
    connection.sendall(b"\x00\xff\x16\x03\x01no HTTP at all\r\n\r\n")


def silent(connection: socket.socket, wait: Wait) -> None:
    wait(LASTS)


ENDLESS: tuple[Behaviour, ...] = (
    status_dripped,
    headers_dripped,
    many_headers_dripped,
    body_dripped,
    body_dripped_until_closed,
    chunks_dripped,
    trailers_dripped,
    continue_dripped,
    endless_continue,
    endless_body,
    endless_trailers,
    huge_header,
    many_headers,
    huge_length,
    half_closed,
    silent,
)
"""Those of which a client that bounds single reads, or nothing, is never rid, or only much too late."""
BAD: tuple[Behaviour, ...] = (*ENDLESS, half_closed_in_the_body, reset, redirect, gzip_bomb, junk)


@dataclass
class BadServer:
    """Where it listens, and the request lines that it was sent."""

    url: str
    log: list[str] = field(default_factory=list)


@contextmanager
def bad(behaviour: Behaviour) -> Iterator[BadServer]:
    """A server on the loopback address that answers every request in one bad way."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        world = BadServer(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.settimeout(10.0)
                request = b""
                while b"\r\n\r\n" not in request:
                    more = connection.recv(65536)
                    if not more:
                        return
                    request += more
                world.log.append(request.partition(b"\r\n")[0].decode("latin1"))
                behaviour(connection, stop.wait)

        def listen() -> None:
            while not stop.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield world
        finally:
            stop.set()
            thread.join()
