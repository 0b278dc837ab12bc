"""Deployments that `score serve` answers: their YAML, and how Azure's limits fit the server's."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from azure.ai.ml import load_environment, load_online_deployment

from score.__main__ import main
from score.checkpoints.catalog import CATALOG
from score.deploy import server_limits
from score.deploy.check import findings
from score.deploy.plan import LONGEST_REQUEST_SECONDS, Plan, plan
from score.deploy.render import render
from score.deploy.server_choice import LIVE, READY, SCORING
from score.deploy.skus import skus
from score.dialects import table
from score.settings import Settings
from tests.support.azure_workspace import parse_once
from tests.support.surfaces import ROOT

ONLINE, ENVIRONMENT = ROOT / "components/online", ROOT / "environment"
DEVICES = ("cpu", "gpu")


def render_online(*more: str) -> int:
    return main(["azure", "render", "online", "--sku", "Standard_D4as_v4", *more])


# -- limits ------------------------------------------------------------------------------------


def plans() -> Iterator[Plan]:
    """Of a small, a large and a slow model on all sizes where they fit."""
    for name in ("openai-vit-b-32", "laion-vit-bigg-14", "openai-vit-l-14"):
        for sku in skus().values():
            one = plan(sku, name, CATALOG[name].architecture)
            if one.fits_online:
                yield one


@pytest.mark.slow
def test_azures_limits_fit_the_servers_on_every_size() -> None:
    sizes = set()
    for one in plans():
        sizes.add(one.sku.name)
        content = yaml.safe_load(render(one, "online", command="", server=True))
        requests, variables = content["request_settings"], content["environment_variables"]
        settings = Settings.from_env(variables)
        seconds, concurrency = (
            requests["request_timeout_ms"] / 1000,
            requests["max_concurrent_requests_per_instance"],
        )
        # The server gives up first, and has the time for downloads.
        assert seconds <= LONGEST_REQUEST_SECONDS
        assert settings.request_deadline < settings.request_timeout < seconds
        assert settings.max_wait < settings.request_timeout
        # One process takes on all that Azure sends, images included, and probes beside.
        assert concurrency <= server_limits.most_with_images(settings.max_pending_requests)
        assert concurrency < settings.max_connections
        assert concurrency <= settings.max_pending_rows
        # It fills more than one forward pass of each process.
        assert int(variables["WORKER_COUNT"]) == one.workers
        assert concurrency > settings.batch_size * one.workers
        # It ends in order before it is killed.
        stop = settings.shutdown_delay + settings.shutdown_timeout
        assert stop < server_limits.GRACE_SECONDS
        assert content["readiness_probe"]["timeout"] > 1  # the server answers within a second
        probe = content["liveness_probe"]
        assert probe["timeout"] * probe["failure_threshold"] >= 60
    assert len(sizes) > 30


def test_the_most_with_images_is_what_the_server_admits() -> None:
    """As `score.core.admission`: one is refused where requests ≤ those with images + a quarter."""
    for pending in range(4, 2000):
        under_way = server_limits.most_with_images(pending) - 1
        assert not pending <= under_way + pending // 4
        assert pending <= under_way + 1 + pending // 4


def test_a_larger_machine_is_sent_more_requests() -> None:
    small, large = (
        plan(skus()[name], "m", CATALOG["openai-vit-b-32"].architecture)
        for name in ("Standard_D4as_v4", "Standard_ND96asr_v4")
    )
    assert server_limits.limits(small).concurrency == 2 * 32
    assert server_limits.limits(large).concurrency == 2 * 128 * 8
    slow = dataclasses.replace(small, rate=dataclasses.replace(small.rate, images=0.5))
    assert server_limits.limits(slow).request_timeout_ms == 1000 * LONGEST_REQUEST_SECONDS


# -- YAML --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_azures_loader_takes_the_deployment_and_its_environment(device: str) -> None:
    deployment = load_online_deployment(ONLINE / f"deployment-{device}-server.yml")
    assert deployment.environment_variables["CLIP_SERVER"] == "score"
    assert deployment.code_configuration is None
    environment = load_environment(ENVIRONMENT / f"{device}-server.yml")
    assert deployment.environment == f"{environment.name}@latest"
    routes = environment.inference_config
    assert {name: route["path"] for name, route in routes.items()} == {
        "livenessRoute": LIVE,
        "readinessRoute": READY,
        "scoringRoute": SCORING,
    }
    assert {route["port"] for route in routes.values()} == {5001}
    assert SCORING in {route.path for route in table.ROUTES}


@pytest.mark.parametrize("device", DEVICES)
def test_both_servers_have_one_image(device: str) -> None:
    one, other = (
        yaml.safe_load((ENVIRONMENT / f"{name}.yml").read_text())
        for name in (device, f"{device}-server")
    )
    assert one["build"] == other["build"]


@pytest.mark.parametrize(
    ("flags", "ours", "why"),
    [
        ("", True, ""),
        ("--server", True, ""),
        ("--no-server", False, ""),
        ("--code ../..", False, "as --code names the folder of an entry script"),
        ("--code ../.. --no-server", False, ""),
        ("--environment clip-cpu", False, "as the environment is not one of `score serve`"),
        ("--environment clip-cpu-server", True, ""),
        ("--server --environment clip-cpu", True, ""),
    ],
)
def test_ours_is_the_default_where_it_applies(
    flags: str, ours: bool, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render_online(*flags.split()) == 0
    text = capsys.readouterr().out
    assert ("CLIP_SERVER: score" in text) is ours
    comments = [line for line in text.splitlines() if "inference server answers, as" in line]
    assert bool(comments) is bool(why)
    assert all(why in line and line.startswith("# ") for line in comments)
    yaml.safe_load(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["batch"], "--server has no meaning for render batch: only a real-time deployment"),
        (["cluster"], "--server has no meaning for render cluster"),
        (["endpoint"], "--server has no meaning for render endpoint"),
        (["online", "--code", "."], "--code has no meaning with --server"),
        (["online", "--environment", "azureml:clip-gpu-server@latest"], "no GPU, and azureml:cli"),
    ],
)
def test_a_kind_without_a_server_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, *more = arguments
    size = [] if kind == "endpoint" else ["--sku", "Standard_D4as_v4"]
    assert main(["azure", "render", kind, "--server", *size, *more]) == 2
    assert said in capsys.readouterr().err


def test_a_plan_says_what_the_server_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["azure", "plan", "--sku", "Standard_NC4as_T4_v3"]) == 0
    line = "  --server    256 requests at a time, 100 s a request, by `score serve`"
    assert line in capsys.readouterr().out.splitlines()
    assert main(["azure", "plan", "--sku", "Standard_D4ads_v5"]) == 0  # for clusters alone
    assert "--server" not in capsys.readouterr().out


# -- check -------------------------------------------------------------------------------------

CPU = "components/online/deployment-cpu-server.yml"
MISTAKES = [
    (CPU, "CLIP_SERVER: score", "CLIP_SERVER: skore", "must be one of azure, score, not 'skore'"),
    (CPU, 'TIMEOUT: "95"', 'TIMEOUT: "101"', "101 s for a request, and request_settings"),
    (CPU, 'TIMEOUT: "95"', 'TIMEOUT: "0"', "no limit for a request, and request_settings"),
    (CPU, "timeout_ms: 100000", "timeout_ms: 90000", "ends it after 90 s: the server must give up"),
    (CPU, 'TIMEOUT: "95"', 'DEADLINE: "120"', "REQUEST_DEADLINE: 120 s for a request's downloads"),
    (CPU, "instance: 64", "instance: 193", "PENDING_REQUESTS: 256 lets 192 with images in"),
    (CPU, 'CONNECTIONS: "512"', 'CONNECTIONS: "64"', "leaves none for probes"),
    (CPU, "  SCORE_DEVICE", "  SCORE_PRECISION: fp8\n  SCORE_DEVICE", "'fp8'"),
    (CPU, "clip-cpu-server@", "clip-cpu@", "its readiness_route is /, and that of `score serve`"),
    (CPU, "clip-cpu-server@", "clip-gpu-server@", "built for CUDA"),
    (CPU, "environment: azureml:clip-cpu-server@latest", "", "environment: is missing"),
    (
        CPU,
        "app_insights",
        "code_configuration: {code: ../.., scoring_script: score/online.py}\napp_insights",
        "code_configuration: CLIP_SERVER: score runs the code of the model's folder",
    ),
    (
        CPU,
        "app_insights",
        "data_collector: {collections: {model_inputs: {enabled: 'True'}}}\napp_insights",
        "collections.model_inputs: `score serve` tells the collector nothing",
    ),
    (CPU, "azureml:clip@latest", "{path: ../../samples}", "samples has no folder score/"),
    (
        "components/online/deployment-cpu.yml",
        "clip-cpu@",
        "clip-cpu-server@",
        "liveness_route is /health/live, which Azure's inference server does not have",
    ),
    ("environment/cpu-server.yml", "path: /health/ready", "path: health", "begin with a slash"),
]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the YAML refers to, to be changed."""
    parse_once(monkeypatch)
    for folder in ("components", "environment", "score/deploy"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copyfile(ROOT / "score/online.py", tmp_path / "score/online.py")
    for file in ("MLmodel", "conda.yaml"):
        shutil.copyfile(ROOT / file, tmp_path / file)
    (tmp_path / "samples").mkdir()
    return tmp_path


@pytest.mark.parametrize(("file", "right", "wrong", "said"), MISTAKES)
def test_a_mistake_is_seen(clone: Path, file: str, right: str, wrong: str, said: str) -> None:
    text = (clone / file).read_text(encoding="utf-8")
    assert right in text
    (clone / file).write_text(text.replace(right, wrong), encoding="utf-8")
    found = findings([clone / file], [clone / "components", clone / "environment"])
    assert any(said in sentence for sentence in found.problems + found.notes), found


def test_azures_own_collections_are_accepted(clone: Path) -> None:
    text = (clone / CPU).read_text(encoding="utf-8")
    collector = "data_collector: {collections: {request: {enabled: 'True'}}}\n"
    (clone / CPU).write_text(text + collector, encoding="utf-8")
    found = findings([clone / CPU], [clone / "components", clone / "environment"])
    assert found.problems == []


def test_an_environment_without_the_servers_routes_is_told(clone: Path) -> None:
    file = clone / "environment/cpu-server.yml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.partition("inference_config")[0], encoding="utf-8")
    found = findings([clone / CPU], [clone / "components", clone / "environment"])
    assert len([line for line in found.problems if "its inference_config has no" in line]) == 3
