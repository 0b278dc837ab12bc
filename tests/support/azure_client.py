"""Azure's own client over a local transport: records the requests and sends nothing."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from typing import Any

import requests
from azure.ai.ml import MLClient
from azure.ai.ml.exceptions import ErrorTarget, ValidationErrorType, ValidationException
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse


def absent(name: str) -> ValidationException:
    """What the SDK raises for the latest version of a missing asset (`_get_latest`)."""
    message = f"Asset {name} does not exist in workspace w."
    return ValidationException(
        message=message,
        no_personal_data_message=message,
        target=ErrorTarget.ASSET,
        error_type=ValidationErrorType.RESOURCE_NOT_FOUND,
    )


class Service(HTTPAdapter):
    """Answers by the path after the workspace: `batchEndpoints/clip` → JSON; 404 for all others."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        super().__init__()
        self.answers = answers
        self.asked: list[tuple[str, str, Any]] = []
        """Method, path and body of each request."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The service's answer."""
        path = str(request.url).partition("?")[0].partition("/workspaces/w/")[2] or request.url
        body = json.loads(request.body) if request.body else None
        self.asked.append((str(request.method), str(path), body))
        answer = self.answers.get(str(path))
        content = json.dumps(answer or {"error": {"message": f"no {path}"}}).encode()
        raw = HTTPResponse(
            io.BytesIO(content),
            {"Content-Type": "application/json"},
            status=404 if answer is None else 200,
            preload_content=False,
        )
        return self.build_response(request, raw)


class _Credential:
    def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken("a token", int(time.time()) + 3600)


def client(service: Service) -> MLClient:
    """A client of the workspace `w` that sends every request to `service`."""
    session = requests.Session()
    session.mount("https://", service)
    transport = RequestsTransport(session=session, session_owner=False)
    return MLClient(_Credential(), "s", "g", "w", transport=transport)
