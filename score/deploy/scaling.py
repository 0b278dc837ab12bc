"""Writes a cluster's YAML, and the autoscale rules of a real-time deployment, from a plan.

The rules are an ARM template, in which Azure accepts all of them at once:
https://learn.microsoft.com/azure/machine-learning/how-to-autoscale-endpoints and
https://learn.microsoft.com/azure/templates/microsoft.insights/autoscalesettings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from score.deploy.names import DEDICATED, LOW_PRIORITY, TIERS, checked, cluster_name
from score.deploy.plan import MOST_INSTANCES, Plan
from score.deploy.render import filled
from score.errors import AzureError

_CLUSTER = Path(__file__).parent / "templates" / "cluster.yml"

PRODUCTION = 3  # the least number of instances that Azure recommends for production

# Per cent of utilisation, as in Azure's example (azureml-examples, cli/deploy-moe-autoscale.sh).
BUSY, IDLE = 70, 25
WINDOW = "PT5M"  # over which metrics are averaged
# Pauses after a change: a new machine needs time to download image and model, and only then takes
# load off the others. Stated.
AFTER_MORE, AFTER_LESS = "PT15M", "PT30M"

_DEPLOYMENT = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments"
_NAMES = "parameters('workspace'), parameters('endpoint')"


def render_cluster(
    plan: Plan,
    *,
    command: str,
    name: str | None = None,
    instances: int = 4,
    tier: str = DEDICATED,
) -> str:
    """A cluster's YAML. `instances`: the most nodes; `name`: by default made of size and tier.

    `command`: the arguments of `score azure render`, for the first lines. Raises AzureError for a
    plan that does not fit, an unknown tier, and a low-priority cluster of a single node: Azure may
    take that node away, and cancels the job.
    """
    plan.check()
    if tier not in TIERS:
        raise AzureError(f"a cluster's tier is {' or '.join(TIERS)}, not {tier!r}")
    low = tier == LOW_PRIORITY
    if low and instances < 2:
        raise AzureError(
            "use --instances 2 or more: Azure cancels a job that loses its only machine"
        )
    values = {
        "command": command,
        "name": checked("cluster", name) if name else cluster_name(plan.sku.name, tier),
        "instances": str(instances),
        "quota": str(plan.sku.batch_quota(instances)),
        "pool": "the low-priority cores of all families" if low else plan.sku.family,
        "tier": tier,
        "note": "  # cheaper; Azure may take machines away, and their files are tried again"
        if low
        else "",
    }
    return filled(_CLUSTER, plan, values)


def render_autoscale(
    plan: Plan, *, command: str, instances: int = PRODUCTION, most: int | None = None
) -> str:
    """Azure Monitor's rules for a deployment, as an ARM template in JSON.

    Between `instances` and `most` (by default twice as many) machines: one is added while the
    limiting processor is busy or requests take half of their time limit, one is removed while it is
    idle. Raises AzureError for a plan that does not fit, and for numbers out of Azure's range.
    """
    plan.check(online=True)
    most = min(2 * instances, MOST_INSTANCES) if most is None else most
    if not 1 <= instances <= most <= MOST_INSTANCES:
        raise AzureError(
            f"from {instances} to {most} instances: Azure takes 1 to {MOST_INSTANCES}, and no "
            "minimum above maximum"
        )
    gpu_bound = plan.sku.gpus and plan.rate.limit == "encoding"
    metric = "GpuUtilizationPercentage" if gpu_bound else "CpuUtilizationPercentage"
    half = plan.request_timeout_ms // 2
    rules = [
        _rule(metric, "deployment", "GreaterThan", BUSY, "Increase"),
        _rule("RequestLatency", "endpoint", "GreaterThan", half, "Increase"),
        _rule(metric, "deployment", "LessThan", IDLE, "Decrease"),
    ]
    quota = plan.sku.online_quota(most)
    capacity = {"minimum": str(instances), "maximum": str(most), "default": str(instances)}
    template = {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "metadata": {
            "description": f"{plan.model} on {instances} to {most} x {plan.sku.name}: "
            f"{quota} vCPUs of {plan.sku.family}",
            "writtenBy": f"python -m score azure render {command}",
        },
        "parameters": {
            "workspace": {"type": "string"},
            "endpoint": {"type": "string"},
            "deployment": {"type": "string"},
            "location": {"type": "string", "defaultValue": "[resourceGroup().location]"},
        },
        "variables": {
            "endpoint": f"[resourceId('{_DEPLOYMENT.rpartition('/')[0]}', {_NAMES})]",
            "deployment": f"[resourceId('{_DEPLOYMENT}', {_NAMES}, parameters('deployment'))]",
        },
        "resources": [_setting({"name": "clip", "capacity": capacity, "rules": rules})],
    }
    return json.dumps(template, indent=2) + "\n"


def _setting(profile: dict[str, Any]) -> dict[str, Any]:
    name = "[format('autoscale-{0}-{1}', parameters('endpoint'), parameters('deployment'))]"
    return {
        "type": "Microsoft.Insights/autoscaleSettings",
        "apiVersion": "2022-10-01",
        "name": name,
        "location": "[parameters('location')]",
        "properties": {
            "name": name,
            "enabled": True,
            "targetResourceUri": "[variables('deployment')]",
            "profiles": [profile],
        },
    }


def _rule(metric: str, owner: str, operator: str, threshold: int, way: str) -> dict[str, Any]:
    return {
        "metricTrigger": {
            "metricName": metric,
            "metricResourceUri": f"[variables('{owner}')]",
            "timeGrain": "PT1M",
            "statistic": "Average",
            "timeWindow": WINDOW,
            "timeAggregation": "Average",
            "operator": operator,
            "threshold": threshold,
        },
        "scaleAction": {
            "direction": way,
            "type": "ChangeCount",
            "value": "1",
            "cooldown": AFTER_MORE if way == "Increase" else AFTER_LESS,
        },
    }
