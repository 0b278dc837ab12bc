"""Plans: which settings a model gets on a size, whether it fits, and how long a job takes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
import yaml
from azure.ai.ml import load_online_deployment
from azure.ai.ml.entities._load_functions import load_model_batch_deployment
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from score.__main__ import main
from score.checkpoints.architectures import ARCHITECTURES, SIGLIP_ARCHITECTURES
from score.checkpoints.catalog import CATALOG
from score.deploy.plan import CAPABILITIES, GPU_TFLOPS, Plan, image_flops, plan
from score.deploy.plan_text import as_text
from score.deploy.render import render
from score.deploy.skus import lookup, skus
from score.errors import AzureError
from score.folder.architecture import Architecture
from score.hardware import drivers
from tests.support.surfaces import ROOT

B32 = ARCHITECTURES["ViT-B-32-quickgelu"]
# The sizes that Azure's catalog allows its CLIP on: `inference_compute_allow_list`.
ALLOWED = [
    "Standard_DS2_v2",
    "Standard_D2a_v4",
    "Standard_D2as_v4",
    "Standard_DS3_v2",
    "Standard_D4a_v4",
    "Standard_D4as_v4",
    "Standard_DS4_v2",
    "Standard_D8a_v4",
    "Standard_D8as_v4",
    "Standard_DS5_v2",
    "Standard_D16a_v4",
    "Standard_D16as_v4",
    "Standard_D32a_v4",
    "Standard_D32as_v4",
    "Standard_D48a_v4",
    "Standard_D48as_v4",
    "Standard_D64a_v4",
    "Standard_D64as_v4",
    "Standard_D96a_v4",
    "Standard_D96as_v4",
    "Standard_F4s_v2",
    "Standard_FX4mds",
    "Standard_F8s_v2",
    "Standard_FX12mds",
    "Standard_F16s_v2",
    "Standard_F32s_v2",
    "Standard_F48s_v2",
    "Standard_F64s_v2",
    "Standard_F72s_v2",
    "Standard_FX24mds",
    "Standard_FX36mds",
    "Standard_FX48mds",
    "Standard_E2s_v3",
    "Standard_E4s_v3",
    "Standard_E8s_v3",
    "Standard_E16s_v3",
    "Standard_E32s_v3",
    "Standard_E48s_v3",
    "Standard_E64s_v3",
    "Standard_NC4as_T4_v3",
    "Standard_NC6s_v3",
    "Standard_NC8as_T4_v3",
    "Standard_NC12s_v3",
    "Standard_NC16as_T4_v3",
    "Standard_NC24s_v3",
    "Standard_NC64as_T4_v3",
    "Standard_NC24ads_A100_v4",
    "Standard_NC48ads_A100_v4",
    "Standard_NC96ads_A100_v4",
    "Standard_ND96asr_v4",
    "Standard_ND96amsr_A100_v4",
    "Standard_ND40rs_v2",
]


def planned(size: str, model: str = "openai-vit-b-32") -> Plan:
    return plan(lookup(size), model, CATALOG[model].architecture)


# -- the table ---------------------------------------------------------------------------------


def test_the_table_has_all_sizes_that_azure_allows() -> None:
    assert list(skus())[:52] == ALLOWED
    assert [sku.name for sku in skus().values() if sku.allowed] == ALLOWED
    assert len(ALLOWED) == 52


def test_the_table_has_the_gpus_and_small_sizes_that_azure_offers_beside() -> None:
    further = [sku for sku in skus().values() if not sku.allowed]
    gpus = {sku.gpu for sku in further}
    assert {"NVIDIA A10", "NVIDIA H100", "NVIDIA H100 NVL"} <= gpus
    small = [sku for sku in further if not sku.gpu and sku.vcpus <= 8 and not sku.retires]
    assert len(small) >= 6
    assert lookup("standard_nv6ads_a10_v5").gpu_shared_by == 6
    assert lookup("Standard_ND96isr_H100_v5").gpus == 8


def test_every_number_has_a_source() -> None:
    table = yaml.safe_load((ROOT / "score/deploy/skus.yml").read_text(encoding="utf-8"))
    for entry in table["skus"] + table["further"]:
        assert entry["source"] in {*table["sources"], "derived"}
        assert entry["family"].lower().startswith("standard")


@pytest.mark.parametrize(
    ("size", "instances", "online", "batch"),
    [
        ("Standard_DS3_v2", 10, 48, 40),  # the example of Azure's page on quota
        ("Standard_DS3_v2", 1, 8, 4),  # one needs two
        ("Standard_DS3_v2", 5, 24, 20),
        ("Standard_DS3_v2", 6, 32, 24),
        ("Standard_NC4as_T4_v3", 1, 8, 4),
        ("Standard_NC24ads_A100_v4", 1, 24, 24),  # exempt
        ("Standard_NC40ads_H100_v5", 3, 120, 120),
        ("Standard_NV36ads_A10_v5", 1, 72, 36),
    ],
)
def test_quota_is_counted_with_azures_reserve(
    size: str, instances: int, online: int, batch: int
) -> None:
    sku = lookup(size)
    assert sku.online_quota(instances) == online
    assert sku.batch_quota(instances) == batch
    text = as_text(planned(size), instances=instances)
    assert f"{sku.family} for {instances} machine" in text
    assert f"{batch} for batch, {online} for real-time" in text
    assert ("reserve" in text) == sku.reserved


def test_the_smallest_size_is_the_minimum_of_azures_card() -> None:
    assert lookup("standard_ds2_V2").specification == "2|0|7|14"


def test_every_size_is_whole() -> None:
    for sku in skus().values():
        assert min(sku.vcpus, sku.memory_gib, sku.temp_disk_gib) > 0
        assert bool(sku.gpu) == bool(sku.gpus) == bool(sku.gpu_memory_gib)
        assert (sku.status == "available") == (sku.retires is None)
    assert lookup("Standard_F4s_v2").avx512
    assert not lookup("Standard_DS2_v2").avx512


def test_an_unknown_size_is_refused_with_the_nearest() -> None:
    said = (
        r"no size 'Standard_DS2_v3' among the \d+ that `score azure plan` lists; .*Standard_\w+\?"
    )
    with pytest.raises(AzureError, match=said):
        lookup("Standard_DS2_v3")


# -- plans -------------------------------------------------------------------------------------


def test_the_arithmetic_of_an_image_is_what_torch_counts() -> None:
    small = dataclasses.replace(
        B32,
        dimension=24,
        vision=dataclasses.replace(
            B32.vision,
            image=48,
            patch=8,
            tower=dataclasses.replace(B32.vision.tower, width=64, layers=3, heads=4, hidden=96),
        ),
    )
    config = CLIPConfig.from_dict(small.config(), attn_implementation="eager")
    model = CLIPModel(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.get_image_features(torch.zeros(1, 3, 48, 48))
    assert image_flops(small) == counter.get_total_flops()
    assert image_flops(B32) == pytest.approx(8.8e9, rel=0.02)


def test_the_arithmetic_of_a_siglips_image_is_what_torch_counts() -> None:
    whole = SIGLIP_ARCHITECTURES["ViT-B-16-SigLIP-224"]
    tower = dataclasses.replace(whole.vision.tower, width=64, layers=3, heads=4, hidden=96)
    vision = dataclasses.replace(whole.vision, image=48, patch=8, tower=tower)
    text = dataclasses.replace(whole.text, tower=tower, vocabulary=100)
    small = dataclasses.replace(whole, dimension=64, vision=vision, text=text)
    config = SiglipConfig(**small.config(), attn_implementation="eager")
    model = SiglipModel(config).train()  # PyTorch counts nothing of its fast attention
    with FlopCounterMode(display=False) as counter:
        model.get_image_features(torch.zeros(1, 3, 48, 48))
    assert image_flops(small) == pytest.approx(counter.get_total_flops(), rel=0.001)


def test_every_model_on_every_size_fits_or_says_why_not() -> None:
    for name in CATALOG:
        for size in skus():
            one = planned(size, name)
            assert one.fits or one.obstacles
            assert one.fits_online or one.obstacles or one.online_obstacles
            assert one.workers >= 1
            assert 90_000 <= one.request_timeout_ms <= 180_000
            if one.fits:
                assert one.memory <= one.sku.memory_gib
                assert one.gpu_memory <= one.sku.gpu_memory_gib
            text = as_text(one, 1e6)
            assert ("does NOT fit" in text) == (not one.fits_online)


@pytest.mark.parametrize(
    ("size", "model", "reason"),
    [
        ("Standard_DS2_v2", "metaclip-h-14", "batch +does NOT fit.* images/s there: too slow"),
        ("Standard_F8s_v2", "metaclip-h-14", "images/s there: too slow"),
        ("Standard_NV6ads_A10_v5", "laion-vit-bigg-14", r"5\.\d GiB of a GPU's memory, .* has 4"),
        (
            "Standard_D4ads_v5",
            "openai-vit-b-32",
            "real-time +does NOT fit.*managed online endpoint",
        ),
        ("Standard_DS2_v2", "laion-vit-bigg-14", r"needs 11\.\d GiB of memory, the size has 7"),
        ("Standard_D2a_v4", "laion-vit-bigg-14", "GiB of memory, the size has 8"),
        ("Standard_F4s_v2", "metaclip-2-giant", "GiB of memory, the size has 8"),
        ("Standard_NC6s_v3", "openai-vit-b-32", "Azure retired the size on 2025-09-30"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(size: str, model: str, reason: str) -> None:
    text = as_text(planned(size, model))
    assert "does NOT fit" in text
    assert re.search(reason, text, re.DOTALL), text


def test_a_plan_for_gpus_says_which_driver_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "driver      NVIDIA 525 or later" in as_text(planned("Standard_NC4as_T4_v3"))
    assert "driver" not in as_text(planned("Standard_D4as_v4"))
    assert planned("Standard_ND40rs_v2").fits_online  # V100: kernels from 5.0 on
    monkeypatch.setattr(drivers, "CUDA", "13.0")
    assert "driver      NVIDIA 580 or later" in as_text(planned("Standard_NC4as_T4_v3"))
    assert re.search("no kernels for NVIDIA V100 .*7.0", as_text(planned("Standard_ND40rs_v2")))


def test_every_gpu_has_its_speed_and_kernels() -> None:
    for sku in skus().values():
        if sku.gpu:
            assert GPU_TFLOPS[sku.gpu] > 0
            assert drivers.has_kernels(CAPABILITIES[sku.gpu])


def test_a_part_of_a_gpu_is_slower_by_as_much() -> None:
    whole, half = (
        planned(f"Standard_NV{size}ads_A10_v5", "laion-vit-bigg-14").rate for size in (36, 18)
    )
    assert whole.limit == half.limit == "encoding"
    assert whole.images == pytest.approx(2 * half.images)


def test_vit_b_32_fits_the_smallest_size() -> None:
    one = planned("Standard_DS2_v2")
    assert one.fits_online
    assert (one.workers, one.precision) == (1, "fp32")
    assert one.memory < 3


def test_the_batch_shrinks_before_a_model_is_refused() -> None:
    batches = [planned("Standard_NC4as_T4_v3", name).batch_size for name in CATALOG]
    assert batches[0] == 128
    small = dataclasses.replace(lookup("Standard_NC4as_T4_v3"), gpu_memory_gib=6)
    giant = CATALOG["laion-vit-bigg-14"].architecture
    assert plan(small, "m", giant).batch_size < 128


def test_each_gpu_has_a_worker() -> None:
    assert planned("Standard_NC96ads_A100_v4").workers == 4
    assert planned("Standard_ND96asr_v4").workers == 8
    assert planned("Standard_NC4as_T4_v3").precision == "fp16"


def test_hours_follow_from_the_rate_and_say_whose_it_is() -> None:
    sku, architecture = lookup("Standard_NC24ads_A100_v4"), CATALOG["openai-vit-b-32"].architecture
    stated = plan(sku, "m", architecture)
    measured = plan(sku, "m", architecture, measured=1000)
    assert measured.hours(100e6, 8) == pytest.approx(100e6 / 8000 / 3600)
    assert "(stated)" in as_text(stated, 1e6)
    assert "(measured)" in as_text(measured, 1e6)
    assert stated.rate.limit == "decoding"  # 24 vCPUs cannot feed an A100 with B/32
    big = plan(sku, "m", CATALOG["laion-vit-bigg-14"].architecture)
    assert big.rate.limit == "encoding"
    for rate in (0, -1, float("inf"), float("nan")):
        with pytest.raises(AzureError, match="positive number of images a second"):
            plan(sku, "m", architecture, measured=rate)


# -- YAML --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["online", "batch"])
@pytest.mark.parametrize("size", ["Standard_DS3_v2", "Standard_NC4as_T4_v3", "Standard_ND96asr_v4"])
def test_azures_own_loader_takes_what_is_rendered(kind: str, size: str, tmp_path: Path) -> None:
    one = planned(size)
    file = tmp_path / "deployment.yml"
    file.write_text(render(one, kind, command=kind, code=str(ROOT)), encoding="utf-8")
    if kind == "online":
        online = load_online_deployment(file)
        assert online.instance_type == size
        assert online.environment_variables["WORKER_COUNT"] == str(one.workers)
        assert online.request_settings.max_concurrent_requests_per_instance == one.workers
        assert online.request_settings.request_timeout_ms == one.request_timeout_ms
        assert online.liveness_probe.timeout >= one.request_timeout_ms / 1000
    else:
        batch = load_model_batch_deployment(file)
        assert batch.settings.max_concurrency_per_instance == one.workers
        assert batch.settings.retry_settings.timeout == one.mini_batch_seconds
    text = yaml.safe_load(file.read_text())
    assert (ROOT / text["code_configuration"]["scoring_script"]).is_file()


def test_what_does_not_fit_is_not_rendered() -> None:
    slow = plan(lookup("Standard_D64a_v4"), "m", B32, measured=1.0)  # four workers
    with pytest.raises(AzureError, match=r"does not fit Standard_D64a_v4: a request of 32"):
        render(slow, "online", command="")
    assert "score/shards.py" in render(slow, "batch", command="")
    with pytest.raises(AzureError, match="too slow"):
        render(planned("Standard_DS2_v2", "metaclip-h-14"), "batch", command="")


# -- the command line --------------------------------------------------------------------------


def azure(*arguments: str) -> int:
    return main(["azure", *arguments])


def test_the_command_plans(capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", "openai-vit-b-32"]
    flags = ["--rows", "100e6", "--instances", "8"]
    assert azure("plan", "--sku", "Standard_NC24ads_A100_v4", *model, *flags) == 0
    out = capsys.readouterr().out
    assert "100,000,000 images on 8 machines" in out
    assert azure("plan", "--sku", "Standard_NC6s_v3", *model) == 1
    # Every model on every size is planned above.
    assert azure("plan", "--sku", "all", *model) == 0
    assert capsys.readouterr().out.count(" vCPUs, ") == len(skus()) + 1
    assert azure("plan", "--sku", "Standard_NC24ads_A100_v4", "--model", "all") == 0
    assert capsys.readouterr().out.count(" vCPUs, ") == len(CATALOG)


def test_without_a_model_it_is_the_embedded_one(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--sku", "Standard_D4as_v4"]
    assert azure("plan", *size) == 0
    own = capsys.readouterr().out
    assert azure("plan", *size, "--model", str(ROOT / "model")) == 0
    named = capsys.readouterr().out
    assert own.replace("the embedded model", "model", 1) == named
    assert azure("render", "online", *size) == 0
    written = "# Written by: python -m score azure render online --sku Standard_D4as_v4"
    assert written in capsys.readouterr().out.splitlines()
    assert azure("render", "model", "--path", "../..") == 0


def test_what_fits_is_listed_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert azure("plan", "--model", "laion-vit-bigg-14") == 0
    verdicts = [
        line.split()[1:] for line in capsys.readouterr().out.splitlines() if "batch" in line
    ]
    fits = [words[0] == "fits" for words in verdicts if words and words[0] in ("fits", "does")]
    assert fits == sorted(fits, reverse=True)
    assert {*fits} == {True, False}


def test_the_command_plans_for_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert azure("plan", "--sku", "Standard_DS2_v2", "--model", str(ROOT / "model")) == 0
    assert capsys.readouterr().out.startswith("model on Standard_DS2_v2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sku", "Standard_X", "--model", "openai-vit-b-32"], "no size 'Standard_X'"),
        (["--sku", "Standard_DS2_v2", "--model", "nothing"], "'nothing' is neither a folder nor"),
    ],
)
def test_what_is_unknown_is_a_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert azure("plan", *arguments) == 2
    assert said in capsys.readouterr().err


def test_the_command_writes_a_deployment(tmp_path: Path) -> None:
    output = tmp_path / "d.yml"
    arguments = ["--sku", "Standard_DS3_v2", "--model", "openai-vit-b-32", "--output", str(output)]
    assert azure("render", "online", *arguments) == 0
    assert yaml.safe_load(output.read_text())["instance_type"] == "Standard_DS3_v2"


def test_a_model_may_be_made_by_hand() -> None:
    architecture = Architecture.from_config({"model_type": "clip"})
    assert plan(lookup("Standard_DS2_v2"), "m", architecture).fits_online


WRITTEN = sorted(
    file
    for file in (ROOT / "components").rglob("*.yml")
    if "# Written by: python -m score" in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_what_is_checked_in_is_what_its_command_writes(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = file.read_text(encoding="utf-8")
    (command,) = re.findall(r"^# Written by: python -m score (.*)$", text, re.MULTILINE)
    assert main(command.split()) == 0
    assert capsys.readouterr().out == text


def test_those_are_the_deployments_their_endpoint_and_the_model() -> None:
    assert len(WRITTEN) == 8


def test_a_models_card_is_as_azures_catalog_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "openai-vit-b-32", "--path", "dist/clip"]
    assert azure("render", "model", *arguments) == 0
    card = yaml.safe_load(capsys.readouterr().out)
    assert card["tags"]["huggingface_model_id"] == "openai/clip-vit-base-patch32"
    assert card["tags"]["author"] == "OpenAI"
    assert card["tags"]["task"] == "embeddings"
    assert card["tags"]["license"] == "MIT"
    assert card["tags"]["SharedComputeCapacityEnabled"] == ""
    assert card["properties"]["inference-min-sku-spec"] == "2|0|7|14"
    # As Azure's own, but for what Azure has retired since.
    gone = [name for name in ALLOWED if lookup(name).status == "retired"]
    assert len(gone) == 3
    wanted = [name for name in ALLOWED if name not in gone]
    assert card["tags"]["inference_compute_allow_list"] == str(wanted)
    assert card["properties"]["inference-recommended-sku"] == ", ".join(wanted)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["online"], "for one size: --sku"),
        (["online", "--sku", "Standard_DS3_v2", "--path", "x"], "--path has no meaning for"),
        (["model", "--path", "x", "--instances", "2"], "--instances has no meaning for"),
        (["model"], "--path"),
        (["batch", "--sku", "Standard_DS3_v2", "--name", "my deployment"], "no name for Azure"),
        (["batch", "--sku", "Standard_DS3_v2", "--name", "my_deployment"], "single dashes"),
        (["batch", "--sku", "Standard_DS3_v2", "--cluster", "cpu-cluster-1"], "last dash"),
    ],
)
def test_render_refuses_what_it_would_pass_over(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert azure("render", *arguments, "--model", "openai-vit-b-32") == 2
    assert said in capsys.readouterr().err


def test_choices_are_in_what_is_rendered(capsys: pytest.CaptureFixture[str]) -> None:
    sku = ["--sku", "Standard_ND96asr_v4", "--model", "laion-vit-bigg-14"]
    long = "bigg" * 20
    choices = ["--name", "big", "--registered", long, "--instances", "3", "--code", "a b"]
    assert azure("render", "batch", *sku, *choices, "--cluster", "a100s") == 0
    text = yaml.safe_load(capsys.readouterr().out)
    assert (text["name"], text["model"]) == ("big", f"azureml:{long}@latest")
    assert text["resources"]["instance_count"] == 3
    assert text["code_configuration"]["code"] == "a b"
    assert text["compute"] == "azureml:a100s"
    assert text["settings"]["max_concurrency_per_instance"] == 8


def test_more_instances_than_azure_grants_unasked_are_noted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In the same words by `plan`, `render` and `check`."""
    note = "a real-time deployment may have 50 instances, and more on request"
    size = ["--sku", "Standard_D4as_v4", "--instances"]
    assert main(["azure", "plan", *size, "51"]) == 0
    assert f"  note        {note}" in capsys.readouterr().out.splitlines()
    assert main(["azure", "render", "online", *size, "51", "--code", str(ROOT)]) == 0
    out, err = capsys.readouterr()
    assert err == f"note: {note}\n"
    (tmp_path / "deployment.yml").write_text(out)
    assert main(["azure", "check", str(tmp_path)]) == 0
    assert f"instance_count: {note}" in capsys.readouterr().err
    assert main(["azure", "render", "online", *size, "50"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["azure", "plan", *size, "50"]) == 0
    assert note not in capsys.readouterr().out
    assert main(["azure", "render", "batch", *size, "51"]) == 0  # a cluster has other limits
    assert capsys.readouterr().err == ""


def test_a_measured_rate_is_of_one_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert azure("plan", "--model", "openai-vit-b-32", "--measured", "100") == 2
    assert "of one size" in capsys.readouterr().err
