"""A client of the v2 inference protocol on the standard library: health, metadata, loading, inference, statistics."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from compress.errors import ConfigError, ServerRefused, ServerSilent, ServingError, one_line
from compress.export import Port
from compress.runtime import Array
from compress.serving.exchange import Connection, Deadline, Reply, TooLong
from compress.serving.v2_protocol import Answer, Body, Format, decode, encode

LARGEST = 1 << 28
"""Bytes of tensors in an answer; what is longer is none."""
LARGEST_FACTS = 1 << 24
"""Bytes of an answer that holds no tensors: a description, or a refusal."""
LONGEST = 86_400.0
"""Seconds that may be given to one answer."""
UNREADABLE = frozenset({400, 415, 422, 500})
"""What servers say to a body in the form that they do not read. MLServer fails with 400 or 500, KServe with either."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a loaded model takes and gives, in the words of the server."""

    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


class Client:
    """One connection to one server, kept open between calls; not to be shared between threads.

    Args:
        url: ``http://host:port``, with a path if the server is behind one.
        timeout: seconds that one exchange may take, from connecting to the answer's last byte.

    Raises:
        ConfigError: the URL or the timeout cannot be used.
    """

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        if not 0 < timeout <= LONGEST:
            raise ConfigError(
                f"a timeout of {timeout:g} s, above 0 and up to {LONGEST:,.0f} is wanted", hint="leave --timeout at its default"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"{url!r} is no URL: {error}", hint="write it as http://127.0.0.1:8000") from error
        written = url.isascii() and url.isprintable() and " " not in url  # nothing that would end a request's line
        if parts.scheme not in ("http", "https") or not host or port == 0 or not written:
            raise ConfigError(f"{url!r} is no http URL", hint="write it as http://127.0.0.1:8000")
        self.url, self.timeout = url.rstrip("/"), timeout
        self._prefix = parts.path.rstrip("/")
        self._connection = Connection(host, port, secure=parts.scheme == "https")
        self._phase: Deadline | None = None
        self._form: Format | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """One deadline for all exchanges inside, beside each one's own."""
        outer, self._phase = self._phase, Deadline(seconds, self._phase)
        try:
            yield
        finally:
            self._phase = outer

    # ---- health and metadata -----------------------------------------------------------------------------------------

    def live(self) -> bool:
        """Whether a server is there and works. It may be live and not ready: Triton with strict readiness says so while any
        version of any model is being loaded or unloaded, or has failed to load.

        Raises:
            ServerSilent: nobody answers.
        """
        return self._ask("GET", "/v2/health/live").status == 200

    def ready(self, model: str = "", version: str = "") -> bool:
        """Whether the server, a model, or one version of it takes requests.

        Raises:
            ServerSilent: nobody answers.
        """
        path = f"{_of(model, version)}/ready" if model else "/v2/health/ready"
        return self._ask("GET", path).status == 200

    def until_ready(self, model: str, version: str = "", *, within: float, poll: float = 0.05) -> float:
        """Ask until a model takes requests; returns the seconds that took.

        Raises:
            ServingError: it does not within that time.
            ServerSilent: the server has gone, or does not answer within that time.
        """
        start = time.monotonic()
        with self.within(within):
            while not self.ready(model, version):
                waited = time.monotonic() - start
                if waited + poll > within:
                    what = f"version {version} of {model}" if version else model
                    raise ServingError(
                        f"{what} did not become ready at {self.url} in {waited:.0f} s",
                        hint="look into the server's log, or give it longer with --timeout",
                    )
                time.sleep(poll)
        return time.monotonic() - start

    def interface(self, model: str, version: str = "") -> Served:
        """What a loaded model takes and gives.

        Raises:
            ServerRefused: it is not loaded.
        """
        facts = self._json("GET", _of(model, version))
        try:
            inputs, outputs = (
                tuple(Port(str(t["name"]), str(t["datatype"]), tuple(map(int, t["shape"]))) for t in facts.get(side) or [])
                for side in ("inputs", "outputs")
            )
            versions = tuple(map(str, facts.get("versions") or []))
            platform = str(facts.get("platform", ""))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ServingError(f"{self.url} describes {model} in words that are not the v2 protocol's", hint=_WHO) from error
        return Served(versions, platform, inputs, outputs)

    def statistics(self, model: str, version: str = "") -> dict[str, Any]:
        """Counts and times of a model's requests and batches (Triton's extension)."""
        facts: dict[str, Any] = self._json("GET", f"{_of(model, version)}/stats")
        return facts

    # ---- the repository ----------------------------------------------------------------------------------------------

    def load(self, model: str) -> None:
        """Have the server read the model's folder again.

        Raises:
            ServerRefused: it cannot load what is there; what was loaded before goes on serving.
        """
        self._json("POST", f"/v2/repository/models/{quote(model, safe='')}/load", Body(b"{}", {}))

    def unload(self, model: str) -> None:
        """Have the server forget a model."""
        self._json("POST", f"/v2/repository/models/{quote(model, safe='')}/unload", Body(b"{}", {}))

    # ---- inference ---------------------------------------------------------------------------------------------------

    def infer(self, model: str, inputs: Mapping[str, Array], version: str = "") -> Answer:
        """Compute; the first call finds out whether the server reads binary bodies, which are several times smaller.

        Raises:
            ServerRefused: the request does not fit the model.
            ServerSilent: no answer in time.
        """
        if self._form is None:
            self._form, answer = self._negotiate(model, inputs, version)
            return answer
        return self._infer(model, encode(inputs, self._form), version)

    def _negotiate(self, model: str, inputs: Mapping[str, Array], version: str) -> tuple[Format, Answer]:
        facts = self._json("GET", "/v2")
        extensions = facts.get("extensions") if isinstance(facts, dict) else None
        if isinstance(extensions, list) and "binary_tensor_data" in extensions:
            return "binary", self._infer(model, encode(inputs, "binary"), version)
        try:  # KServe reads binary bodies without saying so
            return "binary", self._infer(model, encode(inputs, "binary"), version)
        except ServerRefused as refused:
            if refused.status not in UNREADABLE:
                raise
        except ServingError:
            pass
        return "json", self._infer(model, encode(inputs, "json"), version)

    def _infer(self, model: str, body: Body, version: str) -> Answer:
        reply = self._ask("POST", f"{_of(model, version)}/infer", body, most=LARGEST)
        if reply.status != 200:
            raise self._refused(f"{model} at {self.url}", reply)
        return decode(reply.body, reply.headers)

    # ---- the connection ----------------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, body: Body | None = None) -> Any:
        reply = self._ask(method, path, body)
        if reply.status != 200:
            raise self._refused(f"{self.url}{path}", reply)
        try:
            return json.loads(reply.body) if reply.body.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ServingError(f"{self.url}{path} answers something that is no JSON", hint=_WHO) from error

    def _ask(self, method: str, path: str, body: Body | None = None, *, most: int = LARGEST_FACTS) -> Reply:
        """One exchange. A kept connection that the server has closed meanwhile is opened again, once, within the deadline."""
        deadline = Deadline(self.timeout, self._phase)
        given = math.ceil(1000 * max(0.0, deadline.ends - time.monotonic())) / 1000
        try:
            return self._exchanged(method, self._prefix + path, body, deadline, most)
        except TimeoutError as error:
            raise ServerSilent(
                f"{self.url} did not answer {path} within {given:g} s",
                hint="is it overloaded? Give it longer: --timeout",
            ) from error
        except TooLong as error:
            raise ServingError(f"{self.url}{path} answers with more than {most:,} bytes", hint=_WHO) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServerSilent(
                f"no inference server answers at {self.url}: {reason}", hint="start it, or give its address with --url"
            ) from error

    def _exchanged(self, method: str, path: str, body: Body | None, deadline: Deadline, most: int) -> Reply:
        connection = self._connection
        data, headers = (None, {}) if body is None else (body.data, body.headers)
        kept = connection.kept
        try:
            return connection.exchange(method, path, data, headers, deadline=deadline, most=most)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            connection.close()
            if not kept:
                raise
        except BaseException:  # what is still to come must not pass for the next answer
            connection.close()
            raise
        try:
            return connection.exchange(method, path, data, headers, deadline=deadline, most=most)
        except BaseException:
            connection.close()
            raise

    def _refused(self, what: str, reply: Reply) -> ServerRefused:
        try:
            facts = json.loads(reply.body)
            said = facts.get("error") or facts.get("detail") or facts
        except (ValueError, AttributeError, RecursionError):
            said = reply.body.decode(errors="replace")
        return ServerRefused(reply.status, f"{what} answers {reply.status}: {one_line(said)}", hint=_hint(reply.status))


_WHO = "check that the URL is an inference server's HTTP port"


def _hint(status: int) -> str:
    if status == 404:
        return "is the name right, and the model loaded? See the server's /v2/repository/index"
    return "the server's log says more"


def _of(model: str, version: str) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path
