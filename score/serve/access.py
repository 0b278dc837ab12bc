"""Who may use the server: whoever has a key, programs of this machine, or everybody.

Without keys a server listens on this machine only, unless its operator says that the network or the
platform around it decides who reaches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from score.core.endpoint import FINGERPRINT, MODEL
from score.errors import RequestError
from score.serve import keys, request_log
from score.serve.authentication import KEY_HEADERS, Authentication
from score.serve.calls import TIMEOUT
from score.serve.guard import Guard
from score.serve.key_ring import KeyRing
from score.serve.local_only import LocalOnly, is_loopback
from score.settings import Settings
from score.validation.paths import path_of

_TRACE = ("traceparent", "tracestate")


@dataclass(frozen=True)
class Access:
    """How requests are authenticated. Made by `access_of`.

    keys_file: the valid keys, None where no key is asked for; only_local: requests from web pages
    are refused; origins: sites whose pages may use the server, by CORS.
    """

    keys_file: Path | None = None
    only_local: bool = True
    origins: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.keys_file is not None:
            return f"requests need a key of {self.keys_file}"
        if self.only_local:
            return "requests need no key; only programs of this machine may send them"
        return "requests need no key (--without-keys): whoever reaches the port may send them"


def access_of(address: str, settings: Settings, *, without_keys: bool = False) -> Access:
    """Who may use a server that listens on an address.

    Raises RequestError for an address that other machines reach, without keys or the word that
    none are wanted, and for an unusable file of keys; OSError without a home folder for its `~`.
    """
    if settings.api_keys_file and without_keys:
        raise RequestError("--without-keys contradicts --api-keys-file (SCORE_API_KEYS_FILE)")
    if settings.api_keys_file:
        file = path_of("--api-keys-file", settings.api_keys_file)
        keys.read(file)
        return Access(file, only_local=False, origins=settings.cors_origin)
    if not without_keys and not is_loopback(address):
        raise RequestError(
            f"other machines reach {address}, and no keys are set: pass --api-keys-file FILE "
            "(`score key new NAME --file FILE` makes one), or --without-keys where the network or "
            "the platform decides who reaches this server"
        )
    return Access(None, only_local=not without_keys, origins=settings.cors_origin)


def protected(app: ASGIApp, access: Access) -> ASGIApp:
    """An application behind the checks that `access` asks for.

    Raises RequestError.
    """
    if access.keys_file is not None:
        app = Guard(app, Authentication(KeyRing(access.keys_file)))
    elif access.only_local:
        app = Guard(app, LocalOnly(access.origins))
    request_id = request_log.ID.decode()
    if access.origins:  # outermost: a browser's preflight has no key
        app = CORSMiddleware(
            app,
            allow_origins=access.origins,
            allow_methods=("GET", "POST"),
            allow_headers=(*KEY_HEADERS, "content-type", TIMEOUT, request_id, *_TRACE),
            expose_headers=("retry-after", "www-authenticate", request_id, MODEL, FINGERPRINT),
        )
    return app
