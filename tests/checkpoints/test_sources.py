"""Where a checkpoint says it comes from: what that is worth, and what goes with it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.models import Model
from safetensors.torch import load_file, save_file

from score.checkpoints import architectures, catalog, openclip, random_checkpoint, resolve
from score.contract.rows import Row
from score.core.embedder import Embedder
from score.errors import ModelError, RequestError
from score.folder.model_folder import ModelFolder
from score.package.build import package
from score.settings import Settings
from tests.checkpoints.test_layouts import SMALL, write_open_clip
from tests.support.open_clip_reference import OpenClip

CPU = Settings(device="cpu")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "c"))


@pytest.fixture
def small_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every published architecture is as small as the embedded model."""
    tiny = dict.fromkeys(architectures.ALL_ARCHITECTURES, random_checkpoint.TINY)
    monkeypatch.setattr(catalog, "ALL_ARCHITECTURES", tiny)


# -- licences --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("small_catalog")
def test_a_download_is_what_its_source_says(tiny: Path, tmp_path: Path) -> None:
    """As the message for machines without a network tells."""
    said: list[str] = []
    id = "facebook/metaclip-h14-fullcc2.5b"
    made = package(tiny, tmp_path / "p", source=f"{id}@abc", say=said.append)
    assert "CC-BY-NC-4.0: NON-COMMERCIAL" in said[0]
    metadata = Model.load(str(made)).metadata
    assert metadata["license"] == "CC-BY-NC-4.0"
    assert (metadata["source"], metadata["revision"]) == (f"huggingface.co/{id}", "abc")
    assert "NON-COMMERCIAL" in (made / "README.md").read_text()
    # Packaged again, it is still that, licence files and all.
    (made / "model" / "LICENSE").write_text("words")
    again = package(made, tmp_path / "again")
    assert Model.load(str(again)).metadata["license"] == "CC-BY-NC-4.0"
    assert Model.load(str(again)).metadata["revision"] == "abc"
    assert (again / "model" / "LICENSE").read_text() == "words"


def test_a_source_that_is_something_else_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this is not OpenAI CLIP ViT-B/32"):
        package(tiny, tmp_path / "p", source="openai-vit-b-32")
    with pytest.raises(ModelError, match="neither a Hub id nor a name of the catalog"):
        package(tiny, tmp_path / "p", source="something")


OF_EACH_FAMILY = {
    "clip": "openai-vit-b-32",
    "metaclip_2": "metaclip-2-huge",
    "siglip": "siglip-b-16-224",
    "chinese_clip": "chinese-clip-vit-b-16",
}


def test_a_source_of_another_family_is_refused(tiny: Path) -> None:
    for kind in OF_EACH_FAMILY.keys() - {"clip"}:
        entry = catalog.CATALOG[OF_EACH_FAMILY[kind]]
        says = f"this is not {entry.title}: its model_type is 'clip', published was '{kind}'"
        with pytest.raises(ModelError, match=re.escape(says)):
            resolve.find(str(tiny), source=entry.hub)


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.permutations(OF_EACH_FAMILY, 2)))
def test_of_two_families_only_the_family_is_compared(ours: str, theirs: str) -> None:
    one, other = (catalog.CATALOG[OF_EACH_FAMILY[kind]].architecture for kind in (ours, theirs))
    assert one.differences(other) == {"model_type": (ours, theirs)}
    assert one.differences(one) == {}


@pytest.mark.usefixtures("small_catalog")
def test_a_folders_name_grants_no_licence(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny, tmp_path / "openai" / "clip-vit-base-patch32")
    shutil.copytree(tiny, tmp_path / "openai-vit-b-32")
    monkeypatch.chdir(tmp_path)
    for name in ("openai/clip-vit-base-patch32", "openai-vit-b-32"):
        found = resolve.find(name)
        assert found.entry is None
        assert "not in the catalog" in found.notice


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch32@main", "openai-vit-b-32"])
def test_a_revision_does_not_hide_whose_it_is(
    name: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def download(id: str, revision: str | None, **_: object) -> resolve.hub.Download:
        asked.append((id, revision))
        return resolve.hub.Download(tiny, "0" * 40)

    monkeypatch.setattr(resolve.hub, "download", download)
    with pytest.raises(ModelError, match="this is not OpenAI CLIP ViT-B/32: its"):
        resolve.find(name)
    pinned = catalog.CATALOG["openai-vit-b-32"].revision
    assert asked == [("openai/clip-vit-base-patch32", "main" if "@" in name else pinned)]


@pytest.mark.slow
def test_licence_files_are_real_files_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "LICENSE").write_text("ours")
    (folder / "LICENSE.key").symlink_to(tmp_path / "secret")
    (folder / "LICENSES").mkdir()
    (folder / "LICENSE.big").write_bytes(b" " * (2**20 + 1))
    made = package(folder, tmp_path / "p")
    assert [file.name for file in (made / "model").glob("LICENSE*")] == ["LICENSE"]


# -- names that lead nowhere -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("b32_400m.pt", "no such file: b32_400m.pt; download it from https://dl.fbaipublicfiles"),
        ("downloads/model.safetensors", "no such file: downloads/model.safetensors"),
        ("nonsense", "no checkpoint 'nonsense'"),
    ],
)
def test_a_missing_file_is_not_looked_for_on_the_hub(name: str, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve.find(name)
    assert says in str(caught.value)


def test_a_kerashub_preset_is_its_name_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(id: str, revision: str | None, **_: object) -> resolve.hub.Download:
        asked.append(id)
        raise ModelError("no network")

    monkeypatch.setattr(resolve.hub, "download", download)
    with pytest.raises(ModelError, match="no network"):
        resolve.find("metaclip_2_vit_huge_patch14_378")
    assert asked == ["keras/metaclip_2_vit_huge_patch14_378"]


def test_an_output_that_cannot_be_replaced(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(RequestError, match="cannot be replaced"):
        package(tiny, Path("."))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x😀", "tab\there", "\x85\x7f", "日本語"])
def test_a_name_survives_the_yaml(name: str, tiny: Path, tmp_path: Path) -> None:
    made = package(tiny, tmp_path / "p", name)
    wanted = "".join(character for character in name if character.isprintable())
    assert Model.load(str(made)).metadata["base_model_name"] == wanted


# -- odd insides -----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [torch.Tensor.to_sparse, lambda tensor: tensor.to("meta")])
def test_tensors_that_are_not_plain(change: Any, folder: Path, tmp_path: Path) -> None:
    tensors = dict(load_file(folder / "model.safetensors"))
    tensors["visual_projection.weight"] = change(tensors["visual_projection.weight"])
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no plain tensor|no whole torch file|more than tensors"):
        package(folder, tmp_path / "p")


@pytest.mark.parametrize(
    "name", ["config.json", "probes.json", "model.safetensors.index.json", "processor_config.json"]
)
def test_json_that_is_nested_without_end(name: str, folder: Path) -> None:
    if name.startswith("model"):
        (folder / "model.safetensors").unlink()
    (folder / name).write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(ModelError, match="cannot read"):
        Embedder.load(folder, CPU)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_cfg", "width", float("inf")),
        ("vision_cfg", "width", 10**400),
        ("vision_cfg", "mlp_ratio", float("inf")),
        ("vision_cfg", "mlp_ratio", float("nan")),
        ("vision_cfg", "head_width", float("nan")),
        ("vision_cfg", "head_width", -3),
        ("text_cfg", "width", []),
        ("text_cfg", "layers", "many"),
    ],
)
def test_numbers_that_are_none_in_an_openclip_configuration(
    part: str, key: str, value: Any
) -> None:
    model_cfg = json.loads(json.dumps(SMALL))
    model_cfg[part][key] = value
    with pytest.raises(ModelError):
        openclip.architecture(model_cfg)


@pytest.mark.parametrize(
    "preprocess", [[1], {"interpolation": []}, {"interpolation": "nearest"}, {"resize_mode": 3}]
)
def test_a_preprocessing_that_is_none(preprocess: Any, tmp_path: Path) -> None:
    folder = write_open_clip(tmp_path / "c", OpenClip(SMALL), SMALL, preprocess)
    with pytest.raises(ModelError, match="OpenCLIP"):
        resolve.find(str(folder))


def test_a_foreign_tokenizer_is_not_replaced_by_clips(tmp_path: Path) -> None:
    model_cfg = json.loads(json.dumps(SMALL))
    model_cfg["text_cfg"]["hf_tokenizer_name"] = "someone/other-bpe"
    folder = write_open_clip(tmp_path / "c", OpenClip(SMALL), model_cfg, {})
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"without their tokenizer \(someone/other-bpe\)"):
        resolve.find(str(folder))


def test_a_whole_processor_counts_more_than_its_part(folder: Path) -> None:
    own = json.loads((folder / "preprocessor_config.json").read_text())
    nested = {"image_processor": {**own, "resample": 2}}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    assert ModelFolder.open(folder).preprocessor["resample"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"size": {"shortest_edge": 0}},
        {"size": -3},
        {"size": float("inf")},
        {"size": 10**9},
        {"image_std": [0, 0, 0]},
        {"image_mean": [float("nan")] * 3},
        {"rescale_factor": float("inf")},
        {"image_mean": "grey"},
    ],
)
def test_a_preprocessor_that_cannot_be(change: Any, folder: Path) -> None:
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=r"unusable preprocessor_config\.json"):
        Embedder.load(folder, CPU)


def test_a_scale_that_is_no_number(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["logit_scale"] = torch.tensor(float("nan"))
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match="logit_scale is NaN"):
        Embedder.load(folder, CPU)


def test_a_tokenizer_that_adds_no_end(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": None}))
    with pytest.raises(ModelError, match="no post_processor"):
        Embedder.load(folder, CPU)


def test_a_loaded_model_is_its_own(folder: Path) -> None:
    """Its file may be overwritten, or end, under it."""
    model = Embedder.load(folder, CPU)

    def vector() -> np.ndarray:
        (record,) = model.embed([Row(text="a cat")])
        assert record.text_features is not None
        return record.text_features

    before = vector()
    file = folder / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(size // 2)
        stream.write(b"\x01" * 4096)
    assert np.array_equal(vector(), before)
    os.truncate(file, 0)
    assert np.array_equal(vector(), before)


@pytest.mark.slow
def test_a_checkpoint_may_not_choose_its_kernels(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((folder / "config.json").read_text())
    content |= {"attn_implementation": "evil/kernel", "quantization_config": {"load_in_8bit": True}}
    (folder / "config.json").write_text(json.dumps(content))
    package(folder, tmp_path / "p")


def test_the_licence_is_said_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    def download(id: str, revision: str | None, **_: object) -> resolve.hub.Download:
        said.append(f"downloads {id}")
        raise ModelError("no network")

    monkeypatch.setattr(resolve.hub, "download", download)
    with pytest.raises(ModelError, match="no network"):
        resolve.find("metaclip-2-giant", say=said.append)
    assert "CC-BY-NC-4.0: NON-COMMERCIAL" in said[0]
    assert said[1:] == ["downloads facebook/metaclip-2-worldwide-giant"]


@pytest.mark.slow
def test_tensors_that_nobody_uses_are_said(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.adapter.weight"] = torch.ones(3)
    save_file(tensors, folder / "model.safetensors")
    said: list[str] = []
    package(folder, tmp_path / "p", say=said.append)
    assert "1 tensors of the checkpoint are not used, such as text_model.adapter.weight" in said
