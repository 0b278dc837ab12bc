"""Where a deployment runs, what a registered model says, and whether an endpoint answers right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.ai.ml import load_model, load_online_deployment, load_online_endpoint

from score.__main__ import main
from score.checkpoints.catalog import CATALOG
from score.deploy.registered import PROPERTY, described, registered
from score.deploy.skus import skus
from score.deploy.smoke import problems
from score.deploy.target import SMALL, target
from score.errors import AzureError
from score.folder.model_folder import EMBEDDED, ModelFolder
from tests.support.surfaces import ROOT

IDENTITY = (
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity"
    "/userAssignedIdentities/reader"
)
SECRET = "https://vault.vault.azure.net/secrets/proxy/0123abcd"


def azure(*arguments: str) -> int:
    return main(["azure", *arguments])


# -- a size decides ----------------------------------------------------------------------------


def test_kind_and_cluster_follow_from_the_size() -> None:
    for name, sku in skus().items():
        found = target(size=name)
        assert found.kind == ("gpu" if sku.gpus else "cpu")
        assert target(found.kind, name) == found
    assert target().size == SMALL["cpu"]
    assert target("gpu").size == SMALL["gpu"]
    assert target(size="standard_nc8as_t4_V3").size == "Standard_NC8as_T4_v3"
    names = {
        target(size=name, tier=tier).cluster for name in skus() for tier in (None, "low_priority")
    }
    assert len(names) == 2 * len(skus())  # a cluster's size and tier cannot be changed


@pytest.mark.parametrize(
    ("kind", "size", "tier", "said"),
    [
        ("cpu", "Standard_NC4as_T4_v3", None, "has a GPU, and cpu was asked for"),
        ("gpu", "Standard_D4as_v4", None, "has no GPU, and gpu was asked for"),
        ("tpu", None, None, "neither cpu nor gpu"),
        (None, "Standard_Z9", None, "no size 'Standard_Z9'"),
        (None, None, "spot", "dedicated or low_priority"),
    ],
)
def test_what_does_not_go_together_is_refused(
    kind: str | None, size: str | None, tier: str | None, said: str
) -> None:
    with pytest.raises(AzureError, match=said):
        target(kind, size, tier)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert azure("target", "--sku", "Standard_NC4as_T4_v3", "--tier", "low_priority") == 0
    assert capsys.readouterr().out == "Standard_NC4as_T4_v3 gpu clip-nc4as-t4-v3-lp\n"
    assert azure("target", "cpu", "--sku", "Standard_NC4as_T4_v3") == 2


# -- a registered model's own settings -----------------------------------------------------------


@pytest.mark.parametrize("name", CATALOG)
def test_a_model_tells_its_architecture(name: str) -> None:
    architecture = CATALOG[name].architecture
    shown = {"name": "clip", "version": "3", "properties": {PROPERTY: described(architecture)}}
    found = registered(shown)
    assert found.architecture == architecture
    assert found.reference == "azureml:clip:3"


def test_a_models_yaml_holds_it(tmp_path: Path) -> None:
    file = tmp_path / "model.yml"
    assert azure("render", "model", "--path", str(ROOT), "--output", str(file)) == 0
    for written in (file, ROOT / "components/model.yml"):
        model = load_model(written)
        shown = {"name": model.name, "version": "1", "properties": model.properties}
        assert registered(shown).architecture == ModelFolder.open(EMBEDDED).architecture


def shown(tmp_path: Path, **more: Any) -> str:
    file = tmp_path / "shown.json"
    file.write_text(json.dumps({"name": "clip", "version": "7", "properties": {}} | more))
    return str(file)


def test_a_deployment_gets_the_settings_of_the_registered_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--sku", "Standard_NC4as_T4_v3"]
    big = CATALOG["laion-vit-bigg-14"].architecture
    file = shown(tmp_path, properties={PROPERTY: described(big)})
    assert azure("render", "online", *size, "--described", file) == 0
    given = yaml.safe_load(capsys.readouterr().out)
    assert (given["model"], given["tags"]["dimension"]) == ("azureml:clip:7", "1280")
    assert azure("render", "online", *size, "--model", "laion-vit-bigg-14") == 0
    wanted = yaml.safe_load(capsys.readouterr().out)
    differing = {key for key in wanted if wanted[key] != given[key]}
    assert differing == {"model"}


def test_what_a_model_does_not_say_is_not_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--sku", "Standard_D4as_v4"]
    file = shown(tmp_path)
    assert azure("render", "online", *size, "--described", file) == 2
    assert "azureml:clip:7 does not say its architecture" in capsys.readouterr().err
    assert azure("render", "online", *size, "--described", file, "--model", str(ROOT)) == 0
    assert "model: azureml:clip:7\n" in capsys.readouterr().out
    for wrong in ({"properties": {PROPERTY: "ViT"}}, {"properties": {PROPERTY: "{}"}}):
        assert azure("render", "online", *size, "--described", shown(tmp_path, **wrong)) == 2
        assert f"its property {PROPERTY} is unusable" in capsys.readouterr().err
    (tmp_path / "shown.json").write_text("[]")
    assert azure("render", "batch", *size, "--described", file) == 2
    assert "not what `az ml model show` prints" in capsys.readouterr().err


# -- registries, identities, secrets -------------------------------------------------------------


def rendered(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert azure("render", *words) == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("size", "environment"),
    [("Standard_NC4as_T4_v3", "azureml:clip-cpu@latest"), ("Standard_D4as_v4", "clip-gpu")],
)
def test_an_environment_of_the_other_kind_is_refused(
    size: str, environment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["azure", "render", "online", "--sku", size, "--environment", environment]
    assert main(command) == 2
    assert f"{environment} is not for such machines" in capsys.readouterr().err


def test_a_registrys_model_and_environment_may_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = "azureml://registries/ours/models/clip/versions/3"
    environment = "azureml://registries/ours/environments/clip-cpu/labels/latest"
    words = ["--sku", "Standard_D4as_v4", "--registered", model, "--environment", environment]
    file = tmp_path / "deployment.yml"
    assert azure("render", "online", *words, "--code", str(ROOT), "--output", str(file)) == 0
    deployment = load_online_deployment(file)
    assert (deployment.model, deployment.environment) == (model, environment)
    assert azure("check", str(file)) == 0
    found = registered({"name": "clip", "version": "3", "id": model})
    assert found.reference == model
    for wrong in ("azureml:clip", "azureml://registries/ours/clip", "azureml://datastores/a"):
        assert azure("render", "online", "--sku", "Standard_D4as_v4", "--registered", wrong) == 2
        assert "is not azureml:NAME:VERSION" in capsys.readouterr().err


def test_a_secret_is_named_and_never_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deployment.yml"
    words = ["online", "--sku", "Standard_D4as_v4", "--code", str(ROOT)]
    assert azure("render", *words, "--secret", f"SCORE_PROXY={SECRET}", "--output", str(file)) == 0
    variables = load_online_deployment(file).environment_variables
    assert variables["SCORE_PROXY"] == f"${{{{keyvault:{SECRET}}}}}"
    connection = "azureml://connections/proxy/credentials/url"
    given = rendered(capsys, *words, "--secret", f"SCORE_PROXY={connection}")
    assert given["environment_variables"]["SCORE_PROXY"] == f"${{{{{connection}}}}}"


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        (f"SCORE_PROXIES={SECRET}", "SCORE_PROXIES: there is no such setting"),
        ("SCORE_PROXY=http://user:password@proxy:3128", "is neither https://VAULT"),
        ("SCORE_PROXY=https://vault.vault.azure.net/secrets/proxy", "the version is needed"),
    ],
)
def test_what_is_no_secrets_address_is_refused(
    secret: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert azure("render", "online", "--sku", "Standard_D4as_v4", "--secret", secret) == 2
    assert said in capsys.readouterr().err


def test_endpoints_have_the_identity_and_access_that_were_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "endpoint.yml"
    words = ["--auth", "aad_token", "--identity", IDENTITY, "--private", "--name", "mine"]
    assert azure("render", "endpoint", *words, "--output", str(file)) == 0
    endpoint = load_online_endpoint(file)
    assert (endpoint.name, endpoint.auth_mode) == ("mine", "aad_token")
    assert endpoint.public_network_access == "disabled"
    assert endpoint.identity.type == "user_assigned"
    assert [one.resource_id for one in endpoint.identity.user_assigned_identities] == [IDENTITY]
    assert azure("check", str(file)) == 0
    given = rendered(capsys, "endpoint", "--connections")
    assert given["properties"] == {"enforce_access_to_default_secret_stores": "enabled"}
    for wrong, said in (
        (["--identity", "reader"], "no id of a user-assigned identity"),
        (["--identity", IDENTITY, "--connections"], "assign it the role"),
        (["--sku", "Standard_D4as_v4"], "--sku has no meaning for render endpoint"),
        (["--name", "my.end_point"], "3 to 32 letters, digits and single dashes"),
    ):
        assert azure("render", "endpoint", *wrong) == 2
        assert said in capsys.readouterr().err


# -- is the answer right? ------------------------------------------------------------------------

REQUEST = {"input_data": {"columns": ["image", "text"], "data": [["aGk=", "a cat"], ["", "a dog"]]}}
GOOD = [
    {"image_features": [0.5, 1.0], "text_features": [1.0, -1.0]},
    {"text_features": [0.0, 2.0]},
]
ERROR = {"error": {"code": "fetch_failed", "message": "no", "retryable": True}}


def test_a_good_answer_has_no_problems() -> None:
    for answer in (GOOD, json.dumps(GOOD)):  # the CLI prints a string
        assert problems(REQUEST, json.dumps(answer), 2) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "no JSON"),
        ('{"error": "ModelDeploymentError"}', "no list of records"),
        (json.dumps(GOOD[:1]), "2 rows were asked, 1 answered"),
        (json.dumps([GOOD[0], ERROR]), "row 1: error"),
        (json.dumps([GOOD[0], {}]), "row 1: it has no text_features"),
        (json.dumps([GOOD[1], GOOD[1]]), "row 0: it has no image_features"),
        (json.dumps([GOOD[0], {"text_features": [1.0]}]), "row 1: text_features has 1 numbers"),
        (json.dumps([GOOD[0], {"text_features": [1.0, None]}]), "else than finite numbers"),
        (json.dumps([GOOD[0], {"text_features": [1.0, float("nan")]}]), "else than finite"),
        (json.dumps([GOOD[0], {"text_features": [0.0, 0.0]}]), "row 1: text_features is all zeros"),
        (json.dumps([GOOD[0], "x"]), "row 1: 'x' is no record"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(answer: str, said: str) -> None:
    assert said in " ".join(problems(REQUEST, answer, 2))


def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request, answer = tmp_path / "request.json", tmp_path / "answer.json"
    request.write_text(json.dumps(REQUEST))
    answer.write_text(json.dumps(GOOD))
    words = ["smoke", str(request), str(answer), "--dimension"]
    assert azure(*words, "2") == 0
    assert azure(*words, "3") == 1
    assert "the model's vectors have 3" in capsys.readouterr().err
    request.write_text("{}")
    assert azure(*words, "2") == 2
    assert azure("smoke", str(tmp_path / "gone"), str(answer), "--dimension", "2") == 2
