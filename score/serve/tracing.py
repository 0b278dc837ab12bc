"""Whether requests are traced: as OpenTelemetry's own environment variables say.

Unless they name a collector, nothing of OpenTelemetry is imported. Traces never keep the server
from serving: what is wrong with the variables is a warning.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

from starlette.types import ASGIApp

from score.core.embedder import Embedder
from score.extras import missing
from score.wording.quoting import quoted

log = logging.getLogger("score.serve")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_PROTOCOL = "http/protobuf"


class Tracing(Protocol):
    """Traces of a server's requests."""

    def around(self, app: ASGIApp) -> ASGIApp:
        """An application whose requests are traced. Outside of the request log."""

    def watch(self, embedder: Embedder) -> None:
        """Traces what a model does for requests. After others have begun to observe it."""

    def close(self) -> None:
        """Sends what is left, within some seconds. Does not raise."""


class Untraced:
    """No traces."""

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application itself."""
        return app

    def watch(self, embedder: Embedder) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


UNTRACED = Untraced()


def tracing(environment: Mapping[str, str] = os.environ) -> Tracing:
    """The traces that the environment asks for. For one process: call it after a fork."""
    if not _wanted(environment):
        return UNTRACED
    protocol = _first(environment, _PROTOCOLS) or _PROTOCOL
    if protocol != _PROTOCOL:
        log.warning("requests are not traced: %r is no protocol of ours: %s", protocol, _PROTOCOL)
        return UNTRACED
    if fault := _endpoint_fault(environment):
        log.warning("requests are not traced: %s", fault)
        return UNTRACED
    try:
        from score.serve.spans import Spans

        spans = Spans()
    except ImportError as error:
        log.warning("requests are not traced: %s", missing(error))
    except Exception as error:  # of the libraries, for values that they cannot read
        log.warning("requests are not traced: a variable OTEL_… is not usable: %s", error)
    else:
        _warn_of_headers(environment)
        log.info("requests are traced, to the collector that OTEL_EXPORTER_OTLP_… names")
        return spans
    return UNTRACED


def _wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return exporter == "otlp" and bool(_first(environment, _ENDPOINTS))


def _endpoint_fault(environment: Mapping[str, str]) -> str:
    """What is wrong with the collector's URL, of which no more is said than its host: it may hold
    a password. OpenTelemetry would fail with each trace, and name only a class."""
    variable = next(name for name in _ENDPOINTS if environment.get(name, "").strip())
    example = "it must be like http://collector.example:4318"
    try:
        url = urlsplit(environment[variable].strip())
        host, port = url.hostname, url.port
    except ValueError:
        return f"{variable} is no URL, or its port is no number; {example}"
    if url.scheme not in ("http", "https"):
        return f"{variable} does not begin with http:// or https://; {example}"
    if not host or port == 0 or " " in host:
        return f"{variable} names no host, or port 0 (host {quoted(host or '')}); {example}"
    return ""


def _warn_of_headers(environment: Mapping[str, str]) -> None:
    """What is no NAME=VALUE is left out by OpenTelemetry, whose warning would log secrets."""
    for variable in _HEADERS:
        parts = environment.get(variable, "").split(",")
        if any(part.strip() and "=" not in part for part in parts):
            log.warning("a part of %s is no NAME=VALUE, and is left out", variable)


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The first of some variables that is set; an empty one counts as not set."""
    return next((value for name in names if (value := environment.get(name, "").strip())), "")
