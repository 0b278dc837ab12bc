"""Writes the YAML of deployments, endpoints and models, with comments, from a plan."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template

from score.deploy.card import Card
from score.deploy.names import SECRET, SECRETS_FORM, checked
from score.deploy.plan import FILE_ROWS, Plan
from score.deploy.registered import PROPERTY, described
from score.deploy.server_limits import limits
from score.deploy.target import cluster as cluster_of
from score.deploy.target import kind_of
from score.errors import AzureError
from score.settings import PREFIX, names

_TEMPLATES = Path(__file__).parent / "templates"
_IDENTITY = (
    r"/subscriptions/[\w-]+/resourcegroups/[\w.()-]+"
    r"/providers/microsoft\.managedidentity/userassignedidentities/[\w-]+"
)


class _At(Template):
    """Placeholders are `@name`, since Azure's YAML uses `$` and `{}`; `@@` is an at sign."""

    delimiter = "@"


def render(
    plan: Plan,
    kind: str,
    *,
    command: str,
    code: str = ".",
    server: bool = False,
    why: str = "",
    name: str | None = None,
    registered: str = "clip",
    environment: str | None = None,
    cluster: str | None = None,
    tier: str | None = None,
    instances: int = 1,
    secrets: Mapping[str, str] | None = None,
) -> str:
    """The deployment's YAML.

    `kind`: online or batch. `command`: the arguments of `score azure render`, for the first lines.
    `code`: the path of the clone, relative to the YAML. `server`: whether `score serve` answers a
    real-time deployment, with the code in the model's folder; `why`: why not, for a comment.
    `registered` and `environment`: names in a workspace, or references (azureml:…,
    azureml://registries/…). `cluster`: the compute's
    name, by default that of the cluster of this size and `tier`. `name`: the deployment's name.
    `secrets`: setting → the address of its value, for real-time deployments.

    Raises AzureError for a plan that does not fit, and for invalid names and references.
    """
    plan.check(online=kind == "online")
    device = kind_of(plan.sku)
    _check_kind(environment, plan)
    suffix = "-batch" if kind == "batch" else "-server" if server else ""
    values = _values(plan) | {
        "command": command,
        "why": f"\n# Azure's inference server answers, as {why}." if why else "",
        "device": device,
        "name": checked("deployment", name or (f"{device}-server" if server else device)),
        "code": _quoted(code),
        "registered": _reference("model", registered),
        "environment": _reference("environment", environment or f"clip-{device}{suffix}"),
        "cluster": checked("cluster", cluster or cluster_of(plan.sku.name, tier)),
        "instances": str(instances),
        "device_setting": "cuda" if plan.sku.gpus else "cpu",
        "dimension": str(plan.dimension),
        "secrets": "".join(_secret(*secret) for secret in (secrets or {}).items()),
    }
    if server:
        values |= {name: str(value) for name, value in asdict(limits(plan)).items()}
    template = _TEMPLATES / ("online-server.yml" if server else f"{kind}.yml")
    return _At(template.read_text(encoding="utf-8")).substitute(values)


def filled(template: Path, plan: Plan, values: Mapping[str, str]) -> str:
    """Fills a template with a plan's values, and with `values`, which take precedence."""
    return _At(template.read_text(encoding="utf-8")).substitute(_values(plan) | dict(values))


def _check_kind(environment: str | None, plan: Plan) -> None:
    """Raises AzureError for clip-cpu on a size with GPUs, or clip-gpu on one without."""
    match = re.search(r"\bclip-(cpu|gpu)\b", environment or "")
    if match and match[1] != kind_of(plan.sku):
        has = "GPUs" if plan.sku.gpus else "no GPU"
        raise AzureError(f"{plan.sku.name} has {has}, and {environment} is not for such machines")


def _reference(what: str, name: str) -> str:
    """A reference to an asset as it is; a bare name becomes a reference to its latest version."""
    if not name.startswith("azureml:"):
        return f"azureml:{checked(what, name)}@latest"
    in_registry = rf"azureml://registries/[\w.-]+/{what}s/[\w.-]+/(versions|labels)/[\w.-]+"
    if re.fullmatch(rf"azureml:[\w.-]+(:[\w.-]+|@latest)|{in_registry}", name):
        return name
    raise AzureError(
        f"{name!r} is not azureml:NAME:VERSION, azureml:NAME@latest or "
        f"azureml://registries/REGISTRY/{what}s/NAME/versions/VERSION"
    )


def _secret(setting: str, where: str) -> str:
    """A line of `environment_variables` that refers to a secret."""
    if setting.removeprefix(PREFIX).lower() not in names() or not setting.startswith(PREFIX):
        raise AzureError(f"{setting}: there is no such setting")
    vault = SECRET.fullmatch(where)
    if not vault and not re.fullmatch(r"azureml://connections/[\w/.-]+", where):
        raise AzureError(
            f"{setting}: {where!r} is neither {SECRETS_FORM} nor "
            "azureml://connections/NAME/credentials/KEY"
        )
    reference = f"keyvault:{where}" if vault else where
    return f'\n  {setting}: "${{{{{reference}}}}}"  # Azure inserts the secret'


def render_endpoint(
    *,
    command: str,
    name: str = "clip",
    auth: str = "key",
    identity: str | None = None,
    private: bool = False,
    connections: bool = False,
) -> str:
    """The YAML of a real-time endpoint.

    `auth`: how clients authenticate: key, aml_token or aad_token. `identity`: the ARM id of a
    user-assigned identity, in place of the one that Azure creates. `private`: reachable only by
    the workspace's private endpoint. `connections`: its identity may read the secrets of the
    workspace's connections.

    Raises AzureError for values that Azure does not accept.
    """
    more = ""
    if identity:
        if not re.fullmatch(_IDENTITY, identity, re.IGNORECASE):
            raise AzureError(
                f"{identity!r} is no id of a user-assigned identity: /subscriptions/…"
                "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME"
            )
        if connections:
            raise AzureError("with an identity of your own, assign it the role that reads secrets")
        more += "\nidentity:\n  type: user_assigned\n  user_assigned_identities:\n"
        more += f"    - resource_id: {identity}"
    if connections:
        more += "\nproperties:\n  enforce_access_to_default_secret_stores: enabled"
    if private:
        more += "\npublic_network_access: disabled"
    text = (_TEMPLATES / "endpoint.yml").read_text(encoding="utf-8")
    return _At(text).substitute(
        command=command, name=checked("endpoint", name), auth=auth, more=more
    )


def _quoted(text: str) -> str:
    """A string as YAML, quoted where needed."""
    return text if re.fullmatch(r"[\w./-]+", text) else json.dumps(text)


def render_model(
    card: Card,
    plans: Sequence[Plan],
    *,
    path: str,
    registered: str = "clip",
    command: str,
) -> str:
    """The YAML of a registered model. `plans`: its plan on every size; `path`: its folder, relative
    to the YAML.

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
        dimension=str(card.architecture.dimension),
        property=PROPERTY,
        described=described(card.architecture),
        hub=json.dumps(card.hub),
        author=json.dumps(card.author),
        licence=json.dumps(card.licence),
        path=_quoted(path),
        registered=checked("model", registered),
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
        # As long as a request may take. Azure documents no maximum; Microsoft's examples use 299.
        "probe_timeout": str(plan.request_timeout_ms // 1000),
        "probe_period": str(plan.request_timeout_ms // 1000 + 10),
        "mini_batch_seconds": str(plan.mini_batch_seconds),
        "file_rows": f"{FILE_ROWS:,}",
    }
