"""Runs the server: loads the model beside it, bounds its connections, and stops it in order.

Stopping (SIGTERM, Ctrl+C):

1. At once `/health/ready` is 503, and each answer ends its connection. For `shutdown_delay` new
   requests are still answered, so that load balancers can notice.
2. The listener is closed. Connections between requests have a moment for what is already on its
   way, then they are closed.
3. Requests under way are answered; unfinished bodies are given up after half of
   `shutdown_timeout`. After all of it the remaining requests get a 503, and the process ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from score.core.embedder import Embedder
from score.core.identity import Identity
from score.serve import connection, information, listener, logs, web_page
from score.serve.access import Access, protected
from score.serve.app import application
from score.serve.health import Readiness
from score.serve.lifecycle import Lifecycle
from score.serve.local_only import is_loopback
from score.serve.metrics import Metrics
from score.serve.request_log import RequestLog
from score.serve.service import Service
from score.serve.tls import secure, tls_of
from score.settings import Settings

log = logging.getLogger("score.serve")

_LOOK = 0.5  # seconds between looks at the connections
_LOOK_AT_LOADING = 0.02  # seconds between looks at whether the model is loaded
_LAST_REQUESTS = 1.0  # seconds that idle connections stay open after the listener is closed
_QUIET_TURNS = 5  # turns of the loop without a new connection after which the listener is closed
_EXIT = 5.0  # seconds that threads have once all is answered

Load = Callable[[], tuple[Embedder, Callable[[], Identity]]]
"""Loads a model; the second part reads the whole folder, and is called once the first serves."""
Ready = Callable[[], None]


class Server(uvicorn.Server):
    """uvicorn's server with a model that is loaded while it runs.

    failure: why the model could not be loaded.
    """

    def __init__(
        self, load: Load, settings: Settings, access: Access, ready: Ready | None = None
    ) -> None:
        """`ready`: as in `serve`."""
        self._load, self._settings, self._ready = load, settings, ready
        self._lifecycle = Lifecycle()
        self._metrics = Metrics()
        self._log = RequestLog()
        self._log.started = self._metrics.request_started
        self._log.finished = self._metrics.request_finished
        self._service = Service(settings, self._lifecycle)
        app = self._log.around(protected(self._service, access))
        config = _config(app, settings, self._log)
        secure(config, tls_of(settings))
        super().__init__(config)
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = threading.Event()
        self.failure: Exception | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and begins to load the model; with a `ready`, listens once that is done."""
        thread = threading.Thread(
            target=self._load_model, args=[asyncio.get_running_loop()], name="load", daemon=True
        )
        thread.start()
        if self._ready is not None:
            while self._lifecycle.state == "loading" and not self.should_exit:
                await asyncio.sleep(_LOOK_AT_LOADING)
            if self.should_exit:
                return
        await super().startup(sockets)
        self._tasks = [asyncio.create_task(self._watch())]
        if self._ready is not None:
            self._ready()

    def _load_model(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            embedder, identify = self._load()
            self._metrics.loaded(embedder)
            identity = Future[Identity]()
            identity.set_running_or_notify_cancel()  # from now on nobody who waits can cancel it
            others = [*information.routes(identity, self._metrics), *web_page.routes()]
            app = application(embedder, others)
            check = Readiness(embedder)
        except Exception as error:
            self.failure = error
            self.should_exit = True
            return
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._loaded, app, check, embedder.name)
        self._identify(identify, identity)
        # This thread has computed the probes, with OpenMP threads of its own. If it ended, so would
        # they, and libgomp would let the encoder's threads spin, seeing a core for each: on a busy
        # machine passes then take ten times as long.
        self._ended.wait()

    def _identify(self, identify: Callable[[], Identity], identity: Future[Identity]) -> None:
        try:
            identified = identify()
        except Exception as error:  # the folder has been changed or removed
            log.exception("the model's files cannot be read again: it has no fingerprint")
            identity.set_exception(error)
            return
        self._metrics.identified(identified)
        identity.set_result(identified)

    def _loaded(self, app: ASGIApp, check: Readiness, model: str) -> None:
        self._log.model = model
        self._service.loaded(app, check.fault)
        log.info("startup complete: the model is loaded")

    async def _watch(self) -> None:
        """Ends connections whose clients keep them waiting."""
        while True:
            await asyncio.sleep(_LOOK)
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
        loop = asyncio.get_running_loop()
        self._lifecycle.bodies_until = loop.time() + self._settings.shutdown_timeout / 2
        await self._accept_waiting(sockets or [], loop.time() + _LAST_REQUESTS)
        for server in self.servers:
            server.close()
        await self._pause(_LAST_REQUESTS, lambda: not self.server_state.connections)
        await super().shutdown(sockets)
        self._ended.set()

    def stop(self) -> None:
        """Begins to stop, for a handler of signals."""
        self.should_exit = True

    async def _accept_waiting(self, sockets: list[socket.socket], until: float) -> None:
        """Returns when no connection waits to be accepted, or is being accepted: closing the
        listener would reset it. Accepting takes the loop a few turns."""
        quiet = 0
        while quiet < _QUIET_TURNS and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0)
            quiet = 0 if any(listener.has_waiting(sock) for sock in sockets) else quiet + 1

    async def _pause(self, seconds: float, enough: Callable[[], bool]) -> None:
        """Waits; a second Ctrl+C cuts it short."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until and not self.force_exit and not enough():
            await asyncio.sleep(min(0.05, seconds))


def _config(app: ASGIApp, settings: Settings, log: RequestLog) -> uvicorn.Config:
    return uvicorn.Config(
        cast("Any", app),
        http=cast("Any", connection.factory(settings, log)),
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_config=None,
        timeout_keep_alive=cast("int", settings.keep_alive_timeout),
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout),
    )


def serve(
    load: Load,
    settings: Settings,
    bound: socket.socket,
    access: Access,
    ready: Ready | None = None,
) -> None:
    """Serves until interrupted; pending requests are finished first. Raises what `load` raises.

    `ready`: for one of several processes: it listens once its model is loaded, until when the
    others answer, and calls `ready` then.
    """
    logs.configure(settings)
    server = Server(load, settings, access, ready)
    is_secure = server.config.ssl is not None
    log.info("listening on %s/score (Ctrl+C to quit)", listener.url(bound, secure=is_secure))
    log.info("%s", access)
    if access.keys_file and not is_secure and not is_loopback(bound.getsockname()[0]):
        log.warning("keys are sent unencrypted: use --tls-cert and --tls-key, or a proxy with TLS")
    # While uvicorn starts. When it has stopped it sends itself the signal again, which would be a
    # death by signal.
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    with suppress(KeyboardInterrupt):  # raised after all requests are finished
        server.run(sockets=[bound])
    if server.failure:
        raise server.failure


def exit_within(code: int) -> None:
    """Ends the process within some seconds, though a thread (a download, say) may still run."""
    timer = threading.Timer(_EXIT, os._exit, [code])
    timer.daemon = True
    timer.start()
