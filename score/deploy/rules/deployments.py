"""Deployments: request timeouts, concurrency and worker processes, scaling, and the model.

Sources: learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online,
-kubernetes-online and -batch; how-to-manage-quotas for the longest timeouts.
"""

from __future__ import annotations

from collections.abc import Iterator

from score.deploy.plan import DOWNLOAD_SECONDS, LONGEST_REQUEST_SECONDS
from score.deploy.rules.documents import BATCH_DEPLOYMENT, DEPLOYMENT, Document, Known
from score.deploy.rules.notes import Note
from score.deploy.rules.references import served
from score.deploy.server_choice import is_ours
from score.deploy.values import at, mapping
from score.type_aliases import Json

MANAGED, KUBERNETES = "managedOnlineDeployment", "kubernetesOnlineDeployment"
_LONGEST = {MANAGED: LONGEST_REQUEST_SECONDS, KUBERNETES: 300}  # seconds
_FLOW_LONGEST = 300  # seconds, for a prompt flow's deployment
_DEFAULT_TIMEOUT = 5_000  # ms, of Azure
_SCALES = {MANAGED: ("default",), KUBERNETES: ("default", "target_utilization")}
_TIMEOUT = "request_settings.request_timeout_ms"
_CONCURRENCY = "request_settings.max_concurrent_requests_per_instance"
_DEADLINE = "SCORE_REQUEST_DEADLINE"
_OURS = "score/online.py"  # the entry script that applies the deadline


def problems(document: Document, known: Known) -> Iterator[str]:
    """What is wrong with a deployment; nothing for other documents."""
    if document.family == DEPLOYMENT:
        yield from _online(document)
    if document.family in (DEPLOYMENT, BATCH_DEPLOYMENT):
        yield from _model(document, known)


def _online(document: Document) -> Iterator[str]:
    content = document.content
    variables = mapping(content.get("environment_variables"))
    if document.kind == MANAGED and "instance_count" not in content:
        yield Note("instance_count: is not here: give it on the command line")
    scale = at(content, "scale_settings.type")
    if scale is not None and str(scale).lower() not in _SCALES[document.kind]:
        known = ", ".join(_SCALES[document.kind])
        yield f"scale_settings.type: must be one of {known}, not {scale!r}"
    timeout = _number(at(content, _TIMEOUT), _DEFAULT_TIMEOUT)
    flow = any(str(name).startswith("PROMPTFLOW_") for name in variables)
    most = 1000 * (_FLOW_LONGEST if flow else _LONGEST[document.kind])
    if timeout > most:
        yield f"{_TIMEOUT}: {most} is the most"
    yield from _deadline(content, variables, timeout)
    if "code_configuration" in content and not is_ours(variables):  # Azure's server runs it
        yield from _workers(content, variables)


def _deadline(content: Json, variables: Json, timeout: float) -> Iterator[str]:
    script = str(at(content, "code_configuration.scoring_script"))
    ours = script.endswith(_OURS) or is_ours(variables)
    if _DEADLINE not in variables and not ours:
        return
    seconds = _number(variables.get(_DEADLINE), DOWNLOAD_SECONDS)
    if 1000 * seconds > timeout:
        yield (
            f"environment_variables.{_DEADLINE}: {seconds:g} s for a request's downloads, and "
            f"{_TIMEOUT} ends it after {timeout / 1000:g} s"
        )


def _workers(content: Json, variables: Json) -> Iterator[str]:
    """Azure's inference server answers one request at a time in each worker process."""
    count, concurrency = variables.get("WORKER_COUNT"), at(content, _CONCURRENCY)
    workers, most = int(_number(count, 1)), int(_number(concurrency, 1))
    if workers == most:
        return
    both = f"{_CONCURRENCY}: {most} at once, and WORKER_COUNT: {workers} processes for them"
    if count is None or concurrency is None:  # one is a default, which the image may change
        yield Note(f"{both}: they should be equal")
    else:
        yield f"{both}: they must be equal"


def _model(document: Document, known: Known) -> Iterator[str]:
    """Without a script and an environment Azure serves only MLflow models."""
    content = document.content
    if document.family == BATCH_DEPLOYMENT and not {"model", "component"} & content.keys():
        yield Note("model: is not here: Azure requires one of a batch deployment")
    if {"code_configuration", "environment", "component"} & content.keys():
        return
    model, _ = served(document, known)
    kind = model.get("type", "custom_model") if model else "mlflow_model"
    if kind not in ("mlflow_model", "triton_model"):
        yield (
            f"model: it is a {kind}, and without code_configuration and environment Azure serves "
            "an mlflow_model"
        )


def _number(value: object, default: float) -> float:
    """A value as a number; the default for anything else, which `ranges` reports."""
    try:
        return float(str(value)) if value is not None else default
    except ValueError:
        return default
