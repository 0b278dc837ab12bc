"""Errors of urllib3, ssl and the socket layer → the RowError of the row whose download failed."""

from __future__ import annotations

import http.client
import ssl

import urllib3
from urllib3.exceptions import (
    HTTPError,
    LocationParseError,
    LocationValueError,
    NewConnectionError,
    SSLError,
)

from score.errors import BadUrl, FetchFailed, FetchTimeout, RowError
from score.fetch.causes import causes, proxy_refusal
from score.fetch.circuit_breaker import NotConnected
from score.fetch.deadline import Deadline
from score.fetch.framing import Malformed
from score.fetch.retries import RETRYABLE
from score.settings import Settings

FOREIGN = (HTTPError, OSError, http.client.HTTPException, ValueError)
"""What a request raises that is not a RowError."""

_BAD_URL = (LocationParseError, LocationValueError, UnicodeError, http.client.InvalidURL)


def translate(error: Exception, where: str, settings: Settings, deadline: Deadline) -> RowError:
    """The RowError for one of the `FOREIGN` errors, raised while the URL `where` was requested."""
    if isinstance(error, _BAD_URL):
        return BadUrl(f"cannot be read as a URL: {where}")
    if status := proxy_refusal(error):
        retryable = status[:3].isdecimal() and int(status[:3]) in RETRYABLE
        return FetchFailed(f"the proxy answered {status} for {where}", retryable=retryable)
    for cause in causes(error):
        if isinstance(cause, NewConnectionError):  # urllib3 counts it among its timeouts
            continue
        if isinstance(cause, Malformed):
            return FetchFailed(f"{where} {cause}", retryable=cause.retryable)
        if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError):
            if deadline.left() <= 0:
                return FetchTimeout(f"{where} took more than {settings.row_deadline:g} s")
            return FetchTimeout(f"{where} did not answer in time")
        if isinstance(cause, ssl.SSLError | SSLError):
            return FetchFailed(f"TLS with {where} failed: {_tls_reason(error)}")
        if isinstance(cause, ConnectionRefusedError):
            who = "the proxy" if settings.proxy else where
            return NotConnected(f"{who} refused the connection")
    if isinstance(error, NewConnectionError):
        return NotConnected(f"cannot connect to {where}")
    return FetchFailed(f"{where} broke off or did not speak HTTP", retryable=True)


def _tls_reason(error: Exception) -> str:
    """What OpenSSL reported. urllib3 wraps its errors in others that do not say."""
    for cause in causes(error):
        if text := getattr(cause, "verify_message", "") or getattr(cause, "reason", ""):
            return str(text)[:120]
    return "handshake"
