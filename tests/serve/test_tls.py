"""TLS: the files that are refused at the start, and the connection."""

from __future__ import annotations

import json
import re
import socket
import ssl
from contextlib import nullcontext
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from score.__main__ import main
from score.core.embedder import Embedder
from score.deploy.simulate.ports import free_port
from score.serve.tls import tls_of
from score.settings import Settings
from tests.support.hostile import Authority
from tests.support.surfaces import OwnServer

BODY = json.dumps({"input_data": {"columns": ["text"], "data": [["a cat"]]}}).encode()
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def here(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with usable and unusable files."""
    monkeypatch.chdir(tmp_path)
    both = authority.certificate().read_bytes()
    cert = re.findall(rb"-----BEGIN CERT.*?-----END CERTIFICATE-----\n", both, re.DOTALL)[0]
    key = serialization.load_pem_private_key(both, None)
    secret = serialization.BestAvailableEncryption(b"secret")
    other, rsa_key = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    files = {
        "both.pem": both,
        "cert.pem": cert,
        "key.pem": key.private_bytes(PEM, PKCS8, PLAIN),
        "encrypted.pem": key.private_bytes(PEM, PKCS8, secret),
        "other.pem": other.private_bytes(PEM, PKCS8, PLAIN),
        "rsa.pem": rsa_key.private_bytes(PEM, PKCS8, PLAIN),
        "der.pem": ssl.PEM_cert_to_DER_cert(cert.decode()),
        "cut.pem": cert[:200],
        "cutkey.pem": key.private_bytes(PEM, PKCS8, PLAIN)[:60] + b"\n-----END PRIVATE KEY-----\n",
        "empty.pem": b"",
    }  # fmt: skip
    for name, content in files.items():
        Path(name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("cert", "key", "says"),
    [
        ("cert.pem", "", "--tls-cert and --tls-key go together"),
        ("", "key.pem", "--tls-cert and --tls-key go together"),
        ("gone.pem", "key.pem", "--tls-cert gone.pem: No such file"),
        ("cert.pem", "gone.pem", "--tls-key gone.pem: No such file"),
        ("cert.pem", ".", "--tls-key .: Is a directory"),
        ("empty.pem", "key.pem", "--tls-cert empty.pem holds no certificate in PEM format"),
        ("der.pem", "key.pem", "--tls-cert der.pem holds no certificate in PEM format"),
        ("key.pem", "cert.pem", "--tls-cert key.pem holds no certificate in PEM format"),
        ("cert.pem", "cert.pem", "--tls-key cert.pem holds no private key in PEM format"),
        ("cert.pem", "encrypted.pem", "--tls-key encrypted.pem is encrypted"),
        ("cert.pem", "other.pem", "other.pem is not the key of the certificate in cert.pem"),
        ("cert.pem", "rsa.pem", "rsa.pem is not the key of the certificate in cert.pem"),
        ("cut.pem", "key.pem", "cut.pem or key.pem is damaged"),
        ("cert.pem", "cutkey.pem", "cert.pem or cutkey.pem is damaged"),
    ],
)
def test_unusable_files_are_refused_before_the_model_is_loaded(
    cert: str,
    key: str,
    says: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Embedder, "load", lambda *_: pytest.fail("the model was loaded"))
    flags = {"--tls-cert": cert, "--tls-key": key}
    given = [word for flag, value in flags.items() if value for word in (flag, value)]
    assert main(["serve", "--port", str(free_port()), *given]) == 2
    message = capsys.readouterr().err
    assert says in message
    assert "Traceback" not in message


@pytest.mark.parametrize(("cert", "key"), [("cert.pem", "key.pem"), ("both.pem", "both.pem")])
def test_usable_files_are_taken(cert: str, key: str, here: Path) -> None:
    context = tls_of(Settings(tls_cert=cert, tls_key=key))
    assert context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_without_files_there_is_no_tls() -> None:
    assert tls_of(Settings()) is None


@pytest.mark.process
@pytest.mark.slow
def test_requests_are_answered_over_tls_alone(authority: Authority, tmp_path: Path) -> None:
    pem, log = str(authority.certificate()), tmp_path / "log"
    own = OwnServer(log=log, trusts=authority.file, SCORE_TLS_CERT=pem, SCORE_TLS_KEY=pem)
    try:
        own.wait()
        answer = own.post(BODY)
        assert len(answer.json()[0]["text_features"]) == 512
        with pytest.raises(requests.exceptions.SSLError):
            requests.post(own.url, BODY, timeout=60)  # an authority that is not trusted
        with pytest.raises(requests.ConnectionError):
            requests.post(own.url.replace("https", "http"), BODY, timeout=60)
        host, port = own.url.removeprefix("https://").removesuffix("/score").split(":")
        assert _version(authority, host, int(port), ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        assert _version(authority, host, int(port), ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _version(authority, host, int(port), ssl.TLSVersion.TLSv1_1)
        assert own.post(BODY).ok
    finally:
        own.stop()
    assert "listening on https://127.0.0.1:" in log.read_text()


def _version(authority: Authority, host: str, port: int, only: ssl.TLSVersion) -> str | None:
    """The version of TLS that a client which knows one alone gets."""
    context = ssl.create_default_context(cafile=authority.file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    is_old = only < ssl.TLSVersion.TLSv1_2
    with pytest.warns(DeprecationWarning, match="TLS") if is_old else nullcontext():
        context.minimum_version = context.maximum_version = only
    with (
        socket.create_connection((host, port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        return secured.version()
