"""Entry script of an Azure ML real-time endpoint (azureml-inference-server-http).

`init()` runs once when a worker starts, `run()` once a request. Azure's server turns any exception
of `run()` into a 500 without a body, so `run()` returns complete responses, refusals included.
"""

from __future__ import annotations

import io
import logging
import os
import runpy
from pathlib import Path

from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

if __name__ != "score.online":  # Azure's server loads this file by its path
    runpy.run_path(str(Path(__file__).parent / "entry" / "by_path.py"))

from score.core import endpoint
from score.core.bodies import Bodies, Body
from score.core.embedder import Embedder
from score.entry import collector, model
from score.errors import RequestError

log = logging.getLogger(__name__)

_PIECE = 2**20  # bytes of a body that are read at a time

_embedder: Embedder
_bodies: Bodies
_collection: collector.Collection | None = None


def init() -> None:
    """Loads the model that Azure mounted at `AZUREML_MODEL_DIR`, else the embedded one.

    Requests and answers are collected where the deployment's `data_collector` asks for it.
    """
    global _embedder, _bodies, _collection
    _embedder = model.load(os.environ)
    _bodies = Bodies(_embedder.settings)
    _collection = collector.start(os.environ)
    log.info(
        "model in %s loaded: %d dimensions", model.model_folder(os.environ), _embedder.dimension
    )


@rawhttp  # type: ignore[untyped-decorator]  # the package has no types
def run(request: AMLRequest) -> AMLResponse:
    """Answers `POST /score`."""
    if request.method != "POST":
        answer = endpoint.problem(405, "method_not_allowed", "use POST")
    else:
        try:
            with _bodies.one(request.headers.get("Content-Length")) as body:
                content, kind = _read(request, body), request.content_type or ""
                answer = endpoint.score(_embedder, content, _collection, kind)
        except RequestError as error:
            answer = endpoint.refuse(error)
    return AMLResponse(answer.body, answer.status, {"Content-Type": answer.kind, **answer.headers})


def _read(request: AMLRequest, body: Body) -> bytes:
    """The body, counted while it arrives: one in chunks does not declare its length."""
    content = io.BytesIO()  # its `getvalue` makes no copy
    while piece := request.stream.read(_PIECE):
        body.add(len(piece))
        content.write(piece)
    return content.getvalue()
