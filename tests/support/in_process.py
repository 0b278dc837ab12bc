"""`score serve` inside the tests' process, on a real socket."""

from __future__ import annotations

import faulthandler
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from score import __version__
from score.core.embedder import Embedder, pipeline_of
from score.core.identity import Identity
from score.core.model_source import Loaded, Source
from score.core.observer import NOBODY
from score.dialects.base import ModelFacts
from score.serve import listener
from score.serve.access import Access
from score.serve.running import Server
from score.serve.tracing import UNTRACED, Tracing
from score.settings import Settings, setting_fields

IDENTITY = Identity(__version__, "tested", "0123456789ab", "torch", "fp32", "cpu")
GIVE_UP = 60.0


@dataclass(frozen=True)
class Running:
    """A server that runs. url: without a path."""

    server: Server
    url: str
    port: int

    def connect(self) -> socket.socket:
        """A new connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=GIVE_UP)

    @property
    def connections(self) -> int:
        """Connections that the server holds."""
        return len(self.server.server_state.connections)


@contextmanager
def running(
    load: Callable[[], Loaded], wait: bool = True, name: str = "tested", **settings: Any
) -> Iterator[Running]:
    """A server of one model. wait: until it is loaded."""
    with running_models([Source(ModelFacts(name, 512, 77), load)], wait, **settings) as server:
        yield server


@contextmanager
def running_models(
    sources: Sequence[Source], wait: bool = True, traces: Tracing = UNTRACED, **settings: Any
) -> Iterator[Running]:
    """A server with these settings. wait: until its models are loaded."""
    bound = listener.bound("127.0.0.1", 0)
    port = bound.getsockname()[1]
    server = Server(sources, Settings(**settings), Access(only_local=False), traces=traces)
    thread = threading.Thread(target=server.run, args=[[bound]])
    thread.start()
    try:
        until(lambda: server.started and (not wait or server._lifecycle.state != "loading"))
        yield Running(server, f"http://127.0.0.1:{port}", port)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(GIVE_UP)
        bound.close()
        if thread.is_alive():
            faulthandler.dump_traceback()
            raise AssertionError("the server does not end; where its threads are stands above")


@contextmanager
def serving(embedder: Embedder, **settings: Any) -> Iterator[Running]:
    """A server of a loaded model, with the model's settings but for those that are given."""
    own = {field.name: getattr(embedder.settings, field.name) for field in setting_fields()}
    load = partial(Loaded, embedder, IDENTITY)
    try:
        with running(load, name=embedder.name, **{**own, **settings}) as server:
            yield server
    finally:
        pipeline_of(embedder).observe(NOBODY)


def until(happened: Callable[[], object]) -> None:
    """Returns once something has happened."""
    give_up = time.monotonic() + GIVE_UP
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def rest(sock: socket.socket) -> bytes:
    """All that comes until the other side closes, or resets, the connection."""
    received = b""
    with suppress(ConnectionError):
        while chunk := sock.recv(65536):
            received += chunk
    return received
