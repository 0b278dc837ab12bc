"""A body is gone from memory as soon as its request is answered or refused.

An exception whose traceback leads to a frame that holds the exception keeps all that its frames
hold until the garbage collector comes, which may be after hundreds of bodies.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from mlflow.exceptions import MlflowException

from score.contract import wire
from score.core import endpoint
from score.core.embedder import Embedder
from score.core.models import Models
from score.dialects import table
from score.dialects.base import FORM, JSON, Message
from score.dialects.mlflow import CSV
from score.entry.mlflow_errors import mlflow_errors

FORM_B = f"{FORM}; boundary=b"
_PART = b"--b\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n--b--"

BODIES: list[tuple[str, str, bytes]] = [
    *(
        (path, JSON, body)
        for path in ("/score", "/invocations", "/v1/embeddings", "/v2/embed", "/v1/similarity")
        for body in (b"", b"{", b"\xff", b"[" * 200, b'{"a":0,"a":0}', b'{"input_data":[{"x":0}]}')
    ),
    ("/score", JSON, b'{"input_data":[{"image":"%"}]}'),
    ("/score", JSON, b'{"input_data":[{"image":"http://10.0.0.1/"}]}'),
    ("/score", JSON, b'{"input_data":[{"text":"a"}]}'),
    ("/score", JSON, b'{"input_data":[{"text":"a"}],"params":{"x":0}}'),
    ("/score", "image/png", b"\x89PNG\r\n\x1a\n"),
    ("/v1/embeddings", "image/png", b"\x89PNG\r\n\x1a\n"),
    ("/score", FORM_B, _PART % (b"text", b"\xff")),
    ("/score", FORM_B, _PART % (b"params", b"{")),
    ("/score", FORM_B, b"--b"),
    ("/invocations", CSV, b"text\na\n"),
    ("/invocations", CSV, b"text,a\na\n"),
    ("/invocations", CSV, b'text\n"a\n'),
    ("/invocations", CSV, b'"text\n'),
    ("/invocations", CSV, b"\xff\n"),
    ("/invocations", CSV, b"text\n\xff\n"),
    ("/invocations", CSV, b"x\na\n"),
    ("/invocations", CSV, b"text" + b"a" * 20_000),
    ("/invocations", "x/y", b"text\n"),
]


class _Body(bytes):
    """Bytes that tell when they are gone; they cannot be referred to weakly."""

    gone = 0

    def __del__(self) -> None:
        _Body.gone += 1


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(("path", "kind", "content"), BODIES)
def test_no_body_waits_for_the_garbage_collector(
    path: str, kind: str, content: bytes, embedder: Embedder
) -> None:
    (route,) = (route for route in table.ROUTES if route.path == path)
    models = Models.of({"": embedder})
    before = _Body.gone
    endpoint.answer(models, route, Message(_Body(content), kind))
    assert _Body.gone == before + 1


@pytest.mark.usefixtures("uncollected")
def test_no_body_waits_for_it_on_mlflows_server_either() -> None:
    def refused(body: _Body) -> None:
        with mlflow_errors():
            wire.parse(body, 1)

    before = _Body.gone
    with pytest.raises(MlflowException):
        refused(_Body(b"{"))
    assert _Body.gone == before + 1
