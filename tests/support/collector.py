"""A stand-in for a collector of traces: OTLP over HTTP, with answers good and bad."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Mood = Literal["takes", "refuses", "hangs", "endless", "redirects"]


class Span:
    """A span that has arrived. ids: hexadecimal, empty for none."""

    def __init__(self, raw: Any, resource: dict[str, Any]) -> None:
        self.name: str = raw.name
        self.kind: int = raw.kind
        self.trace: str = raw.trace_id.hex()
        self.id: str = raw.span_id.hex()
        self.parent: str = raw.parent_span_id.hex()
        self.state: str = raw.trace_state
        self.began, self.ended = int(raw.start_time_unix_nano), int(raw.end_time_unix_nano)
        self.failed: bool = raw.status.code == 2
        self.attributes = attributes(raw.attributes)
        self.resource = resource


def attributes(raw: Any) -> dict[str, Any]:
    """Key → value."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in raw}


class Collector:
    """The stand-in. spans: those that have arrived; bodies: as they came; paths: of all
    requests."""

    def __init__(self, mood: Mood = "takes") -> None:
        self.mood = mood
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self._ended = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.paths.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for part in collector.answer(self.path, body):
                    self.wfile.write(part)
                self.close_connection = True

            do_GET = do_POST

            def log_message(self, *arguments: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def answer(self, path: str, body: bytes) -> Iterator[bytes]:
        """The bytes of a response."""
        if self.mood == "hangs":
            self._ended.wait(120)
        elif self.mood == "refuses":
            yield b"HTTP/1.1 400 Bad Request\r\nContent-Length: 6\r\n\r\nsecret"
        elif self.mood == "redirects":
            target = f"{self.url}/elsewhere".encode()
            yield b"HTTP/1.1 302 Found\r\nLocation: " + target + b"\r\nContent-Length: 0\r\n\r\n"
        else:
            assert path == "/v1/traces"
            self._keep(body)
            yield b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n"
            yield b"\r\n" if self.mood == "endless" else b"Content-Length: 0\r\n\r\n"
            while self.mood == "endless" and not self._ended.is_set():
                yield bytes(2**20)

    def _keep(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            described = attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans.extend(Span(raw, described) for raw in scope.spans)

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
