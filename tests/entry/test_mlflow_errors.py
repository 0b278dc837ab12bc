"""The statuses that MLflow's server gives to refusals, and which requests it limits."""

from __future__ import annotations

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from score import pyfunc
from score.contract.rows import Row
from score.entry.mlflow_errors import mlflow_errors
from score.errors import (
    BadColumns,
    Cancelled,
    EmptyRow,
    OutOfMemory,
    Overloaded,
    RequestError,
    RequestTimeout,
    RequestTooLarge,
    RowsFailed,
)
from score.folder.model_folder import EMBEDDED


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadColumns("no usable column"), 400),
        (RowsFailed([(0, EmptyRow("is empty"))], 1), 400),
        (Cancelled("by nobody"), 400),
        (RequestTooLarge("too many rows"), 413),
        (Overloaded("try again in 3 s", 3), 429),
        (OutOfMemory("a single input does not fit"), 503),
        (RequestTimeout("not answered within 3 s"), 504),
    ],
)
def test_a_refusal_has_a_status_that_mlflow_can_send(error: RequestError, status: int) -> None:
    with pytest.raises(MlflowException) as caught, mlflow_errors():
        raise error
    assert caught.value.get_http_status_code() == status
    assert caught.value.json_kwargs["error"]["code"] == error.code


def test_a_frame_in_this_process_is_no_request() -> None:
    config = {"max_pending_rows": 3, "request_timeout": 1e-9, "max_request_pixels": 1}
    model = pyfunc._load_pyfunc(str(EMBEDDED), config)
    frame = pd.DataFrame({"text": [f"text {number}" for number in range(50)]})
    assert len(model.predict(frame)) == 50
    assert model.embedder.settings.max_pending_rows == 0


def test_a_servers_requests_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyfunc, "is_http", lambda: True)
    model = pyfunc._load_pyfunc(str(EMBEDDED), {"max_pending_rows": 3})
    frame = pd.DataFrame({"text": ["a"] * 3})
    assert len(model.predict(frame)) == 3
    beside = model.embedder._pipeline.admission.admitted([Row(text="a")])
    with beside, pytest.raises(MlflowException) as caught:
        model.predict(frame)
    assert caught.value.get_http_status_code() == 429
