"""TLS by a certificate and a key in PEM files. They are read before a model is loaded."""

from __future__ import annotations

import ssl
from pathlib import Path

import uvicorn

from score.errors import RequestError
from score.settings import Settings
from score.validation.paths import path_of

_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""How OpenSSL calls the key of another certificate, of the same kind or another."""


def tls_of(settings: Settings) -> ssl.SSLContext | None:
    """TLS 1.2 and later by the settings' certificate; None where they name none.

    Raises RequestError for a file that is missing, unreadable, encrypted or damaged, and for a key
    of another certificate; OSError where there is no home folder for `~`.
    """
    if not settings.tls_cert and not settings.tls_key:
        return None
    if not settings.tls_cert or not settings.tls_key:
        raise RequestError("--tls-cert and --tls-key go together; one file may hold both")
    cert = _pem("--tls-cert", settings.tls_cert, b"-----BEGIN CERTIFICATE-----", "certificate")
    key = _pem("--tls-key", settings.tls_key, b"PRIVATE KEY-----", "private key")
    return _context(cert, key)


def secure(config: uvicorn.Config, context: ssl.SSLContext | None) -> None:
    """Makes a server speak TLS. uvicorn would read the files again, and ask for a password."""
    config.load()
    config.ssl = context


def _pem(flag: str, name: str, mark: bytes, what: str) -> Path:
    file = path_of(flag, name)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RequestError(f"{flag} {file}: {error.strerror}") from None
    if mark not in content:
        raise RequestError(f"{flag} {file} holds no {what} in PEM format")
    return file


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    def password() -> str:
        plain = f"openssl pkey -in {key} -out PLAIN"
        raise RequestError(f"--tls-key {key} is encrypted: name a key without password ({plain})")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise RequestError(f"{key} is not the key of the certificate in {cert}") from None
        reason = f" ({error.reason})" if error.reason else ""
        raise RequestError(f"{cert} or {key} is damaged or too weak{reason}") from None
    return context
