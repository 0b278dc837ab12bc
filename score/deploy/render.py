"""A plan → the YAML of a deployment, comments and all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from score.deploy.plan import FILE_ROWS, Plan
from score.errors import AzureError

_TEMPLATES = Path(__file__).parent / "templates"


class _At(Template):
    """`@name`, since `$` and `{}` are YAML's and Azure's; `@@` is an at sign."""

    delimiter = "@"


def render(
    plan: Plan,
    kind: str,
    *,
    command: str,
    code: str = ".",
    name: str | None = None,
    registered: str = "clip",
    cluster: str | None = None,
    instances: int = 1,
) -> str:
    """The deployment's YAML.

    `command`: what is said to have written it, after `score azure render`; `code`: the clone, from
    where the YAML will be; `registered` and `cluster`: the names of model and compute in a
    workspace; `name`: the deployment's own.

    Raises AzureError for a plan that does not fit, and for names that Azure does not take.
    """
    obstacles = plan.obstacles + (plan.online_obstacles if kind == "online" else ())
    if obstacles:
        raise AzureError(f"{plan.model} does not fit {plan.sku.name}: {'; '.join(obstacles)}")
    device = "gpu" if plan.sku.gpus else "cpu"
    text = (_TEMPLATES / f"{kind}.yml").read_text(encoding="utf-8")
    values = _values(plan) | {
        "command": command,
        "device": device,
        "name": _named(name or device),
        "code": _quoted(code),
        "registered": _named(registered),
        "cluster": _named(cluster or f"clip-{device}"),
        "instances": str(instances),
        "device_setting": "cuda" if plan.sku.gpus else "cpu",
    }
    return _At(text).substitute(values)


def filled(template: Path, plan: Plan, values: Mapping[str, str]) -> str:
    """A template with a plan's values, and others before them."""
    return _At(template.read_text(encoding="utf-8")).substitute(_values(plan) | dict(values))


def _named(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{1,31}", name):
        raise AzureError(
            f"{name!r} is no name for Azure: 2 to 32 letters, digits, dots, dashes and "
            "underscores, a letter first"
        )
    return name


def _quoted(text: str) -> str:
    """As YAML wants it."""
    return text if re.fullmatch(r"[\w./-]+", text) else json.dumps(text)


@dataclass(frozen=True, slots=True)
class Card:
    """What is said of a model that is registered. `hub`: its id at the Hugging Face Hub, if any."""

    title: str
    dimension: int
    hub: str
    author: str
    licence: str


def render_model(
    card: Card,
    plans: Sequence[Plan],
    *,
    path: str,
    registered: str = "clip",
    command: str,
) -> str:
    """The YAML of a registered model. `plans`: its plan on every size; `path`: its folder, from
    where the YAML will be.

    Raises AzureError for a model that fits no size.
    """
    fitting = [plan.sku for plan in plans if plan.fits_online]
    if not fitting:
        raise AzureError(f"{card.title} fits no size")
    least = min(fitting, key=lambda sku: (sku.gpus, sku.memory_gib, sku.vcpus, sku.temp_disk_gib))
    names = [sku.name for sku in fitting]
    template = _At((_TEMPLATES / "model.yml").read_text(encoding="utf-8"))
    return template.substitute(
        title=card.title,
        dimension=str(card.dimension),
        hub=json.dumps(card.hub),
        author=json.dumps(card.author),
        licence=json.dumps(card.licence),
        path=_quoted(path),
        registered=_named(registered),
        command=command,
        allowed=str(names),
        recommended=", ".join(names),
        least=least.specification,
    )


def _values(plan: Plan) -> dict[str, str]:
    sku = plan.sku
    gpus = f", {sku.gpus} × {sku.gpu}" if sku.gpu else ""
    return {
        "model": plan.model,
        "sku": sku.name,
        "machine": f"{sku.vcpus} vCPUs, {sku.memory_gib} GiB{gpus}",
        "workers": str(plan.workers),
        "per_gpu": ", and a GPU" if sku.gpus else "",
        "batch_size": str(plan.batch_size),
        "request_timeout_ms": str(plan.request_timeout_ms),
        # As long as a request, with some room; Azure's most is not stated, Microsoft uses 299.
        "probe_timeout": str(plan.request_timeout_ms // 1000),
        "probe_period": str(plan.request_timeout_ms // 1000 + 10),
        "mini_batch_seconds": str(plan.mini_batch_seconds),
        "file_rows": f"{FILE_ROWS:,}",
    }
