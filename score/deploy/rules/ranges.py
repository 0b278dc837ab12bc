"""Integer fields and their ranges; sizes and log levels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from score.deploy.plan import instances_note
from score.deploy.rules.documents import DEPLOYMENT, Document
from score.deploy.rules.notes import Note
from score.deploy.rules.parts import parts
from score.deploy.values import THREE_DAYS, at, whole
from score.errors import AzureError
from score.type_aliases import Json

_Range = tuple[int, int | None]

# reference-yaml-deployment-managed-online and -kubernetes-online, "ProbeSettings".
_PROBES: dict[str, _Range] = {
    f"{probe}.{name}": (1, None)
    for probe in ("readiness_probe", "liveness_probe")
    for name in ("initial_delay", "period", "timeout", "success_threshold", "failure_threshold")
}
# Field of a document or step → its least and its greatest value; from the reference pages.
_RANGES: dict[str, _Range] = {
    **_PROBES,
    "liveness_probe.success_threshold": (1, 1),
    "instance_count": (1, None),
    "resources.instance_count": (1, None),
    "resources.max_instance_count": (1, None),
    "limits.timeout": (1, None),
    "limits.max_total_trials": (1, None),
    "limits.max_concurrent_trials": (1, None),
    "limits.trial_timeout": (1, None),
    "distribution.process_count_per_instance": (1, None),
    "distribution.worker_count": (1, None),
    "distribution.parameter_server_count": (0, None),
    "max_concurrency_per_instance": (1, None),
    "mini_batch_error_threshold": (-1, None),
    "error_threshold": (-1, None),
    "retry_settings.max_retries": (0, None),
    "retry_settings.timeout": (1, THREE_DAYS),
    "settings.max_concurrency_per_instance": (1, None),
    "settings.mini_batch_size": (1, None),
    "settings.error_threshold": (-1, None),
    "settings.retry_settings.max_retries": (0, None),
    "settings.retry_settings.timeout": (1, THREE_DAYS),
    "request_settings.max_concurrent_requests_per_instance": (1, None),
    "request_settings.request_timeout_ms": (1, None),
    "request_settings.max_queue_wait_ms": (0, None),
    "scale_settings.min_instances": (0, None),
    "scale_settings.max_instances": (1, None),
    "scale_settings.target_utilization_percentage": (1, 100),
    "scale_settings.polling_interval": (1, None),
    "min_instances": (0, None),
    "max_instances": (1, None),
    "idle_time_before_scale_down": (0, None),
}
_BATCH = {"batchDeployment"}  # has a model deployment's settings at the top level
_SIZE = re.compile(r"([1-9]\d*)(?:[kKmMgG][bB])?")
_SHARED = re.compile(r"[1-9]\d*[bkmg]", re.IGNORECASE)
_LEVELS = ("warning", "info", "debug")


def problems(document: Document) -> Iterator[str]:
    """Fields that are no integers, or are out of range."""
    for where, part in parts(document):
        for path, (least, most) in _RANGES.items():
            yield from _range(where, part, path, least, most)
        yield from _sizes(where, part, document.kind)
    for where in ("", "scale_settings."):
        yield from _order(document.content, f"{where}min_instances", f"{where}max_instances")
    count = document.content.get("instance_count")
    if document.family == DEPLOYMENT and isinstance(count, int) and (note := instances_note(count)):
        yield Note(f"instance_count: {note}")


def _range(where: str, part: Json, path: str, least: int, most: int | None) -> Iterator[str]:
    value = at(part, path)
    if value is None or _bound(value):
        return
    try:
        whole(where + path, value, least, most)
    except AzureError as error:
        yield str(error)


def _bound(value: object) -> bool:
    """Whether a value is a binding: `${{parent.inputs.count}}`."""
    return isinstance(value, str) and "${{" in value


def _order(content: Json, least: str, most: str) -> Iterator[str]:
    low, high = at(content, least), at(content, most)
    if isinstance(low, int) and isinstance(high, int) and low > high:
        yield f"{least}: {low} is more than {most}, {high}"


def _sizes(where: str, part: Json, kind: str) -> Iterator[str]:
    size = part.get("mini_batch_size")
    if size is not None and not _bound(size):
        files = kind in _BATCH
        if not (re.fullmatch(r"[1-9]\d*", str(size)) if files else _SIZE.fullmatch(str(size))):
            wanted = "a number of files" if files else "a number of files, or a size such as 10kb"
            yield f"{where}mini_batch_size: {size!r} is not {wanted}, from 1"
    shared = at(part, "resources.shm_size")
    if shared is not None and not _bound(shared) and not _SHARED.fullmatch(str(shared)):
        yield f"{where}resources.shm_size: {shared!r} is not a number with b, k, m or g, as 2g"
    for path in ("logging_level", "settings.logging_level"):
        level = at(part, path)
        if level is not None and not _bound(level) and str(level).lower() not in _LEVELS:
            yield f"{where}{path}: must be one of {', '.join(_LEVELS)}, not {level!r}"
