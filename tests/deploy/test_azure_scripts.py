"""The real-time deploy script against a stand-in for `az ml`, which keeps what it makes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from score.checkpoints.catalog import CATALOG
from score.deploy.registered import PROPERTY, described
from tests.support.azure_scripts import ENDPOINT, GPU, OTHER, Az, prepared, script
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Az:
    return prepared(tmp_path, monkeypatch)


def online(*arguments: str, **variables: Any) -> Any:
    return script("deploy-online.sh", *arguments, **variables)


def deployed(*arguments: str, **variables: Any) -> str:
    done = online(*arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def refused(*arguments: str, **variables: str) -> str:
    done = online(*arguments, **variables)
    assert done.returncode != 0, done.stdout
    assert "unbound variable" not in done.stderr
    return str(done.stderr)


# -- the first deployment ----------------------------------------------------------------------


def test_from_nothing_to_an_answer(az: Az) -> None:
    said = deployed()
    made = ["model create", "online-endpoint create", "environment create"]
    tried = ["online-endpoint invoke", "online-endpoint invoke"]
    created = ["online-deployment create", *tried, "online-endpoint update", *tried]
    assert az.verbs == [*made, *created]
    assert az.traffic == {"blue": 100}
    blue = az.state["online-deployment"][f"{ENDPOINT}/blue"]
    assert (blue["model"], blue["environment"]) == ("azureml:clip:1", "azureml:clip-cpu:1")
    assert blue["app_insights_enabled"] is True
    direct = [call for call in az.asked if call[1] == "invoke"][:2]
    assert all(call[call.index("--deployment-name") + 1] == "blue" for call in direct)
    assert "is billed" in said
    assert "both.json: " in said


def test_an_endpoint_has_the_name_that_it_is_given(az: Az) -> None:
    deployed(ENDPOINT="mine")
    assert list(az.state["online-endpoint"]) == ["mine"]


def test_no_endpoint_is_named_for_a_workspace_that_does_not_answer(
    az: Az, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "prints no id" in refused(AZ_WORKSPACE="")
    monkeypatch.setenv("AZ_FAILS", "workspace show")
    for words in ((), ("clean",)):
        assert "(BadRequest) workspace show" in refused(*words)
    assert az.asked == []


def test_the_size_decides_on_environment_and_settings(az: Az) -> None:
    deployed(SKU=GPU, INSTANCES="3")
    blue = az.state["online-deployment"][f"{ENDPOINT}/blue"]
    assert (blue["instance_type"], blue["environment"]) == (GPU, "azureml:clip-gpu:1")
    assert blue["environment_variables"]["SCORE_DEVICE"] == "cuda"
    assert blue["instance_count"] == 3
    assert list(az.state["environment"]) == ["/clip-gpu"]


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["tpu"], {}, "cpu, gpu or clean, not tpu"),
        (["cpu"], {"SKU": GPU}, "has a GPU, and cpu was asked for"),
        (["gpu"], {"SKU": OTHER}, "has no GPU, and gpu was asked for"),
        ([], {"SKU": "Standard_Z9"}, "no size 'Standard_Z9'"),
        ([], {"TIER": "low_priority"}, "TIER is for batch clusters"),
        ([], {"MIRROR": "60"}, "MIRROR=60: 0 to 50 percent"),
        ([], {"STEPS": "50 10"}, "growing percentages"),
        ([], {"STEPS": "10 50"}, "the last of them 100"),
        ([], {"WAIT": "a minute"}, "WAIT=a minute: seconds"),
        ([], {"AUTH": "none"}, "--auth"),
        ([], {"MODEL": "azureml:clip"}, "MODEL=azureml:clip: azureml:NAME:VERSION"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    az: Az, arguments: list[str], variables: dict[str, str], said: str
) -> None:
    assert said in refused(*arguments, **variables)
    assert az.asked == []


def package(folder: Path, name: str) -> Path:
    """A package that says which model it holds, without the model's weights."""
    (folder / "model").mkdir(parents=True)
    shutil.copy(ROOT / "MLmodel", folder)
    shutil.copytree(ROOT / "model", folder / "model", dirs_exist_ok=True)
    (folder / "model/config.json").write_text(json.dumps(CATALOG[name].architecture.config()))
    return folder


def test_what_does_not_fit_is_not_registered(az: Az, tmp_path: Path) -> None:
    huge = package(tmp_path / "huge", "laion-vit-bigg-14")
    assert "does not fit Standard_DS2_v2" in refused(MODEL=str(huge), SKU="Standard_DS2_v2")
    assert az.asked == []


def test_only_what_is_not_there_is_registered(az: Az, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(az, "openai-vit-l-14")
    for fails in ("model list", "model show"):
        monkeypatch.setenv("AZ_FAILS", fails)
        assert f"(BadRequest) {fails}" in refused()
    assert az.asked == []


# -- the model's own settings --------------------------------------------------------------------


def registered(az: Az, name: str | None, registry: str = "") -> None:
    """A model `clip` in the workspace or a registry, which says what it is, or does not."""
    properties = {PROPERTY: described(CATALOG[name].architecture)} if name else {}
    where = f"azureml://registries/{registry}" if registry else "/subscriptions/s"
    model = {"name": "clip", "version": "1", "properties": properties}
    model["id"] = f"{where}/models/clip/versions/1"
    az.there(model={f"{registry}/clip": [model]})


def test_the_latest_model_gets_its_own_settings(az: Az, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(az, "laion-vit-bigg-14")
    monkeypatch.setenv("AZ_DIMENSION", "1280")
    deployed("gpu")
    blue = az.state["online-deployment"][f"{ENDPOINT}/blue"]
    assert blue["tags"]["dimension"] == "1280"
    assert "model create" not in az.verbs
    assert "does not fit Standard_DS2_v2" in refused(SKU="Standard_DS2_v2")


def test_a_model_that_does_not_say_what_it_is_is_read_or_refused(
    az: Az, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(az, None)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("AZ_MODEL", str(tmp_path / "empty"))
    assert "holds no MLmodel" in refused()
    assert az.verbs == ["model download"]
    monkeypatch.setenv("AZ_MODEL", str(package(tmp_path / "package", "openai-vit-l-14")))
    monkeypatch.setenv("AZ_DIMENSION", "768")
    deployed("gpu")
    blue = az.state["online-deployment"][f"{ENDPOINT}/blue"]
    assert (blue["model"], blue["tags"]["dimension"]) == ("azureml:clip:1", "768")


def test_a_package_of_ones_own_is_registered(az: Az, tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(ROOT)
    deployed(cwd=tmp_path, MODEL="mine")  # from where the caller is
    (call,) = [call for call in az.asked if call[:2] == ["model", "create"]]
    file = call[call.index("--file") + 1]
    assert file.endswith("/model.yml")
    assert not Path(file).exists()  # it is put away


def test_a_registry_holds_model_and_environment(az: Az) -> None:
    deployed(REGISTRY="ours")
    blue = az.state["online-deployment"][f"{ENDPOINT}/blue"]
    assert blue["model"] == "azureml://registries/ours/models/clip/versions/1"
    assert blue["environment"] == "azureml://registries/ours/environments/clip-cpu/versions/1"
    az.log.unlink()
    deployed(MODEL=blue["model"], ENVIRONMENT=blue["environment"], INSTANCES="2")
    assert not {"model create", "environment create"} & set(az.verbs)
    green = az.state["online-deployment"][f"{ENDPOINT}/green"]
    assert (green["model"], green["environment"]) == (blue["model"], blue["environment"])


# -- blue and green ------------------------------------------------------------------------------


def moves(az: Az) -> list[str]:
    """What became of the traffic, in order."""
    options = ("--traffic", "--mirror-traffic")
    return [word for call in az.asked for at, word in enumerate(call) if call[at - 1] in options]


def test_a_second_deployment_takes_over_step_by_step(az: Az) -> None:
    az.serving("blue")
    said = deployed("gpu", MIRROR="10", STEPS="10 50 100")
    assert moves(az) == [
        *("green=10", "green=0"),
        *("blue=90 green=10", "blue=50 green=50", "blue=0 green=100"),
    ]
    calls = [" ".join(call) for call in az.asked]
    first = next(at for at, call in enumerate(calls) if "traffic" in call)
    assert "invoke" in calls[first - 1]
    assert "--deployment-name green" in calls[first - 1]
    assert az.traffic == {"green": 100}
    assert az.deployments == ["green"]
    assert "blue is deleted; green is billed" in said


@pytest.mark.parametrize(
    ("fails", "after"),
    [
        ("online-deployment create .*green", 1),
        ("online-deployment create .*green", 0),  # and it is there, as `Failed`
        ("invoke .*--deployment-name green", 1),  # before any request of others reaches it
        ("invoke .*--deployment-name green", 3),  # while it gets copies
        ("invoke .*--deployment-name green", 5),  # at 10 %
        ("--traffic blue=50", 1),
        ("invoke (?!.*--deployment-name)", 1),  # of the endpoint, at last
    ],
)
def test_whatever_fails_everything_is_as_before(
    az: Az, monkeypatch: pytest.MonkeyPatch, fails: str, after: int
) -> None:
    az.serving("blue")
    monkeypatch.setenv("AZ_FAILS", fails)
    monkeypatch.setenv("AZ_AFTER", str(after))
    monkeypatch.setenv("AZ_STORED", "" if after else "1")
    said = refused("gpu", MIRROR="10", STEPS="10 50 100")
    assert az.traffic == {"blue": 100}
    assert not any(az.state["online-endpoint"][ENDPOINT]["mirror_traffic"].values())
    assert az.deployments == ["blue"]
    if "create" in fails and after:
        assert "green failed" not in said
    else:
        assert "green failed: putting everything back" in said
        assert "Everything is put back." in said
        assert "the log of inference-server" in said
        assert "the log of storage-initializer" in said


def test_what_cannot_be_put_back_is_named(az: Az, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that ends on the way: no call succeeds any more, not even the one that looks."""
    az.serving("blue")
    monkeypatch.setenv("AZ_EXPIRES", "--traffic blue=50 green=50")
    said = refused(STEPS="10 50 100")
    _, _, left = said.partition("Not everything is put back: green is billed")
    assert f"update --name {ENDPOINT} --traffic 'blue=100 green=0'" in left
    assert f"delete --name green --endpoint-name {ENDPOINT}" in left
    tried = [" ".join(call[:2]) for call in az.asked]
    assert tried[-4:] == [
        "online-endpoint update",
        *["online-deployment get-logs"] * 2,
        "online-deployment delete",
    ]


def test_each_step_of_the_way_back_is_tried(az: Az, monkeypatch: pytest.MonkeyPatch) -> None:
    az.serving("blue")
    monkeypatch.setenv("AZ_FAILS", "get-logs|invoke .*--deployment-name green")
    said = refused(STEPS="10 50 100")
    assert "Everything is put back." in said
    assert (az.deployments, az.traffic) == (["blue"], {"blue": 100})


def test_an_answer_that_is_not_the_models_is_a_failure(
    az: Az, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZ_DIMENSION", "511")
    said = refused()
    assert "image_features has 511 numbers, and the model's vectors have 512" in said
    assert az.traffic == {}
    assert az.deployments == []


def test_kept_deployments_are_named_with_what_they_cost(
    az: Az, monkeypatch: pytest.MonkeyPatch
) -> None:
    az.serving("blue")
    said = deployed(KEEP="1")
    assert az.deployments == ["blue", "green"]
    assert "blue is kept with no traffic. Both are billed" in said
    deployed()  # takes the one that was kept, and leaves one
    assert (az.deployments, az.traffic) == (["blue"], {"blue": 100})
    monkeypatch.setenv("AZ_FAILS", "invoke .*--deployment-name green")
    said = refused(KEEP="1")
    assert "green is kept, to be looked at" in said
    assert (az.deployments, az.traffic) == (["blue", "green"], {"blue": 100})


def test_what_others_made_is_neither_replaced_nor_deleted(az: Az) -> None:
    az.serving("blue")
    az.other("nocode", 100)
    said = deployed()
    assert az.deployments == ["blue", "nocode"]
    assert az.traffic == {"blue": 100}
    assert "nocode was not made by this script" in said
    az.other("green")
    assert "green that these scripts did not make" in refused()


def test_a_rollout_under_way_is_not_disturbed(az: Az) -> None:
    az.serving("blue", "green")
    endpoint = az.state["online-endpoint"][ENDPOINT]
    az.there(online_endpoint={ENDPOINT: endpoint | {"traffic": {"blue": 40, "green": 60}}})
    assert "shares its traffic (blue=40 green=60)" in refused()


def test_vectors_of_another_length_are_asked_about(az: Az, monkeypatch: pytest.MonkeyPatch) -> None:
    az.serving("blue")
    registered(az, "openai-vit-l-14")
    assert "blue answers vectors of 512 numbers, green would of 768" in refused("gpu")
    assert az.deployments == ["blue"]
    monkeypatch.setenv("AZ_DIMENSION", "768")
    deployed("gpu", "--yes")
    assert az.deployments == ["green"]


def test_other_or_fewer_machines_than_those_that_serve_are_asked_about(az: Az) -> None:
    deployed(SKU="Standard_NC8as_T4_v3", INSTANCES="3")
    question = "blue runs on Standard_NC8as_T4_v3, green would on Standard_D4as_v4 (SKU). Replace"
    assert question in refused()
    assert "blue has 3 machines, green would have 1" in refused(SKU="Standard_NC8as_T4_v3")
    assert az.deployments == ["blue"]
    deployed(SKU="Standard_NC8as_T4_v3", INSTANCES="1")
    assert az.deployments == ["green"]
    deployed(YES="1")
    assert az.deployments == ["blue"]


# -- identities, secrets, networks ---------------------------------------------------------------


def test_an_endpoint_is_made_as_asked_and_kept_as_it_is(az: Az) -> None:
    identity = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity"
    identity += "/userAssignedIdentities/reader"
    secret = "https://vault.vault.azure.net/secrets/proxy/0123abcd"
    given = {"AUTH": "aad_token", "IDENTITY": identity, "PRIVATE": "1"}
    deployed(SECRETS=f"SCORE_PROXY={secret}", **given)
    endpoint = az.state["online-endpoint"][ENDPOINT]
    assert (endpoint["auth_mode"], endpoint["public_network_access"]) == ("aad_token", "disabled")
    assert endpoint["identity"]["user_assigned_identities"] == [{"resource_id": identity}]
    variables = az.state["online-deployment"][f"{ENDPOINT}/blue"]["environment_variables"]
    assert variables["SCORE_PROXY"] == f"${{{{keyvault:{secret}}}}}"
    deployed(**given)
    assert "has the auth mode aad_token. To change it:" in refused(AUTH="key")
    assert "has another identity" in refused(IDENTITY=identity + "2")
    az.there(online_endpoint={ENDPOINT: endpoint | {"public_network_access": "enabled"}})
    assert "is open to the public network" in refused(PRIVATE="1")


# -- taking it down ------------------------------------------------------------------------------


def test_clean_takes_down_what_was_made(az: Az) -> None:
    az.serving("blue", "green")
    deployed("clean")
    assert (az.state["online-endpoint"], az.state["online-deployment"]) == ({}, {})
    assert f"there is no online endpoint {ENDPOINT}" in refused("clean")


def test_clean_leaves_what_others_made(az: Az) -> None:
    az.serving("blue")
    az.other("nocode", 100)
    said = deployed("clean")
    assert (az.deployments, az.traffic) == (["nocode"], {"nocode": 100})
    assert f"{ENDPOINT} stays, with nocode" in said


def test_clean_asks_before_requests_go_elsewhere(az: Az) -> None:
    az.serving("blue")
    az.other("nocode")
    assert "Without that it answers none. Delete? Nobody is here to ask" in refused("clean")
    endpoint = az.state["online-endpoint"][ENDPOINT]
    az.there(online_endpoint={ENDPOINT: endpoint | {"traffic": {"blue": 40, "nocode": 60}}})
    assert "Shall nocode get all of it? Nobody is here to ask" in refused("clean")
    assert az.deployments == ["blue", "nocode"]
    deployed("clean", "--yes")
    assert (az.deployments, az.traffic) == (["nocode"], {"nocode": 100})


def test_everything_goes_only_after_a_question(az: Az) -> None:
    az.serving("blue")
    az.other("nocode")
    assert f"Delete {ENDPOINT} with all on it (blue nocode)" in refused("clean", "all")
    assert az.deployments == ["blue", "nocode"]
    deployed("clean", "all", YES="1")
    assert az.state["online-endpoint"] == {}


def test_an_endpoint_of_others_stays(az: Az) -> None:
    az.serving("blue")
    az.there(online_endpoint={ENDPOINT: az.state["online-endpoint"][ENDPOINT] | {"tags": {}}})
    assert "answers none" in refused("clean")
    deployed("clean", "--yes")
    assert list(az.state["online-endpoint"]) == [ENDPOINT]
    assert az.deployments == []
