"""How many machines there are: clusters as Azure's SDK loads them, rules as ARM has them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.ai.ml import load_compute

from score.__main__ import main
from score.checkpoints.catalog import CATALOG
from score.deploy.plan import Plan, plan
from score.deploy.scaling import render_autoscale, render_cluster
from score.deploy.skus import lookup, skus
from score.errors import AzureError


def planned(size: str, model: str = "openai-vit-b-32") -> Plan:
    return plan(lookup(size), model, CATALOG[model].architecture)


# -- clusters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["dedicated", "low_priority"])
@pytest.mark.parametrize("size", ["Standard_D4as_v4", "Standard_NC40ads_H100_v5"])
def test_azures_own_loader_takes_a_cluster(size: str, tier: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yml"
    file.write_text(render_cluster(planned(size), command="", instances=6, tier=tier))
    cluster: Any = load_compute(file)
    assert (cluster.type, cluster.size, cluster.tier) == ("amlcompute", size, tier)
    assert (cluster.min_instances, cluster.max_instances) == (0, 6)
    assert cluster.idle_time_before_scale_down == 120
    short = size.removeprefix("Standard_").lower().replace("_", "-")
    assert cluster.name == f"clip-{short}{'-lp' if tier == 'low_priority' else ''}"


def test_a_clusters_quota_is_in_its_comment() -> None:
    dedicated = render_cluster(planned("Standard_D4as_v4"), command="", instances=5)
    assert "# Quota: 20 vCPUs of standardDASv4Family" in dedicated
    low = render_cluster(planned("Standard_D4as_v4"), command="", tier="low_priority")
    assert "# Quota: 16 vCPUs of the low-priority cores of all families" in low


def test_every_size_that_fits_has_a_cluster() -> None:
    for size in skus():
        one = planned(size)
        if one.fits:
            assert yaml.safe_load(render_cluster(one, command="", tier="low_priority"))


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"tier": "spot"}, "tier is dedicated or low_priority, not 'spot'"),
        ({"tier": "low_priority", "instances": 1}, "use --instances 2 or more"),
        ({"name": "cpu-cluster-1"}, "a letter somewhere after its last dash"),
    ],
)
def test_a_cluster_that_azure_would_not_have_is_refused(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(AzureError, match=said):
        render_cluster(planned("Standard_D4as_v4"), command="", **choices)


def test_a_cluster_of_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(AzureError, match="does not fit Standard_NC6s_v3: Azure retired"):
        render_cluster(planned("Standard_NC6s_v3"), command="")


# -- autoscale ---------------------------------------------------------------------------------

# Fields and values of Microsoft.Insights/autoscaleSettings, of its ARM reference; metrics of
# onlineEndpoints and of their deployments, of Azure Monitor's lists of supported metrics.
TRIGGER = {
    "metricName": {"CpuUtilizationPercentage", "GpuUtilizationPercentage", "RequestLatency"},
    "statistic": {"Average", "Max", "Min", "Sum", "Count"},
    "timeAggregation": {"Average", "Count", "Last", "Maximum", "Minimum", "Total"},
    "operator": {"Equals", "GreaterThan", "GreaterThanOrEqual", "LessThan", "LessThanOrEqual"}
    | {"NotEquals"},
}
ACTION = {
    "direction": {"Decrease", "Increase", "None"},
    "type": {"ChangeCount", "ExactCount", "PercentChangeCount", "ServiceAllowedNextValue"},
}
DURATION = r"PT\d+[MH]"


@pytest.mark.parametrize("size", ["Standard_D4as_v4", "Standard_NC24ads_A100_v4"])
def test_the_rules_are_what_azures_reference_knows(size: str) -> None:
    template = json.loads(render_autoscale(planned(size), command="autoscale"))
    assert set(template) == {
        *("$schema", "contentVersion", "metadata", "parameters", "variables", "resources")
    }
    (setting,) = template["resources"]
    assert setting["type"] == "Microsoft.Insights/autoscaleSettings"
    assert set(setting) == {"type", "apiVersion", "name", "location", "properties"}
    properties = setting["properties"]
    assert set(properties) == {"name", "enabled", "targetResourceUri", "profiles"}
    (profile,) = properties["profiles"]
    assert set(profile) == {"name", "capacity", "rules"}
    assert all(isinstance(number, str) for number in profile["capacity"].values())
    for rule in profile["rules"]:
        trigger, action = rule["metricTrigger"], rule["scaleAction"]
        for part, values in ((trigger, TRIGGER), (action, ACTION)):
            assert all(part[name] in allowed for name, allowed in values.items())
        assert set(trigger) == {
            *TRIGGER,
            *("metricResourceUri", "timeGrain", "timeWindow", "threshold"),
        }
        assert set(action) == {*ACTION, "value", "cooldown"}
        for duration in (trigger["timeGrain"], trigger["timeWindow"], action["cooldown"]):
            assert re.fullmatch(DURATION, duration)
        owner = "endpoint" if trigger["metricName"] == "RequestLatency" else "deployment"
        assert trigger["metricResourceUri"] == f"[variables('{owner}')]"


def test_every_name_in_an_expression_is_declared() -> None:
    text = render_autoscale(planned("Standard_D4as_v4"), command="")
    template = json.loads(text)
    for kind in ("parameters", "variables"):
        used = set(re.findall(rf"{kind}\('(\w+)'\)", text))
        assert used == set(template[kind])
    # as many names as the type has segments after the provider
    assert template["variables"]["deployment"].count("parameters(") == 3
    assert template["variables"]["endpoint"].count("parameters(") == 2


def rules(one: Plan, **choices: Any) -> tuple[dict[str, str], list[dict[str, Any]]]:
    (setting,) = json.loads(render_autoscale(one, command="", **choices))["resources"]
    (profile,) = setting["properties"]["profiles"]
    return profile["capacity"], profile["rules"]


@pytest.mark.parametrize(
    ("size", "model", "metric"),
    [
        ("Standard_D4as_v4", "openai-vit-b-32", "CpuUtilizationPercentage"),
        ("Standard_NC24ads_A100_v4", "laion-vit-bigg-14", "GpuUtilizationPercentage"),
        # 24 vCPUs decode too slowly for an A100: they are what is busy
        ("Standard_NC24ads_A100_v4", "openai-vit-b-32", "CpuUtilizationPercentage"),
    ],
)
def test_what_limits_a_machine_decides(size: str, model: str, metric: str) -> None:
    one = planned(size, model)
    _, found = rules(one)
    more = [rule for rule in found if rule["scaleAction"]["direction"] == "Increase"]
    (less,) = [rule for rule in found if rule["scaleAction"]["direction"] == "Decrease"]
    assert [rule["metricTrigger"]["metricName"] for rule in more] == [metric, "RequestLatency"]
    assert less["metricTrigger"]["metricName"] == metric
    assert more[1]["metricTrigger"]["threshold"] == one.request_timeout_ms / 2
    # With one machine less the rest must not be busy again: Azure would not take it away.
    assert less["metricTrigger"]["threshold"] * 2 < more[0]["metricTrigger"]["threshold"]


@pytest.mark.parametrize(
    ("choices", "least", "most"),
    [
        ({}, 3, 6),
        ({"instances": 1}, 1, 2),
        ({"instances": 2, "most": 5}, 2, 5),
        ({"instances": 40}, 40, 50),
    ],
)
def test_numbers_of_instances(choices: dict[str, int], least: int, most: int) -> None:
    capacity, _ = rules(planned("Standard_D4as_v4"), **choices)
    assert capacity == {"minimum": str(least), "maximum": str(most), "default": str(least)}


@pytest.mark.parametrize("choices", [{"instances": 5, "most": 4}, {"instances": 60}, {"most": 51}])
def test_numbers_that_azure_does_not_take_are_refused(choices: dict[str, int]) -> None:
    with pytest.raises(AzureError, match="Azure takes 1 to 50"):
        render_autoscale(planned("Standard_D4as_v4"), command="", **choices)


def test_rules_name_the_quota_of_the_most() -> None:
    template = json.loads(render_autoscale(planned("Standard_D4as_v4"), command="x", most=10))
    assert "48 vCPUs of standardDASv4Family" in template["metadata"]["description"]
    with pytest.raises(AzureError, match="managed online endpoints does not have it"):
        render_autoscale(planned("Standard_D4ads_v5"), command="")


# -- the command line --------------------------------------------------------------------------


def test_the_command_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sku = ["--sku", "Standard_D4as_v4"]
    assert main(["azure", "render", "cluster", *sku, "--tier", "low_priority"]) == 0
    cluster = yaml.safe_load(capsys.readouterr().out)
    assert (cluster["name"], cluster["tier"]) == ("clip-d4as-v4-lp", "low_priority")
    file = tmp_path / "autoscale.json"
    numbers = ["--instances", "2", "--most", "4"]
    assert main(["azure", "render", "autoscale", *sku, *numbers, "--output", str(file)]) == 0
    written = json.loads(file.read_text())["metadata"]["writtenBy"]
    assert written == "python -m score azure render autoscale " + " ".join([*sku, *numbers])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cluster"], "--sku"),
        (["autoscale"], "--sku"),
        (["cluster", "--sku", "Standard_D4as_v4", "--most", "2"], "--most has no meaning"),
        (["online", "--sku", "Standard_D4as_v4", "--tier", "dedicated"], "--tier has no meaning"),
    ],
)
def test_what_is_missing_or_without_meaning_is_said(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["azure", "render", *arguments]) == 2
    assert said in capsys.readouterr().err
