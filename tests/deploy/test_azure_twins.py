"""The deploy scripts' twins in Python, against a client that keeps what they make."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.ai.ml.entities import ManagedOnlineDeployment, Model
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)

from score.checkpoints.catalog import CATALOG
from score.deploy.registered import PROPERTY, described
from score.errors import AzureError
from tests.support.azure_twins import GPU, OTHER, Client
from tests.support.surfaces import ROOT

pytest_plugins = ["tests.support.azure_twins"]


QUICK = {"mirror": 0, "steps": [100], "wait": 0}


def serving(twins: Any, client: Client) -> str:
    name: str = twins.online.deploy(client, **QUICK)
    client.notes.clear()
    return name


def test_the_first_deployment(twins: Any, client: Client) -> None:
    name = twins.online.deploy(client, device="gpu")
    assert name.startswith("clip-")
    assert [note.split()[:2] for note in client.notes[:3]] == [
        ["models", "gets"],
        ["environments", "gets"],
        ["online_endpoints", "has"],
    ]
    assert client.traffic == {"blue": 100}
    blue = client.online_deployments.get("blue")
    assert (blue.endpoint_name, blue.instance_type) == (name, GPU)
    assert (blue.model, blue.environment) == ("clip:1", "clip-gpu:1")
    assert blue.app_insights_enabled is True


def test_a_second_deployment_takes_over_step_by_step(twins: Any, client: Client) -> None:
    name = serving(twins, client)
    assert twins.online.deploy(client, sku=GPU, wait=0) == name
    moved = [note.partition(" has ")[2] for note in client.notes if " has " in note]
    assert moved == [
        "[('blue', 100)] [('green', 10)]",
        "[('blue', 100)] []",
        "[('blue', 90), ('green', 10)] []",
        "[('blue', 50), ('green', 50)] []",
        "[('green', 100)] []",
    ]
    assert list(client.online_deployments.there) == ["green"]


@pytest.mark.parametrize(
    ("fails", "passes"),
    [
        ("online_deployments gets green", 0),
        ("online_deployments gets green", None),  # and it is there, as `Failed`
        ("online_endpoints asks green", 0),
        ("online_endpoints asks green", 2),
        ("online_endpoints asks green", 4),
        ("online_endpoints has [('blue', 50), ('green', 50)] []", 0),
        ("online_endpoints asks all", 0),
    ],
)
def test_whatever_fails_everything_is_as_before(
    twins: Any, client: Client, fails: str, passes: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    serving(twins, client)
    client.fails, client.passes, client.stores = fails, passes or 0, passes is None
    with pytest.raises(HttpResponseError):
        twins.online.deploy(client, wait=0)
    assert client.traffic == {"blue": 100}
    assert not next(iter(client.online_endpoints.there.values())).mirror_traffic
    assert list(client.online_deployments.there) == ["blue"]
    if "gets" not in fails or client.stores:
        said = capsys.readouterr().err
        assert "the log of storage-initializer" in said
        assert "Everything is put back." in said


def test_what_cannot_be_put_back_is_named(
    twins: Any, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    name = serving(twins, client)
    client.expires = "online_endpoints has [('blue', 50), ('green', 50)] []"
    with pytest.raises(ClientAuthenticationError):
        twins.online.deploy(client, wait=0)
    _, _, left = capsys.readouterr().err.partition("Not everything is put back: green is billed")
    assert f"update --name {name} --traffic 'blue=100 green=0'" in left
    assert f"delete --name green --endpoint-name {name}" in left


def test_the_way_back_goes_on_after_an_error_and_the_cause_is_raised(
    twins: Any, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serving(twins, client)

    def fail(*_: Any, **__: Any) -> Any:
        raise HttpResponseError("no")

    client.fails = "online_endpoints asks green"
    monkeypatch.setattr(client.online_deployments, "get_logs", fail)
    with pytest.raises(HttpResponseError, match="asks green"):
        twins.online.deploy(client, wait=0)
    assert (client.traffic, list(client.online_deployments.there)) == ({"blue": 100}, ["blue"])
    monkeypatch.setattr(client.online_deployments, "begin_delete", fail)
    client.notes.clear()
    with pytest.raises(HttpResponseError, match="asks green"):
        twins.online.deploy(client, wait=0)
    _, _, left = capsys.readouterr().err.partition("Not everything is put back")
    assert ("--traffic" in left, "az ml online-deployment delete --name green" in left) == (
        False,
        True,
    )


def test_an_answer_that_is_not_the_models_is_a_failure(twins: Any, client: Client) -> None:
    client.dimension = 511
    with pytest.raises(AzureError, match="has 511 numbers, and the model's vectors have 512"):
        twins.online.deploy(client)
    assert client.traffic == {}
    assert client.online_deployments.there == {}


def test_what_others_made_stays(twins: Any, client: Client) -> None:
    name = serving(twins, client)
    client.online_deployments.there["nocode"] = SimpleNamespace(
        name="nocode", tags=None, instance_type=None, instance_count=None
    )
    client.online_endpoints.get(name).traffic = {"nocode": 100}
    twins.online.deploy(client, **QUICK)
    assert list(client.online_deployments.there) == ["blue", "nocode"]
    client.online_deployments.there["green"] = SimpleNamespace(name="green", tags={})
    with pytest.raises(AzureError, match="a deployment green that was not made here"):
        twins.online.deploy(client, **QUICK)
    client.online_endpoints.get(name).traffic = {"blue": 40, "nocode": 60}
    with pytest.raises(AzureError, match="shares its traffic"):
        twins.online.deploy(client, **QUICK)


def test_the_latest_model_gets_its_own_settings(twins: Any, client: Client) -> None:
    serving(twins, client)
    properties = {PROPERTY: described(CATALOG["laion-vit-bigg-14"].architecture)}
    model = Model(name="clip", version="4", properties=properties)
    client.models.there["clip"] = model
    with pytest.raises(AzureError, match="does not fit Standard_DS2_v2"):
        twins.online.deploy(client, sku="Standard_DS2_v2")
    asked: list[str] = []
    with pytest.raises(AzureError, match="of 512 numbers, green would of 1280"):
        twins.online.deploy(client, sku=GPU, agreed=asked.append, **QUICK)
    assert len(asked) == 1
    client.dimension = 1280
    twins.online.deploy(client, sku=GPU, agreed=lambda question: True, **QUICK)
    assert client.online_deployments.get("green").model == "clip:4"


def test_a_model_that_does_not_say_what_it_is_is_read_or_refused(
    twins: Any, client: Client, tmp_path: Path
) -> None:
    client.models.there["clip"] = Model(name="clip", version="2")
    client.package = tmp_path
    with pytest.raises(AzureError, match="clip:2 holds no MLmodel"):
        twins.online.deploy(client)
    assert client.notes == ["models downloads clip:2"]
    shutil.copy(ROOT / "MLmodel", tmp_path)
    shutil.copytree(ROOT / "model", tmp_path / "model")
    twins.online.deploy(client, **QUICK)
    assert client.online_deployments.get("blue").model == "clip:2"


@pytest.mark.parametrize(
    ("reference", "registry", "found"),
    [
        ("azureml:clip:3", None, {"version": "3"}),
        ("azureml:clip@latest", None, {"label": "latest"}),
        ("azureml://registries/r/models/clip/versions/3", "r", {"version": "3"}),
        ("azureml://registries/r/models/clip/labels/latest", "r", {"label": "latest"}),
    ],
)
def test_references_are_read(
    twins: Any, reference: str, registry: str | None, found: dict[str, str]
) -> None:
    assert twins.workspace._reference(reference) == (registry, "clip", found)


@pytest.mark.parametrize(
    "reference",
    [
        *("azureml:clip", "azureml:clip:", "azureml:clip/versions/3"),
        *("azureml://registries/r/models/clip", "azureml://registries/r/models/clip:3"),
        "azureml://registries/r/data/clip/versions/3",
    ],
)
def test_what_is_no_reference_is_refused(twins: Any, client: Client, reference: str) -> None:
    with pytest.raises(AzureError, match="azureml:NAME:VERSION"):
        twins.online.deploy(client, model=reference)


def test_a_model_is_looked_for_where_its_reference_says(twins: Any, client: Client) -> None:
    shared = "azureml://registries/shared/models/clip/versions/3"
    told = {"name": "clip", "version": "3", "properties": {}}
    client.models.there["clip"] = SimpleNamespace(id="/subscriptions/s", **told)
    with pytest.raises(AzureError, match="name that registry \\(--registry shared\\)"):
        twins.online.deploy(client, model=shared)
    registry = Client()
    given = {"registry": registry, "environment": "azureml:clip-cpu:1", **QUICK}
    other = "azureml://registries/other/models/clip/versions/3"
    registry.models.there["clip"] = SimpleNamespace(id=other, **told)
    with pytest.raises(AzureError, match="the one given has azureml://registries/other"):
        twins.online.deploy(client, model=shared, **given)
    registry.models.there["clip"] = SimpleNamespace(id=shared, **told)
    twins.online.deploy(client, model=shared, **given)
    assert client.online_deployments.get("blue").model == shared
    assert registry.notes == ["models downloads clip:3"]
    twins.online.deploy(client, model="azureml:clip:3", **given)
    assert client.online_deployments.get("green").model == "clip:3"
    assert "models downloads clip:3" in client.notes
    with pytest.raises(ResourceNotFoundError):
        twins.online.deploy(client, model="azureml:clip:4", **given)


def test_a_registry_holds_model_and_environment(twins: Any, client: Client) -> None:
    registry = Client()
    for family in ("model", "environment"):
        operations = getattr(registry, f"{family}s")
        create = operations.create_or_update

        def created(entity: Any, create: Any = create, family: str = family) -> Any:
            made = create(entity)
            where = f"azureml://registries/r/{family}s/{made.name}/versions/{made.version}"
            told = {"name": made.name, "version": made.version, "properties": made.properties}
            return SimpleNamespace(id=where, **told)

        operations.create_or_update = created
    twins.online.deploy(client, registry=registry, **QUICK)
    blue = client.online_deployments.get("blue")
    assert blue.model == "azureml://registries/r/models/clip/versions/1"
    assert blue.environment == "azureml://registries/r/environments/clip-cpu/versions/1"
    assert not any(note.startswith(("models", "environments")) for note in client.notes)


def test_an_endpoint_is_made_as_asked_and_kept_as_it_is(twins: Any, client: Client) -> None:
    identity = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity"
    identity += "/userAssignedIdentities/reader"
    given = {"auth": "aad_token", "identity": identity, "private": True}
    secret = "https://vault.vault.azure.net/secrets/proxy/0123abcd"
    name = twins.online.deploy(client, secrets={"SCORE_PROXY": secret}, **given, **QUICK)
    endpoint = client.online_endpoints.get(name)
    assert (endpoint.auth_mode, endpoint.public_network_access) == ("aad_token", "disabled")
    variables = client.online_deployments.get("blue").environment_variables
    assert variables["SCORE_PROXY"] == f"${{{{keyvault:{secret}}}}}"
    twins.online.deploy(client, **given, **QUICK)
    for other, said in (
        ({"auth": "key"}, "has the auth mode aad_token"),
        ({"identity": identity + "2"}, "has another identity"),
    ):
        with pytest.raises(AzureError, match=said):
            twins.online.deploy(client, **other)
    endpoint.public_network_access = "enabled"
    with pytest.raises(AzureError, match="open to the public network"):
        twins.online.deploy(client, private=True)


def test_what_does_not_go_together_is_refused_before_anything_is_made(
    twins: Any, client: Client
) -> None:
    for choices in (
        {"device": "cpu", "sku": GPU},
        {"device": "gpu", "sku": OTHER},
        {"mirror": 60},
        {"steps": [50, 10, 100]},
        {"steps": [10, 50]},
        {"wait": -1},
    ):
        with pytest.raises(AzureError):
            twins.online.deploy(client, **choices)
    with pytest.raises(AzureError, match="has a GPU, and cpu"):
        twins.batch.deploy(client, device="cpu", sku=GPU)
    assert client.notes == []


def test_clean_takes_down_what_was_made(twins: Any, client: Client) -> None:
    name = serving(twins, client)
    twins.online.clean(client, name)
    assert client.online_endpoints.there == {}


def test_clean_leaves_what_others_made_and_asks(twins: Any, client: Client) -> None:
    name = serving(twins, client)
    nocode = ManagedOnlineDeployment(name="nocode", endpoint_name=name)
    client.online_deployments.there["nocode"] = nocode
    asked: list[str] = []
    with pytest.raises(AzureError, match="nothing was deleted"):
        twins.online.clean(client, name, agreed=asked.append)
    assert "Shall nothing answer any more?" in asked[0]
    with pytest.raises(AzureError, match="nothing was deleted"):
        twins.online.clean(client, name, everything=True, agreed=asked.append)
    assert "blue nocode" in asked[1]
    client.online_endpoints.get(name).traffic = {"blue": 40, "nocode": 60}
    twins.online.clean(client, name, agreed=lambda question: True)
    assert client.traffic == {"nocode": 100}
    assert list(client.online_deployments.there) == ["nocode"]
    twins.online.clean(client, name, everything=True, agreed=lambda question: True)
    assert client.online_endpoints.there == {}


def test_options_are_read_before_anything_is_asked(
    twins: Any, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(twins.online, "connected", lambda options: (client, None))
    where = ["--subscription", "s", "--group", "g", "--workspace", "w", "--wait", "0"]
    for option, value, said in (
        ("--secret", "FOO", "'FOO' is not NAME=VALUE"),
        ("--instances", "0", "'0' is not a whole number"),
    ):
        monkeypatch.setattr(sys, "argv", ["online.py", *where, option, value])
        with pytest.raises(SystemExit):
            twins.online.main()
        assert said in capsys.readouterr().err
    assert client.notes == []
    secret = "SCORE_PROXY=https://vault.vault.azure.net/secrets/proxy/0123abcd"
    monkeypatch.setattr(sys, "argv", ["online.py", *where, "--secret", secret, "--instances", "2"])
    assert twins.online.main() == 0
    blue = client.online_deployments.get("blue")
    assert (blue.instance_count, "SCORE_PROXY" in blue.environment_variables) == (2, True)


def test_no_endpoint_is_named_for_a_workspace_without_an_id(twins: Any, client: Client) -> None:
    client.workspaces.get = lambda name: SimpleNamespace(id=None)
    with pytest.raises(AzureError, match="has no id"):
        twins.online.deploy(client)


@pytest.mark.process
def test_the_twins_agree_on_a_name(twins: Any, client: Client) -> None:
    shell = "az() { echo /subscriptions/s/workspaces/w; }; . samples/azure/common.sh"
    shell += "; endpoint_named clip"
    command = ["bash", "-c", shell]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == twins.online.endpoint_name(client, "clip")


@pytest.mark.parametrize("name", ["online", "batch"])
def test_notebooks_take_down_what_they_made_alone(name: str) -> None:
    cells = json.loads((ROOT / f"samples/notebooks/{name}.ipynb").read_text())["cells"]
    code = "".join(line for cell in cells if cell["cell_type"] == "code" for line in cell["source"])
    assert "begin_delete" not in code
    assert "clean(client, name)" in code
    assert 'endpoint_name(client, "clip-notebook' in code  # nobody else's endpoint
