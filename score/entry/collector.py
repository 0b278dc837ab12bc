"""Sends requests and answers to Azure's data collector, if the deployment enables it.

It is enabled by the section `data_collector` of the deployment's YAML, with the collections
`model_inputs` and `model_outputs`; Azure passes the section in variables that its package
`azureml-ai-monitoring` reads. See
https://learn.microsoft.com/azure/machine-learning/how-to-collect-production-data. Without the
section nothing is imported or sent.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from score.contract.rows import Record, Row, is_empty
from score.extras import missing
from score.fetch import urls

log = logging.getLogger(__name__)

_SWITCHES = ("AZUREML_MDC_CONFIG_PATH", "AZUREML_MDC_ENABLED")  # azureml-ai-monitoring 1.0.0
_LONGEST_URL = 2000  # characters


def start(environ: Mapping[str, str]) -> Collection | None:
    """The collection that the deployment enables; None, with a warning, if it cannot start."""
    if not environ.get(_SWITCHES[0]) and environ.get(_SWITCHES[1], "").lower() != "true":
        return None
    try:
        from azureml.ai.monitoring import Collector

        return Collection(_enabled(Collector, "model_inputs"), _enabled(Collector, "model_outputs"))
    except ImportError as error:
        why = f"add azureml-ai-monitoring to the environment ({missing(error)})"
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    log.warning("the deployment asks for data_collector, but nothing is collected: %s", why)
    return None


class Collection:
    """Sends to the collectors. Never raises: errors are logged."""

    def __init__(self, inputs: Any | None, outputs: Any | None) -> None:
        """The two collectors; None for a collection that the deployment does not enable."""
        self._inputs, self._outputs = inputs, outputs

    def __call__(self, rows: Sequence[Row], records: Sequence[Record]) -> None:
        """Collects a request and its answer, each as a frame with one line per row.

        Both frames have the columns `request` (a unique id, since Azure may merge requests) and
        `row`.
        """
        try:
            import pandas as pd  # the collectors take frames

            request, context = str(uuid.uuid4()), None
            if self._inputs:
                requests = [_request_line(row) for row in rows]
                context = self._inputs.collect(_frame(pd, request, requests))
            if self._outputs:
                answers = [_answer_line(record) for record in records]
                self._outputs.collect(_frame(pd, request, answers), context)
        except Exception as error:
            _log_failure(error)


def _enabled(collector: Any, name: str) -> Any | None:
    """A collector; None if the deployment's YAML does not have its collection.

    The collector's constructor reports that as an error.
    """
    errors: list[Exception] = []
    collector(name=name, on_error=errors.append)
    if errors:
        log.info("%s is not collected: %s", name, errors[0])
        return None
    return collector(name=name, on_error=_log_failure)


def _log_failure(error: Exception) -> None:
    log.warning("a request was not collected: %s", error)


def _frame(pd: Any, request: str, lines: Sequence[Mapping[str, Any]]) -> Any:
    rows = [{"request": request, "row": row} | dict(line) for row, line in enumerate(lines)]
    return pd.DataFrame(rows, dtype=object)  # pandas 3 would make a text beside None a NaN


def _request_line(row: Row) -> dict[str, Any]:
    """The text unchanged; the image as its URL without secrets, or as `inline`."""
    return {"image": _image(row.image), "text": row.text if isinstance(row.text, str) else None}


def _image(cell: object) -> str | None:
    if is_empty(cell):
        return None
    if isinstance(cell, str) and cell.lstrip()[:8].lower().startswith(("http://", "https://")):
        return urls.start(cell.strip(), _LONGEST_URL)
    return "inline"


def _answer_line(record: Record) -> dict[str, Any]:
    line: dict[str, Any] = {
        "image_features": record.image_features,
        "text_features": record.text_features,
        "error": record.error.code if record.error else None,
    }
    if record.labels is not None:
        line |= {"labels": list(record.labels), "probs": list(record.probs or ())}
    return line
