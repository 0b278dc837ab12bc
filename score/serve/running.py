"""Runs the server: loads models beside it, bounds its connections, and stops it in order.

Stopping (SIGTERM, Ctrl+C):

1. At once `/health/ready` is 503, and each answer ends its connection. For `shutdown_delay` new
   requests are still answered, so that load balancers can notice.
2. The listener is closed. Connections between requests have a moment for what is already on its
   way, then they are closed.
3. Requests under way are answered; unfinished bodies are given up after half of
   `shutdown_timeout`. After all of it the remaining requests get a 503.
4. The traces that are left are sent, for some seconds at most, and the process ends.

A second signal ends the process at once. A worker of several keeps to its supervisor's order: it
may get the first one twice, from the supervisor and from the terminal or systemd.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from score.core.model_source import Loaded, Source
from score.core.models import Models
from score.core.served_model import Watcher
from score.errors import ModelError
from score.hardware import garbage
from score.serve import connection, information, listener, logs, web_page
from score.serve.access import Access, protected
from score.serve.app import application
from score.serve.health import Health
from score.serve.lifecycle import Lifecycle
from score.serve.local_only import is_loopback
from score.serve.metrics import Metrics
from score.serve.request_log import RequestLog
from score.serve.service import Service
from score.serve.tls import secure, tls_of
from score.serve.tracing import UNTRACED, Tracing, tracing
from score.settings import Settings

log = logging.getLogger("score.serve")

_LOOK = 0.5  # seconds between looks at the connections
_ACCEPTED = 1  # connections in a turn of the loop: the others are for the workers beside this one
_WAITING = 2048  # connections that may wait to be accepted
_LOOK_AT_LOADING = 0.02  # seconds between looks at whether the models are loaded
_LAST_REQUESTS = 1.0  # seconds that idle connections stay open after the listener is closed
_UVICORNS_PAUSE = 0.1  # seconds, before it waits for requests
_QUIET_TURNS = 5  # turns of the loop without a new connection after which the listener is closed
_EXIT = 5.0  # seconds that threads have once all is answered

Ready = Callable[[], None]


class Server(uvicorn.Server, Watcher):
    """uvicorn's server with models that are loaded while it runs.

    failure: why a model could not be loaded at the start.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        settings: Settings,
        access: Access,
        ready: Ready | None = None,
        traces: Tracing = UNTRACED,
    ) -> None:
        """`ready`: as in `serve`."""
        self._settings, self._ready, self._traces = settings, ready, traces
        self._lifecycle = Lifecycle()
        self._metrics = Metrics()
        self._models = Models.from_sources(sources, settings, self)
        self._health = Health(self._models)
        self._metrics.serves(model.name for model in self._models)
        self._log = RequestLog()
        self._log.started = self._metrics.request_started
        self._log.finished = self._metrics.request_finished
        self._service = Service(settings, self._lifecycle)
        app = traces.around(self._log.around(protected(self._service, access)))
        config = _config(app, settings, self._log)
        secure(config, tls_of(settings))
        super().__init__(config)
        self._tasks: list[asyncio.Task[None]] = []
        self._signalled = False
        self.failure: Exception | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and begins to load the models; with a `ready`, listens once that is done."""
        self._load_models(asyncio.get_running_loop())
        if self._ready is not None:
            while self._lifecycle.state == "loading" and not self.should_exit:
                await asyncio.sleep(_LOOK_AT_LOADING)
            if self.should_exit:
                return
        await super().startup(sockets)
        is_secure = self.config.ssl is not None
        for sock in sockets or []:
            sock.listen(_WAITING)
            log.info("listening on %s/score (Ctrl+C to quit)", listener.url(sock, secure=is_secure))
        self._tasks = [asyncio.create_task(self._watch())]
        if self._ready is not None:
            self._ready()

    def _load_models(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._settings.load_on_first_use:
            self._serve_requests()
            return

        def when_loaded(last: Future[bool]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._serve_requests)

        self._models.load()[-1].add_done_callback(when_loaded)

    def _serve_requests(self) -> None:
        """Unless a model could not be loaded: then the server stops."""
        if self.failure is None:
            others = [*information.routes(self._models, self._metrics), *web_page.routes()]
            self._service.loaded(application(self._models, others), self._health.fault)
            log.info("startup complete: requests are answered")

    @override
    def model_loaded(self, name: str, loaded: Loaded) -> None:
        """On the thread that loads models, before a model answers."""
        self._health.loaded(name, loaded.embedder)
        self._metrics.loaded(name, loaded)
        self._traces.watch(loaded.embedder)
        garbage.leave_out_what_is_loaded()
        log.info("the model %r is loaded", name)

    @override
    def model_failed(self, name: str, error: Exception) -> None:
        """On the thread that loads models."""
        self._metrics.failed(name)
        if self._lifecycle.state == "loading":
            self.failure = error
            self.should_exit = True
            self._models.close()  # the others need not be loaded
        elif isinstance(error, ModelError):
            log.error("the model %r cannot be loaded: %s", name, error)
        else:
            log.error("the model %r cannot be loaded", name, exc_info=error)

    @override
    def model_unloaded(self, name: str) -> None:
        """On the thread that loads models."""
        self._health.unloaded(name)
        self._metrics.unloaded(name)
        log.info("the model %r is unloaded: no request has used it for a while", name)

    async def _watch(self) -> None:
        """Ends connections whose clients keep them waiting, and unloads models that are idle."""
        while True:
            await asyncio.sleep(_LOOK)
            self._models.unload_idle()
            now = asyncio.get_running_loop().time()
            for each in list(self.server_state.connections):
                try:
                    cast("connection.Connection", each).check(now)
                except Exception:
                    log.exception("a connection cannot be ended in order")
                    each.transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops in order; see above."""
        self._lifecycle.stop()
        log.info("stopping: requests under way are answered")
        await self._pause(self._settings.shutdown_delay, lambda: False)
        loop, seconds = asyncio.get_running_loop(), self._settings.shutdown_timeout
        began, last_requests = loop.time(), min(_LAST_REQUESTS, seconds / 4)
        self._lifecycle.bodies_until = began + seconds / 2
        await self._accept_waiting(sockets or [], began + last_requests)
        for server in self.servers:
            server.close()
        await self._pause(last_requests, lambda: not self.server_state.connections)
        left = max(0.0, began + seconds - loop.time() - _UVICORNS_PAUSE)
        self.config.timeout_graceful_shutdown = cast("int", left)
        await super().shutdown(sockets)
        self.load_no_more()

    def load_no_more(self) -> None:
        """Ends the loading of models after the one that is being loaded."""
        self._models.close()

    @property
    def is_loading(self) -> bool:
        """Whether a model is being loaded, which nothing can stop."""
        return self._models.are_being_loaded

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to stop, at a signal; a second one ends the process."""
        if self._signalled and self._ready is None:
            log.warning("a second signal: requests under way are dropped")
            exit_at_once(128 + sig)
        self._signalled = True
        self.should_exit = True

    async def _accept_waiting(self, sockets: list[socket.socket], until: float) -> None:
        """Returns when no connection waits to be accepted, or is being accepted: closing the
        listener would reset it. Accepting takes the loop a few turns."""
        quiet = 0
        while quiet < _QUIET_TURNS and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0)
            quiet = 0 if any(listener.has_waiting(sock) for sock in sockets) else quiet + 1

    async def _pause(self, seconds: float, enough: Callable[[], bool]) -> None:
        """Waits until there is enough, for so many seconds at most."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until and not enough():
            await asyncio.sleep(min(0.05, seconds))


def _config(app: ASGIApp, settings: Settings, log: RequestLog) -> uvicorn.Config:
    return uvicorn.Config(
        cast("Any", app),
        http=cast("Any", connection.factory(settings, log)),
        loop="asyncio",  # though uvloop be installed: nothing here is tested with it
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_config=None,
        backlog=_ACCEPTED,  # to asyncio also how many may wait, which `startup` sets to more
        timeout_keep_alive=cast("int", settings.keep_alive_timeout),
    )


def serve(
    sources: Sequence[Source],
    settings: Settings,
    bound: socket.socket,
    access: Access,
    ready: Ready | None = None,
) -> bool:
    """Serves until interrupted; pending requests are finished first. Returns whether a model is
    still being loaded. Raises what the loading of a model at the start raises.

    `ready`: for one of several processes: it listens once its models are loaded, until when the
    others answer, and calls `ready` then.
    """
    logs.configure(settings)
    traces = tracing()
    server = Server(sources, settings, access, ready, traces)
    log.info("%s", access)
    if access.keys_file and not server.config.ssl and not is_loopback(bound.getsockname()[0]):
        log.warning("keys are sent unencrypted: use --tls-cert and --tls-key, or a proxy with TLS")
    signal.signal(signal.SIGTERM, server.handle_exit)  # while uvicorn starts, and after it
    with suppress(KeyboardInterrupt):  # raised before uvicorn has taken over the signals
        server.run(sockets=[bound])
    server.load_no_more()  # `shutdown` is not called where the server has not started
    with suppress(KeyboardInterrupt):
        traces.close()
    if server.failure:
        raise server.failure
    return server.is_loading


def exit_at_once(code: int) -> None:
    """Ends the process without waiting for its threads. While one is inside a library that loads a
    model, the library's own threads would abort the process at an orderly end."""
    logging.shutdown()
    os._exit(code)


def exit_within(code: int) -> None:
    """Ends the process within some seconds, though a thread (a download, say) may still run."""
    timer = threading.Timer(_EXIT, os._exit, [code])
    timer.daemon = True
    timer.start()
