"""Checkpoints of other families are refused by name, with the list of what is known, at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from score.checkpoints import family, openclip, resolve
from score.core.embedder import Embedder
from score.errors import ModelError
from score.folder.families import FAMILIES
from score.folder.unsupported import SUPPORTED
from tests.support.open_clip_reference import config as open_clip_config

Json = dict[str, Any]

REMOTE = {
    "AutoConfig": "jinaai/jina-clip-implementation--configuration_clip.JinaCLIPConfig",
    "AutoModel": "jinaai/jina-clip-implementation--modeling_clip.JinaCLIPModel",
}
EVA = {"AutoModel": "modeling_evaclip.EvaCLIPModel"}

CONFIGS: dict[str, tuple[Json, str]] = {
    "BLIP": ({"model_type": "blip"}, "'blip': BLIP: its text tower reads the image"),
    "ALIGN": ({"model_type": "align"}, "'align': ALIGN: its image tower is an EfficientNet"),
    "AltCLIP": ({"model_type": "altclip"}, "AltCLIP: its text tower is an XLM-RoBERTa"),
    "CLIPSeg": ({"model_type": "clipseg"}, "CLIPSeg: it marks parts of an image"),
    "X-CLIP": ({"model_type": "xclip"}, "X-CLIP: its vectors are of videos"),
    "NaFlex": ({"model_type": "siglip2"}, "NaFlex: images of any shape"),
    "Jina CLIP": (
        {"model_type": "jina_clip", "auto_map": REMOTE},
        "needs code of its own, 'jinaai/jina-clip-implementation--modeling_clip.JinaCLIPModel'",
    ),
    "what Jina CLIP lacks": (
        {"model_type": "jina_clip"},
        "missing are its image tower (EVA-02: rotary positions, gated layers) and its text tower "
        "(JinaBERT in v1, XLM-RoBERTa with adapters in v2)",
    ),
    "EVA-CLIP": (
        {"model_type": "clip", "architectures": ["EvaCLIPModel"], "auto_map": EVA},
        "'clip', but of another class, EVA-CLIP: missing is its image tower, an EVA (in EVA-02: "
        "rotary positions, gated layers); it needs code of its own, "
        "'modeling_evaclip.EvaCLIPModel'",
    ),
    "EVA-CLIP by its name": ({"model_type": "evaclip"}, "EVA-CLIP: missing is its image tower"),
    "Jina CLIP by its class": (
        {"model_type": "clip", "architectures": ["JinaCLIPModel"], "auto_map": REMOTE},
        "'clip', but of another class, Jina CLIP: ",
    ),
    "an unknown class": (
        {"model_type": "clip", "architectures": [3], "auto_map": {"AutoModel": "a.OwnModel"}},
        "'clip', but of another class; it needs code of its own, 'a.OwnModel'",
    ),
    "a text tower": ({"model_type": "clip_text_model"}, "without the image tower"),
    "a new one": ({"model_type": "clip-9000"}, "model_type 'clip-9000' (not supported"),
    "no text": ({"model_type": ["clip"]}, "model_type list (not supported"),
    "no model_type": ({"projection_dim": 512}, "there is no model_type; supported"),
    "timm's": (
        {"architecture": "vit_base_patch16_siglip_224"},
        "there is no model_type: it is timm's, of the image tower 'vit_base_patch16_siglip_224'",
    ),
}

OPENCLIP = {
    "coca_ViT-L-14": "CoCa: a decoder",
    "convnext_base_w": "ConvNeXt's 'convnext_base'",
    "EVA02-L-14": "EVA's 'eva02_large_patch14_clip_224'",
    "EVA01-g-14": "EVA's 'eva_giant_patch14_224'",
    "MobileCLIP-S2": "MobileCLIP's 'fastvit_mci2'",
    "MobileCLIP-B": "MobileCLIP's 'vit_base_mci_224'",
    "PE-Core-L-14-336": "Perception Encoder (PE)'s",
    "ViTamin-L": "ViTamin's 'vitamin_large_224'",
    "ViT-SO400M-16-SigLIP-i18n-256": "SigLIP so400m i18n: ",
    "RN50": "its image tower is a ResNet",
    "ViT-L-14-CLIPA": "CLIPA: no norm before",
    "roberta-ViT-B-32": "its text tower is transformers' 'roberta-base'",
    "xlm-roberta-large-ViT-H-14": "its text tower is transformers' 'xlm-roberta-large'",
    "nllb-clip-base-siglip": "its text tower is transformers' 'facebook/nllb-200",
    "swin_base_patch4_window7_224": "Swin's",
    "vit_medium_patch16_gap_256": "timm's 'vit_medium_patch16_gap_256'",
}


def written(folder: Path, name: str, content: Json, weights: str) -> Path:
    """A folder with a configuration and weights that nobody can read, of a terabyte."""
    (folder / name).write_text(json.dumps(content))
    with (folder / weights).open("wb") as stream:
        stream.truncate(2**40)
    return folder


def refusal(folder: Path) -> str:
    """Why packaging refuses a folder, at once."""
    began = time.process_time()
    with pytest.raises(ModelError) as caught:
        resolve.find(str(folder))
    assert time.process_time() - began < 1
    return str(caught.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_another_family_is_refused_by_name(name: str, tmp_path: Path) -> None:
    config, says = CONFIGS[name]
    folder = written(tmp_path, "config.json", config, "model.safetensors")
    message = refusal(folder)
    assert says in message
    assert SUPPORTED in message
    with pytest.raises(ModelError) as caught:
        Embedder.load(folder)
    assert str(caught.value) == message


QUICKLY: dict[str, tuple[str, Json, str, set[str]]] = {
    "transformers": ("config.json", {"model_type": "foo"}, "'foo' (not supported", set()),
    "OpenCLIP": (
        "open_clip_config.json",
        {"model_cfg": open_clip_config("EVA02-L-14")},
        "its image tower is EVA's",
        set(),
    ),
    "no tokenizer": ("config.json", {"model_type": "clip"}, "lacks a tokenizer", {"torch"}),
}


@pytest.mark.process
@pytest.mark.parametrize(("name", "content", "says", "imported"), QUICKLY.values(), ids=QUICKLY)
def test_what_a_folder_lacks_is_found_before_what_takes_seconds_to_import(
    name: str, content: Json, says: str, imported: set[str], tmp_path: Path
) -> None:
    """There are no weights, either: the family comes first."""
    (tmp_path / name).write_text(json.dumps(content))
    arguments = ["package", str(tmp_path), "--output", str(tmp_path / "o")]
    script = f"import sys; from score.__main__ import main; code = main({arguments!r})\n"
    script += "print(code, *sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert says in done.stderr
    code, *modules = done.stdout.split()
    assert code == "2"
    assert set(modules) <= imported


@pytest.mark.parametrize("name", OPENCLIP)
def test_another_model_of_openclips_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content = {"model_cfg": open_clip_config(name)}
    weights = "open_clip_model.safetensors"
    message = refusal(written(tmp_path, "open_clip_config.json", content, weights))
    assert OPENCLIP[name] in message
    assert "supported are OpenCLIP's own ViT" in message


def test_the_list_names_every_family() -> None:
    for kind, known in FAMILIES.items():
        assert f"{kind} ({known.models})" in SUPPORTED


@pytest.mark.parametrize("kind", FAMILIES)
def test_code_beside_a_supported_class_is_not_run_and_no_obstacle(kind: str) -> None:
    from score.folder.architecture import Architecture

    config = {"model_type": kind, "architectures": [FAMILIES[kind].models], "auto_map": EVA}  # type: ignore[index]
    assert Architecture.from_config(config).kind == kind


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"model_type": "blip"}),
        ("open_clip_config.json", {"model_cfg": open_clip_config("EVA02-L-14")}),
    ],
)
def test_the_hub_is_not_asked_for_the_weights_of_another_family(
    name: str, content: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    asked: list[str] = []

    def download(id: str, *, allow_patterns: list[str], **_: object) -> str:
        asked.extend(allow_patterns)
        return str(tmp_path)

    class Api:
        def model_info(self, name: str, revision: str | None) -> SimpleNamespace:
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.safetensors")])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(ModelError, match=r"not supported.*supported are") as caught:
        resolve.find("owner/model")
    assert name in asked
    assert "model.safetensors" not in asked
    assert str(tmp_path) not in str(caught.value)


def test_of_two_configurations_one_that_is_known_suffices(tmp_path: Path) -> None:
    """As timm's repositories have them."""
    (tmp_path / "config.json").write_text('{"architecture": "vit_base_patch16_clip_224"}')
    with pytest.raises(ModelError, match="there is no model_type: it is timm's"):
        family.check(tmp_path)
    content = {"model_cfg": open_clip_config("ViT-B-16")}
    (tmp_path / openclip.CONFIG).write_text(json.dumps(content))
    family.check(tmp_path)
