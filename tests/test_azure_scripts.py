"""The deploy scripts against a stand-in for `az ml`, which keeps what they make."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from score import shards
from score.deploy.registered import PROPERTY, described
from score.embedder import Embedder
from score.jobs import checkpoint
from score.jobs.catalog import CATALOG
from tests.surfaces import BIN, ROOT

SCRIPTS = ROOT / "samples/azure"
ENDPOINT = "mine"
GPU, OTHER = "Standard_NC4as_T4_v3", "Standard_D8as_v4"


class Az:
    """The stand-in: what it was asked, and what there is."""

    def __init__(self, folder: Path) -> None:
        self.log, self.file = folder / "az.log", folder / "az.json"

    @property
    def asked(self) -> list[list[str]]:
        """The words of each call but those that look whether something is there."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        calls = [shlex.split(line)[1:] for line in lines]
        return [call for call in calls if call[1] not in ("show", "list")]

    @property
    def verbs(self) -> list[str]:
        return [" ".join(call[:2]) for call in self.asked]

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found

    def there(self, **families: Any) -> None:
        """Puts things into the workspace."""
        known = self.state if self.file.exists() else {}
        for family, things in families.items():
            known.setdefault(family.replace("_", "-"), {}).update(things)
        self.file.write_text(json.dumps(known))

    @property
    def deployments(self) -> list[str]:
        return sorted(key.rpartition("/")[2] for key in self.state["online-deployment"])

    @property
    def traffic(self) -> dict[str, int]:
        traffic = self.state["online-endpoint"][ENDPOINT]["traffic"]
        return {name: percent for name, percent in traffic.items() if percent}

    def serving(self, *names: str) -> None:
        """The endpoint as the script leaves it; the first deployment has all the traffic."""
        tags = {"made_by": "clip-endpoints"}
        endpoint = {"name": ENDPOINT, "tags": tags, "auth_mode": "key", "mirror_traffic": {}}
        endpoint |= {"public_network_access": "enabled", "traffic": {names[0]: 100}}
        self.there(online_endpoint={ENDPOINT: endpoint | {"scoring_uri": "https://mine.example"}})
        for name in names:
            deployment = {"name": name, "tags": tags | {"dimension": "512"}}
            self.there(online_deployment={f"{ENDPOINT}/{name}": deployment})

    def other(self, name: str, percent: int = 0, kind: str = "online") -> None:
        """A deployment that somebody else made."""
        self.there(**{f"{kind}_deployment": {f"{ENDPOINT}/{name}": {"name": name, "tags": {}}}})
        endpoint = self.state[f"{kind}-endpoint"][ENDPOINT]
        traffic = {} if percent == 100 else endpoint["traffic"]
        endpoint["traffic"] = traffic | ({name: percent} if percent else {})
        self.there(**{f"{kind}_endpoint": {ENDPOINT: endpoint}})


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Az:
    (tmp_path / "bin").mkdir()
    run = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {ROOT}/tests/azure_cli.py "$@"\n'
    (tmp_path / "bin/az").write_text(run)
    (tmp_path / "bin/az").chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "bin"), str(BIN), os.environ["PATH"]])
    made = Az(tmp_path)
    given = {"PATH": path, "AZ_LOG": str(made.log), "AZ_STATE": str(made.file), "AZ_FAILS": ""}
    given |= {"AZ_AFTER": "1", "AZ_DIMENSION": "512", "ENDPOINT": ENDPOINT, "WAIT": "0"}
    given |= {"STEPS": "100", "MIRROR": "0"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name in ("MODEL", "SKU", "INSTANCES", "TIER", "KEEP", "YES", "AUTH", "REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def out() -> Iterator[Path]:
    yield ROOT / "out/azure/job-1"
    shutil.rmtree(ROOT / "out/azure/job-1", ignore_errors=True)


def script(name: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> Any:
    command = [str(SCRIPTS / name), *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def online(*arguments: str, **variables: str) -> Any:
    return script("deploy-online.sh", *arguments, **variables)


def deployed(*arguments: str, **variables: str) -> str:
    done = online(*arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def refused(*arguments: str, **variables: str) -> str:
    done = online(*arguments, **variables)
    assert done.returncode != 0, done.stdout
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


def test_an_endpoint_has_a_name_of_its_own(az: Az, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENDPOINT")
    deployed()
    (name,) = az.state["online-endpoint"]
    assert name.startswith("clip-")
    assert name.removeprefix("clip-").isdecimal()


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


def test_what_does_not_fit_is_not_registered(az: Az, tmp_path: Path) -> None:
    huge = checkpoint.write(tmp_path / "huge", replace(checkpoint.TINY, dimension=8))
    config = json.loads((huge / "config.json").read_text())
    config["vision_config"].update(hidden_size=9600, intermediate_size=90000, num_hidden_layers=90)
    (huge / "config.json").write_text(json.dumps(config))
    assert "fits no size" in refused(MODEL=str(huge)) or "MLmodel" in refused(MODEL=str(huge))
    assert az.asked == []


# -- the model's own settings --------------------------------------------------------------------


def registered(az: Az, name: str | None, registry: str = "") -> None:
    """A model `clip` in the workspace or a registry, which says what it is, or does not."""
    properties = {PROPERTY: described(CATALOG[name].made)} if name else {}
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
    package = tmp_path / "package"
    (package / "model").mkdir(parents=True)
    monkeypatch.setenv("AZ_MODEL", str(package))
    assert "holds no MLmodel" in refused()
    assert az.verbs == ["model download"]
    shutil.copy(ROOT / "MLmodel", package)
    config = CATALOG["openai-vit-l-14"].made.config()
    shutil.copytree(ROOT / "model", package / "model", dirs_exist_ok=True)
    (package / "model/config.json").write_text(json.dumps(config))
    monkeypatch.setenv("AZ_DIMENSION", "768")
    deployed("gpu")
    blue = az.state["online-deployment"][f"{ENDPOINT}/blue"]
    assert (blue["model"], blue["tags"]["dimension"]) == ("azureml:clip:1", "768")


def test_a_package_of_ones_own_is_registered(az: Az) -> None:
    deployed(MODEL=".")
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


def test_a_second_deployment_takes_over_by_and_by(az: Az) -> None:
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
    said = refused("gpu", MIRROR="10", STEPS="10 50 100")
    assert az.traffic == {"blue": 100}
    assert not any(az.state["online-endpoint"][ENDPOINT]["mirror_traffic"].values())
    assert az.deployments == ["blue"]
    if "create" not in fails:
        assert "green failed: everything is put back" in said
        assert "the log of inference-server" in said
        assert "the log of storage-initializer" in said


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
    assert "green is kept with no traffic, to be looked at" in said
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
    assert "there is no online endpoint mine" in refused("clean")


def test_clean_leaves_what_others_made(az: Az) -> None:
    az.serving("blue")
    az.other("nocode", 100)
    said = deployed("clean")
    assert (az.deployments, az.traffic) == (["nocode"], {"nocode": 100})
    assert "mine stays, with nocode" in said


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
    assert "Delete mine with all on it (blue nocode)" in refused("clean", "all")
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


# -- batch ---------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path, embedder: Embedder, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table, and the results of a job over it."""
    (tmp_path / "urls.csv").write_text("id,text\n1,a cat\n2,\n")
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setenv("AZ_RESULTS", str(results))
    monkeypatch.setattr(shards, "_embedder", embedder, raising=False)
    monkeypatch.setattr(shards, "_output", results, raising=False)
    (tmp_path / "urls-000000.csv").write_bytes(b"id,text\r\n1,a cat\r\n2,\r\n")
    shards.run([str(tmp_path / "urls-000000.csv")])
    return tmp_path / "urls.csv"


def batch(*arguments: str, **variables: str) -> Any:
    shutil.rmtree(ROOT / "out/azure/job-1", ignore_errors=True)
    return script("deploy-batch.sh", *arguments, **variables)


def test_batch_gets_its_rows_back(az: Az, out: Path, table: Path) -> None:
    done = script("deploy-batch.sh", "urls.csv", cwd=table.parent)
    assert done.returncode == 0, done.stderr
    assert "1 shards, 2 rows: 1 good, 1 failed (empty_row 1)" in done.stdout
    assert json.loads((out / "report.json").read_text())["complete"] is True
    assert (out / "vectors.parquet").is_file()
    created = ["model create", "compute create", "environment create", "batch-endpoint create"]
    used = ["batch-deployment create", "batch-endpoint update", "batch-endpoint invoke"]
    assert az.verbs == [*created, *used, "job stream", "job download"]
    (invoke,) = [call for call in az.asked if call[1] == "invoke"]
    assert not Path(invoke[invoke.index("--input") + 1]).exists()  # the shards are put away
    assert az.state["batch-endpoint"][ENDPOINT]["defaults"] == {"deployment_name": "cpu"}


def test_each_size_and_tier_has_its_cluster_and_keeps_its_limits(az: Az, table: Path) -> None:
    assert batch(str(table), SKU=OTHER).returncode == 0
    deployment = az.state["batch-deployment"][f"{ENDPOINT}/cpu"]
    assert deployment["compute"] == "azureml:clip-d8as-v4"
    assert az.state["compute"]["clip-d8as-v4"]["size"] == OTHER
    limited = az.state["compute"]["clip-d8as-v4"] | {"max_instances": 2}
    az.there(compute={"clip-d8as-v4": limited})
    assert batch(str(table), SKU=OTHER, INSTANCES="2").returncode == 0
    assert az.state["compute"] == {"clip-d8as-v4": limited}
    assert az.state["batch-deployment"][f"{ENDPOINT}/cpu"]["resources"] == {"instance_count": 2}
    done = batch(str(table), SKU=OTHER, INSTANCES="3")
    assert "clip-d8as-v4 has 2 at most. To raise that: az ml compute update" in done.stderr
    assert batch(str(table), SKU=GPU, TIER="low_priority", INSTANCES="6").returncode == 0
    deployment = az.state["batch-deployment"][f"{ENDPOINT}/gpu"]
    assert deployment["compute"] == "azureml:clip-nc4as-t4-v3-low"
    assert deployment["environment"] == "azureml:clip-gpu-batch:1"
    cluster = az.state["compute"]["clip-nc4as-t4-v3-low"]
    assert (cluster["tier"], cluster["max_instances"]) == ("low_priority", "6")


def test_batch_leaves_what_others_made(az: Az, table: Path) -> None:
    assert batch(str(table)).returncode == 0
    az.other("nocode", kind="batch")
    defaults = {"defaults": {"deployment_name": "nocode"}}
    endpoint = az.state["batch-endpoint"][ENDPOINT]
    az.there(batch_endpoint={ENDPOINT: endpoint | defaults})
    assert batch(str(table)).returncode == 0
    assert az.state["batch-endpoint"][ENDPOINT]["defaults"] == {"deployment_name": "nocode"}
    assert batch("clean").returncode == 0
    assert list(az.state["batch-deployment"]) == [f"{ENDPOINT}/nocode"]
    az.other("cpu", kind="batch")
    assert "that this script did not make" in batch(str(table)).stderr


def test_clean_asks_before_batch_jobs_go_elsewhere(az: Az, table: Path) -> None:
    assert batch(str(table)).returncode == 0
    az.other("nocode", kind="batch")
    done = batch("clean")
    assert "Shall nocode take its place? Nobody is here to ask" in done.stderr
    assert batch("clean", "--yes").returncode == 0
    assert az.state["batch-endpoint"][ENDPOINT]["defaults"] == {"deployment_name": "nocode"}
    assert list(az.state["batch-deployment"]) == [f"{ENDPOINT}/nocode"]
    assert batch("clean", "all", YES="1").returncode == 0
    assert az.state["batch-endpoint"] == {}
    assert az.state["compute"] != {}


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {}, "a CSV with an image or a text column"),
        (["gone.csv"], {}, "gone.csv"),
        (["samples/urls.csv", "tpu"], {}, "cpu or gpu, not tpu"),
        (["samples/urls.csv", "cpu"], {"SKU": GPU}, "has a GPU, and cpu was asked for"),
        (["samples/urls.csv"], {"TIER": "spot"}, "dedicated or low_priority"),
        (["samples/urls.csv"], {"INSTANCES": "all"}, "INSTANCES=all"),
        (["samples/urls.csv"], {"SECRETS": "A=b"}, "real-time deployments alone"),
    ],
)
def test_what_is_wrong_with_batch_is_said_before_anything_is_asked(
    az: Az, arguments: list[str], variables: dict[str, str], said: str
) -> None:
    done = script("deploy-batch.sh", *arguments, **variables)
    assert done.returncode != 0
    assert said in done.stderr
    assert az.asked == []
