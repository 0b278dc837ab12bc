"""Which server a real-time deployment runs, and whether its limits and routes are for that server.

Azure's inference server runs a scoring script; `score serve`, which the images of this project run
where CLIP_SERVER says so, has a time limit, a most of pending requests and routes of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from score.deploy.rules.documents import DEPLOYMENT, Document, Known
from score.deploy.rules.environments import used
from score.deploy.rules.references import local, served
from score.deploy.server_choice import (
    AZURES,
    LIVE,
    OURS,
    READY,
    SCORING,
    SERVERS,
    VARIABLE,
    is_ours,
)
from score.deploy.server_limits import most_with_images
from score.deploy.values import at, mapping
from score.errors import SettingError
from score.settings import PREFIX, Settings, names
from score.type_aliases import Json

_TIMEOUT = "request_settings.request_timeout_ms"
_CONCURRENCY = "request_settings.max_concurrent_requests_per_instance"
_AZURES_TIMEOUT, _AZURES_CONCURRENCY = 5_000, 1  # Azure's defaults
_ROUTES = {"liveness_route": LIVE, "readiness_route": READY, "scoring_route": SCORING}
# Azure's own, of whole HTTP bodies; a script tells the others to the collector.
_PAYLOADS = ("request", "response")


def problems(document: Document, known: Known) -> Iterator[str]:
    """What does not fit the server that a deployment runs; nothing for other documents."""
    if document.family != DEPLOYMENT:
        return
    variables = mapping(document.content.get("environment_variables"))
    chosen = variables.get(VARIABLE, AZURES)
    if chosen not in SERVERS:
        known_servers = ", ".join(SERVERS)
        yield f"environment_variables.{VARIABLE}: must be one of {known_servers}, not {chosen!r}"
    elif is_ours(variables):
        yield from _code(document, known)
        yield from _limits(document.content, variables)
        yield from _routes_of_ours(document, known)
        yield from _collected(document.content)
    elif "code_configuration" in document.content:
        yield from _routes_of_azures(document, known)


def _code(document: Document, known: Known) -> Iterator[str]:
    if "code_configuration" in document.content:
        yield f"code_configuration: {VARIABLE}: {OURS} runs the code of the model's folder alone"
    if "environment" not in document.content:
        yield f"environment: is missing, and {VARIABLE} is for the images of environment/"
    model, here = served(document, known)
    path = model.get("path")
    folder = here / path if isinstance(path, str) and local(path) else None
    # Where there is no folder at all, `references` says so.
    if folder and os.path.isdir(folder) and not os.path.isdir(folder / "score"):
        yield f"model: {path} has no folder score/ with the code that {VARIABLE}: {OURS} runs"


def _limits(content: Json, variables: Json) -> Iterator[str]:
    settings = _settings(variables)
    if settings is None:  # `variables` says what is wrong
        return
    timeout, concurrency = _number(content, _TIMEOUT, _AZURES_TIMEOUT), _concurrency(content)
    seconds = settings.request_timeout
    if not 0 < 1000 * seconds <= timeout:
        shown = f"{seconds:g} s" if seconds else "no limit"
        yield (
            f"environment_variables.{PREFIX}REQUEST_TIMEOUT: {shown} for a request, and "
            f"{_TIMEOUT} ends it after {timeout / 1000:g} s: the server must give up first"
        )
    pending = settings.max_pending_requests
    if pending > 0 and most_with_images(pending) < concurrency:
        yield (
            f"{_CONCURRENCY}: {concurrency} at once, and {PREFIX}MAX_PENDING_REQUESTS: {pending} "
            f"lets {most_with_images(pending)} with images in"
        )
    if settings.max_connections <= concurrency:
        yield (
            f"{_CONCURRENCY}: {concurrency} at once, and {PREFIX}MAX_CONNECTIONS: "
            f"{settings.max_connections} leaves none for probes"
        )


def _settings(variables: Json) -> Settings | None:
    """The server's settings; None where a value is invalid."""
    texts = {
        name.removeprefix(PREFIX).lower(): str(value)
        for name, value in variables.items()
        if name.startswith(PREFIX)
    }
    values = {name: text for name, text in texts.items() if name in names() and "${{" not in text}
    try:
        return Settings().replace(values)
    except SettingError:
        return None


def _routes_of_ours(document: Document, known: Known) -> Iterator[str]:
    """The environment's routes must be the server's; those of other environments are unknown."""
    environment = used(document, document.content, known)
    if environment is None:
        return
    for name, wanted in _ROUTES.items():
        path = at(environment.environment, f"inference_config.{name}.path")
        if path is None:
            yield f"environment: its inference_config has no {name}, as {wanted}"
        elif path != wanted and name != "scoring_route":
            yield f"environment: its {name} is {path}, and that of `score serve` is {wanted}"


def _routes_of_azures(document: Document, known: Known) -> Iterator[str]:
    environment = used(document, document.content, known)
    if environment is None:
        return
    for name in ("liveness_route", "readiness_route"):
        path = at(environment.environment, f"inference_config.{name}.path")
        if path in (LIVE, READY):
            yield f"environment: its {name} is {path}, which Azure's inference server does not have"


def _collected(content: Json) -> Iterator[str]:
    for name in mapping(at(content, "data_collector.collections")):
        if name not in _PAYLOADS:
            yield (
                f"data_collector.collections.{name}: `score serve` tells the collector nothing: "
                "use Azure's server (render online --no-server), or collect request and response"
            )


def _concurrency(content: Json) -> int:
    return int(_number(content, _CONCURRENCY, _AZURES_CONCURRENCY))


def _number(content: Json, path: str, default: float) -> float:
    """A value as a number; the default for anything else, which `ranges` reports."""
    try:
        return float(str(at(content, path) or default))
    except ValueError:
        return default
