"""A package notices that it no longer computes what it promised."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers

from score.checkpoints import random_checkpoint
from score.core.embedder import Embedder, parts_of
from score.core.verify import table, verify
from score.errors import ModelError
from score.model import transformer
from score.model.probes import FILE, Finding, Probes, difference, sample
from score.model.transformer import SLOPE
from score.package import probe_set
from score.package.build import package
from score.settings import Settings
from tests.support.surfaces import ROOT

Change = Callable[[Path], None]
Activation = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probes")
    source = random_checkpoint.write(folder / "c", random_checkpoint.TINY, seed=3)
    return package(source, folder / "package", "promising")


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """The `model/` of a package, to be spoilt."""
    return Path(shutil.copytree(made / "model", tmp_path / "model"))


def edit(file: str, **changes: Any) -> Change:
    def change(model: Path) -> None:
        content = json.loads((model / file).read_text())
        content.update(changes)
        (model / file).write_text(json.dumps(content))

    return change


def edit_towers(**changes: Any) -> Change:
    def change(model: Path) -> None:
        content = json.loads((model / "config.json").read_text())
        for tower in ("text_config", "vision_config"):
            content[tower].update({k: v for k, v in changes.items() if k in content[tower]})
        (model / "config.json").write_text(json.dumps(content))

    return change


def case_kept(model: Path) -> None:
    """CLIP's tokenizer without its lower-casing."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.save(str(model / "tokenizer.json"))


def wrongly_computed(
    monkeypatch: pytest.MonkeyPatch, activation: Activation = torch.nn.functional.gelu
) -> None:
    """Our own towers with GELU, say, for QuickGELU."""
    monkeypatch.setitem(transformer._ACTIVATIONS, "quick_gelu", activation)
    monkeypatch.setattr(
        "score.model.transformer.sloped_quick_gelu", lambda x: SLOPE * activation(x / SLOPE)
    )


@pytest.mark.slow
def test_a_wrong_activation_shows_in_the_vectors(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrongly_computed(monkeypatch)
    with pytest.raises(ModelError, match=r"the vector of .* cosine 0\.9999"):
        Embedder.load(model, Settings(device="cpu"))


def check(embedder: Embedder, probes: Probes | None, *, quick: bool = False) -> list[Finding]:
    assert probes is not None
    return probes.check(*parts_of(embedder), quick=quick)


def test_a_wrong_pooling_shows_in_the_vectors(model: Path) -> None:
    embedder = Embedder.load(model, Settings(device="cpu"))
    parts_of(embedder).encoder._ended = lambda ids: ids[:2]  # type: ignore[method-assign]
    findings = check(embedder, Probes.read(model), quick=True)
    assert [f.kind for f in findings if not f.passed] == ["text"]


def another_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text(random_checkpoint.xlm_vocabulary(1000))


def a_weight_off(model: Path) -> None:
    state = load_file(model / "model.safetensors")
    state["text_model.encoder.layers.1.mlp.fc1.weight"][5] *= 1.5
    state["vision_model.encoder.layers.1.mlp.fc1.weight"][5] *= 1.5
    save_file(state, model / "model.safetensors")


def another_scale(model: Path) -> None:
    state = load_file(model / "model.safetensors")
    state["logit_scale"] += 0.1
    save_file(state, model / "model.safetensors")


# What is wrong, and what the refusal must say of it.
WRONG: dict[str, tuple[Change, str]] = {
    "activation": (
        edit_towers(hidden_act="gelu"),
        "text_config.hidden_act, vision_config.hidden_act",
    ),
    "end token": (edit_towers(eos_token_id=320), "the model pools at 320"),
    "end token, as MetaCLIP-2 pools": (
        edit("config.json", model_type="metaclip_2"),
        "model_type",
    ),
    "resize filter": (edit("preprocessor_config.json", resample=2), "the pixels of 'chequers'"),
    "resize without crop": (
        edit(
            "preprocessor_config.json",
            size={"height": 224, "width": 224},
            do_center_crop=False,
        ),
        "the pixels of 'chequers'",
    ),
    "crop after a larger resize": (
        edit("preprocessor_config.json", size={"shortest_edge": 256}),
        "the pixels of 'chequers'",
    ),
    "mean": (edit("preprocessor_config.json", image_mean=[0.5, 0.5, 0.5]), "the vector of"),
    "tokenizer, case kept": (case_kept, """the token ids of "A photo of a Red Apple"""),
    "tokenizer of another model": (another_tokenizer, "the tokenizer ends a text with id 2"),
    "a weight": (a_weight_off, "the vector of"),
    "logit scale": (another_scale, "the probabilities of labels are not the reference's"),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_right_loads(precision: Any, made: Path) -> None:
    Embedder.load(made, Settings(device="cpu", precision=precision))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_does_not_load(name: str, precision: Any, model: Path) -> None:
    if precision == "bf16" and name in ("a weight",):
        pytest.skip("below what half precision can tell from rounding")
    spoil, says = WRONG[name]
    spoil(model)
    settings = Settings(device="cpu", precision=precision)
    with pytest.raises(ModelError) as caught:
        Embedder.load(model, settings)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", [name for name, (_, says) in WRONG.items() if "pools" not in says])
def test_verify_names_what_is_wrong(name: str, model: Path) -> None:
    spoil, says = WRONG[name]
    spoil(model)
    if "ends a text" in says:
        pytest.skip("does not even load")
    _, _, findings = verify(model, Settings(device="cpu"))
    broken = [finding for finding in findings if not finding.passed]
    assert any(says in str(finding) for finding in broken)
    assert table(findings).count("FAILED") == len(broken)


def test_nothing_is_checked_where_that_is_asked(model: Path) -> None:
    WRONG["activation"][0](model)
    Embedder.load(model, Settings(device="cpu", verify="off"))


def test_quick_computes_two_vectors_and_full_all(model: Path) -> None:
    embedder = Embedder.load(model, Settings(device="cpu"))
    probes = Probes.read(model)
    quick, full = check(embedder, probes, quick=True), check(embedder, probes)
    assert [finding.name for finding in quick] == [finding.name for finding in full]
    assert sum(finding.cosine is not None for finding in quick) == 2
    assert all(finding.passed for finding in full)
    assert all(finding.cosine is not None for finding in full if finding.has_vector)
    assert len(full) == 2 + len(probe_set.TEXTS) + len(probe_set.images())


def test_full_finds_what_quick_does_not_look_at(model: Path) -> None:
    content = json.loads((model / FILE).read_text())
    content["images"][3]["vector"] = content["images"][2]["vector"]
    (model / FILE).write_text(json.dumps(content))
    Embedder.load(model, Settings(device="cpu"))
    with pytest.raises(ModelError, match="the vector of 'cmyk'"):
        Embedder.load(model, Settings(device="cpu", verify="full"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"version": 2, "reference": "x", "architecture": {}}',
        '{"version": 2, "reference": "x", "architecture": {"model_type": "clip"}, "texts": 3}',
        '{"version": 2, "reference": "x", "architecture": {"model_type": "clip"}, "texts": [{}]}',
    ],
)
def test_broken_probes_are_a_model_error(content: str, model: Path) -> None:
    (model / FILE).write_text(content)
    with pytest.raises(ModelError, match="cannot read"):
        Embedder.load(model, Settings(device="cpu"))


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_probes_of_another_version_are_to_be_packaged_again(version: Any, model: Path) -> None:
    edit(FILE, version=version)(model)
    with pytest.raises(ModelError, match=f"version {version!r}, .* package the checkpoint again"):
        Embedder.load(model, Settings(device="cpu"))


def test_probes_of_an_older_release_have_no_probabilities(model: Path) -> None:
    content = json.loads((model / FILE).read_text())
    del content["probabilities"]
    (model / FILE).write_text(json.dumps(content))
    another_scale(model)  # which nothing of them detects
    _, _, findings = verify(model, Settings(device="cpu"))
    assert {finding.kind for finding in findings} == {"config", "text", "image"}
    assert all(finding.passed for finding in findings)


@pytest.mark.parametrize(
    "probabilities",
    [
        3,
        {"texts": 1},
        {"texts": 1, "values": ""},
        {"texts": 2, "values": "AACAPw=="},
        {"texts": 1, "values": "AACAPwAAgD8AAIA/" * 99},
        {"texts": 99, "values": "AACAPwAAgD8AAIA/" * 33},
    ],
    ids=["no object", "no values", "none", "too few", "too many images", "too many texts"],
)
def test_broken_probabilities_are_a_model_error(probabilities: Any, model: Path) -> None:
    edit(FILE, probabilities=probabilities)(model)
    with pytest.raises(ModelError, match="cannot read"):
        Embedder.load(model, Settings(device="cpu"))


def test_vectors_of_another_length_and_images_that_are_none_fail(model: Path) -> None:
    content = json.loads((model / FILE).read_text())
    content["texts"][0]["vector"] = content["texts"][0]["vector"][:1024]
    content["images"][0]["data"] = "bm8gcGljdHVyZQ=="
    (model / FILE).write_text(json.dumps(content))
    _, _, findings = verify(model, Settings(device="cpu"))
    failed = {finding.name for finding in findings if not finding.passed}
    assert failed == {probe_set.TEXTS[0], "chequers", "probabilities"}


def test_a_precision_without_a_tolerance_is_refused(model: Path) -> None:
    content = json.loads((model / FILE).read_text())
    del content["tolerances"]["bf16"]
    (model / FILE).write_text(json.dumps(content))
    with pytest.raises(ModelError, match="no tolerance for bf16"):
        Embedder.load(model, Settings(device="cpu", precision="bf16"))


def test_a_folder_without_probes_loads_and_cannot_be_verified(model: Path) -> None:
    (model / FILE).unlink()
    Embedder.load(model, Settings(device="cpu"))
    with pytest.raises(ModelError, match="it promises nothing; package it first"):
        verify(model, Settings())


def test_probes_survive_the_file(made: Path, tmp_path: Path) -> None:
    probes = Probes.read(made / "model")
    assert probes
    probes.write(tmp_path)
    assert (tmp_path / FILE).read_bytes() == (made / "model" / FILE).read_bytes()


def test_the_images_are_always_the_same_and_of_every_kind() -> None:
    from io import BytesIO

    from PIL import Image

    assert probe_set.images.__wrapped__() == probe_set.images()
    modes = {Image.open(BytesIO(data)).mode for data in probe_set.images().values()}
    assert {"P", "RGBA", "CMYK", "L", "RGB"} <= modes


def test_difference_is_what_it_says() -> None:
    import numpy as np

    a, b = np.array([3.0, 4.0], np.float32), np.array([4.0, 3.0], np.float32)
    cosine, error = difference(a, b)
    assert cosine == pytest.approx(24 / 25)
    assert error == pytest.approx(1 / 4)
    image = np.arange(224 * 224 * 3, dtype=np.uint32).astype(np.uint8).reshape(224, 224, 3)
    assert sample(image).shape == (256, 3)


# -- the command -----------------------------------------------------------------------------------


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "score", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )


@pytest.mark.process
def test_verify_prints_a_table_and_exits_0(made: Path) -> None:
    result = run("verify", str(made))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 4 + len(probe_set.TEXTS) + len(probe_set.images())
    assert lines[-1].startswith(
        f"all {len(lines) - 2} probes as promised; fp32 (torch) here against"
    )
    assert all(" equal " in line for line in lines[1:-1])


@pytest.mark.process
def test_verify_exits_1_and_serve_refuses_where_a_probe_fails(model: Path) -> None:
    WRONG["activation"][0](model)
    result = run("verify", str(model))
    assert result.returncode == 1
    assert "FAILED" in result.stdout
    assert "probes FAILED; fp32 (torch) here against transformers" in result.stderr
    result = run("serve", str(model), "--port", "1")
    assert result.returncode == 2
    assert "does not compute here what its package promises" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.process
def test_verify_exits_2_for_what_is_no_package(tmp_path: Path) -> None:
    result = run("verify", str(tmp_path))
    assert result.returncode == 2
    assert "no config.json" in result.stderr


@pytest.mark.slow
def test_a_model_that_computes_something_else_is_not_packaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random_checkpoint.write(tmp_path / "c", random_checkpoint.TINY)
    wrongly_computed(monkeypatch, torch.nn.functional.relu)
    with pytest.raises(ModelError, match=r"cannot be packaged: computed here, the vector of"):
        package(source, tmp_path / "dist" / "p")
    assert not (tmp_path / "dist" / "p").exists()
    assert list((tmp_path / "dist").iterdir()) == []


def test_findings_say_why() -> None:
    assert "token ids of 'a cat'" in str(Finding("text", "a cat", False, 1.0, 0.0, False))
    assert "pixels of 'wide'" in str(Finding("image", "wide", False, None, None, False))
    assert "cosine 0.500000" in str(Finding("text", "a", True, 0.5, 0.1, False))
