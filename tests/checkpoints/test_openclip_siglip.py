"""SigLIP and SigLIP 2 in OpenCLIP's layout: equality with OpenCLIP's and timm's own models.

Weights are random, of full width and reduced depth; vocabularies are trained here, as small as the
tests' texts allow. Token ids and pixels must agree to the last bit, vectors within 1e-4.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from score.checkpoints import openclip, resolve
from score.checkpoints.architectures import SIGLIP_ARCHITECTURES
from score.checkpoints.openclip_siglip import TRUNKS
from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.folder.architecture import Vision
from score.model.probes import difference
from score.package import reference
from score.package.build import package as build
from score.settings import Settings
from score.texts import sentencepiece_model, siglip
from score.texts.cleaning import Cleaning
from score.texts.tokenizer import Tokenizer as OurTokenizer
from tests.model.test_siglip import CONTEXT, SCRIPTS, TEXTS, byte_pairs, pieces
from tests.support.images import SAMPLES, normalised
from tests.support.open_clip_reference import OpenClip, config, needs_timm
from tests.support.open_clip_reference import package as open_clip_package

Json = dict[str, Any]
EXACT = Settings(device="cpu", precision="fp32", verify="off")
PREPROCESS = {
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def t5_pieces(folder: Path) -> Path:
    """The files of SigLIP's tokenizer as OpenCLIP's checkpoints have them: T5's."""
    vocabulary = (pieces(folder) / "spiece.model").read_bytes()
    (folder / "spiece.model").unlink()
    parsed = sentencepiece_model.parse(vocabulary, siglip.FIRST)
    first = [(text, 0.0) for text, _ in siglip.FIRST]
    tokenizer = Tokenizer(Unigram([*first, *parsed.pieces], unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(parsed.charsmap), normalizers.Strip(left=False, right=True)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"lstrip": False, "rstrip": False, "normalized": False, "special": True}
    listed = {
        "added_tokens_decoder": {
            str(id): {"content": text, "single_word": False, **special}
            for id, (text, _) in enumerate(siglip.FIRST)
        },
        "additional_special_tokens": [],
        "clean_up_tokenization_spaces": True,
        "eos_token": "</s>",
        "extra_ids": 0,
        "legacy": False,
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": "</s>",
        "sp_model_kwargs": {},
        "tokenizer_class": "T5Tokenizer",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(listed))
    return folder


KINDS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "SigLIP": ("ViT-B-16-SigLIP", t5_pieces),
    "SigLIP 2": ("ViT-B-32-SigLIP2-256", byte_pairs),
    "SigLIP 2, giant": ("ViT-gopt-16-SigLIP2-256", byte_pairs),
    "SigLIP, so400m": ("ViT-SO400M-14-SigLIP-384", t5_pieces),
}


def shallow(name: str) -> Json:
    """OpenCLIP's configuration of that name, its text tower two layers deep, and few words."""
    content = config(name)
    content["text_cfg"].update(layers=2, vocab_size=2304)
    return content


@pytest.fixture
def two_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's image towers two layers deep."""
    create = sys.modules["timm"].create_model

    def made(name: str, **options: Any) -> torch.nn.Module:
        model: torch.nn.Module = create(name, depth=2, **options)
        return model

    monkeypatch.setattr(sys.modules["timm"], "create_model", made)
    monkeypatch.setattr("score.checkpoints.openclip_siglip.TRUNKS", SHALLOW)


SHALLOW = {
    name: trunk.__class__(
        trunk.tower.__class__(
            trunk.tower.width,
            2,
            trunk.tower.heads,
            trunk.tower.hidden,
            trunk.tower.activation,
            1e-6,
        ),
        trunk.image,
        trunk.patch,
        pooling="attention",
    )
    for name, trunk in TRUNKS.items()
}


def write(
    folder: Path, model: OpenClip, model_cfg: Json, tokenizer: Callable[[Path], Path]
) -> Path:
    """As `open_clip.push_to_hf_hub` lays a model out."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": model_cfg, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    state = {name: tensor.contiguous() for name, tensor in model.model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return tokenizer(folder)


def reference_model(model_cfg: Json) -> OpenClip:
    """OpenCLIP's model of a configuration, no parameter at its neutral value."""
    known = {name: value for name, value in model_cfg.items() if name != "custom_text"}
    theirs = OpenClip(known, custom=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, parameter in theirs.model.named_parameters():
            if "norm" in name or name.endswith(("pos_embed", "latent", "probe")):
                parameter.data += 0.1 * torch.randn_like(parameter)
    theirs.model.logit_scale.data.fill_(np.log(5.0))
    theirs.model.logit_bias.data.fill_(-1.5)
    return theirs


@needs_timm
@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.usefixtures("two_layers")
@pytest.mark.parametrize("kind", KINDS)
def test_a_package_computes_what_openclip_computes(kind: str, tmp_path: Path) -> None:
    name, tokenizer = KINDS[kind]
    model_cfg = shallow(name)
    theirs = reference_model(model_cfg)
    folder = write(tmp_path / "c", theirs, model_cfg, tokenizer)
    made = build(folder, tmp_path / "p")
    shutil.rmtree(folder)
    ours = parts_of(Embedder.load(made, EXACT))
    images = [Image.open(file) for file in sorted((SAMPLES / "images").glob("*.jpg"))[:3]]
    pixels = [ours.preprocessor.pixels(image, 10**8) for image in images]
    side = model_cfg["vision_cfg"]["image_size"]
    for image, found in zip(images, pixels, strict=True):
        squashed = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(found, np.asarray(squashed))
    values = np.moveaxis(normalised(ours.preprocessor, np.stack(pixels)), -1, 1)
    np.testing.assert_allclose(values, np.moveaxis(np.stack(pixels) / 127.5 - 1, -1, 1), atol=1e-6)
    ids = [ids for ids in ours.tokenizer.encode(TEXTS[-20:], "end") if isinstance(ids, list)]
    assert {len(text) for text in ids} == {CONTEXT}
    for mine, reference_vectors in (
        (ours.encoder.images(pixels), theirs.images(values)),
        (ours.encoder.texts(ids), theirs.texts(ids, CONTEXT)),
    ):
        cosine, error = difference(mine, reference_vectors)
        assert cosine >= 0.99999
        assert error <= 1e-4
    assert ours.encoder.logit_scale == pytest.approx(5)
    assert ours.encoder.logit_bias == pytest.approx(-1.5)
    card = (made / "README.md").read_text(encoding="utf-8")
    assert "cleaned as OpenCLIP does for SigLIP" in card
    assert "open_clip" in card


@pytest.fixture(scope="module", params=[t5_pieces, byte_pairs], ids=["T5", "Gemma"])
def tokenizer_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder: Path = request.param(tmp_path_factory.mktemp("tokenizer"))
    return folder


def theirs_of(folder: Path) -> Callable[[Sequence[str]], list[list[int]]]:
    """OpenCLIP's `HFTokenizer` around a folder, one text at a time."""
    module = reference._open_clip(Cleaning("canonicalize"))
    tokenizer = module.HFTokenizer(str(folder), CONTEXT, clean="canonicalize")

    def ids(texts: Sequence[str]) -> list[list[int]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [tokenizer([text])[0].tolist() for text in texts]

    return ids


MORE = [
    "don’t_do that, Tom &amp;amp; Jerry’s “cafÃ©” – ＬＯＵＤ ﬂoors",
    "ΟΔΟΣ!Α, ΟΔΟΣ.Α ΟΔΟΣ",
    "snake_case __init__ <extra_id_3> &lt;/s&gt; ＜/s＞ <eos> <bos>",
    "&#x3c;pad&#x3e; a\u00a0b \ufe33 ﹤unk﹥",
    "___",
]


@pytest.mark.reference
def test_token_ids_of_many_scripts_are_openclips(tokenizer_folder: Path) -> None:
    texts = [*TEXTS, *MORE]
    assert len(texts) >= 500
    ours = OurTokenizer.of(tokenizer_folder, CONTEXT, pads=True)
    ours.cleaning = Cleaning("canonicalize")
    for text, ids, wanted in zip(
        texts, ours.encode(texts, "end"), theirs_of(tokenizer_folder)(texts), strict=True
    ):
        assert ids == wanted, text


@pytest.mark.parametrize("text", [*SCRIPTS, *MORE])
def test_texts_are_cleaned_as_openclip_does(text: str) -> None:
    module = reference._open_clip(Cleaning("canonicalize"))
    assert Cleaning("canonicalize")(text) == module.get_clean_fn("canonicalize")(text)


def test_a_package_records_its_cleaning(tmp_path: Path) -> None:
    cleaning = Cleaning.from_config({"text_cleaning": "canonicalize"})
    assert cleaning == Cleaning("canonicalize")
    assert cleaning.config() == {"text_cleaning": "canonicalize"}


def test_masks_of_t5s_training_are_left_out(tmp_path: Path) -> None:
    """mT5's file has a hundred, for which a SigLIP has no embeddings."""
    folder = t5_pieces(tmp_path)
    before = OurTokenizer.of(folder, CONTEXT, pads=True).encode(["a cat"], "end")
    content = json.loads((folder / "tokenizer.json").read_text())
    masks = [f"▁<extra_id_{number}>" for number in range(3)] + ["<extra_id_7>"]
    content["model"]["vocab"] += [[mask, 0.0] for mask in masks]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["additional_special_tokens"] = masks
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = OurTokenizer.of(folder, CONTEXT, pads=True)
    assert not set(masks) & tokenizer.vocabulary().keys()
    assert tokenizer.encode(["a cat"], "end") == before


def test_t5s_json_is_read_rather_than_its_sentencepieces(tmp_path: Path) -> None:
    folder = t5_pieces(tmp_path)
    (folder / "spiece.model").write_bytes(b"no vocabulary")
    OurTokenizer.of(folder, CONTEXT, pads=True)


def test_a_t5_tokenizer_of_other_pieces_is_refused(tmp_path: Path) -> None:
    folder = t5_pieces(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"][0][0] = "<no>"
    content["added_tokens"] = []
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"not T5's: pieces that begin with <pad>, </s> and <unk>"):
        OurTokenizer.of(folder, CONTEXT, pads=True)


NAMES = sorted(
    file.stem
    for file in (open_clip_package() / "model_configs").glob("*SigLIP*.json")
    if "i18n" not in file.stem
)


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_of_openclips_is_read(name: str) -> None:
    found = openclip.architecture(config(name))
    side = found.vision.image
    ours = SIGLIP_ARCHITECTURES.get(name if name.endswith(str(side)) else f"{name}-{side}")
    if ours is None:
        assert name == "ViT-SO400M-14-SigLIP-378"  # never published by itself
        return
    differing = found.differences(ours)
    assert {key.rpartition(".")[2] for key in differing} <= {"hidden_act"}


def test_the_image_towers_are_siglips_but_for_activations() -> None:
    activations: dict[str, str] = {}
    for architecture in SIGLIP_ARCHITECTURES.values():
        (name,) = (
            name for name, trunk in TRUNKS.items() if _plain(trunk) == _plain(architecture.vision)
        )
        activations[name] = TRUNKS[name].tower.activation
    assert activations.keys() == TRUNKS.keys()
    assert {name for name, activation in activations.items() if activation != "gelu"} == {
        "vit_base_patch32_siglip_256",
        "vit_large_patch16_siglip_512",
        "vit_so400m_patch16_siglip_256",
        "vit_so400m_patch16_siglip_384",
        "vit_so400m_patch16_siglip_512",
        "vit_giantopt_patch16_siglip_256",
        "vit_giantopt_patch16_siglip_384",
    }


def _plain(trunk: Vision) -> Vision:
    return replace(trunk, tower=replace(trunk.tower, activation="gelu"))


@needs_timm
@pytest.mark.reference
@pytest.mark.parametrize("name", TRUNKS)
def test_the_image_towers_are_timms(name: str) -> None:
    trunk = TRUNKS[name]
    model = sys.modules["timm"].create_model(
        name, num_classes=0, global_pool="map", device=torch.device("meta")
    )
    tanh = trunk.tower.activation == "gelu_pytorch_tanh"
    assert model.embed_dim == trunk.tower.width
    assert len(model.blocks) == trunk.tower.layers
    assert model.blocks[0].attn.num_heads == model.attn_pool.num_heads == trunk.tower.heads
    assert model.blocks[0].mlp.fc1.out_features == trunk.tower.hidden
    assert model.norm.eps == model.attn_pool.norm.eps == trunk.tower.epsilon
    assert model.patch_embed.img_size == (trunk.image, trunk.image)
    assert model.patch_embed.patch_size == (trunk.patch, trunk.patch)
    for layer in (model.blocks[0].mlp.act, model.attn_pool.mlp.act):
        assert type(layer).__name__ == ("GELUTanh" if tanh else "GELU")


REFUSED: dict[str, tuple[str | None, str, Any, str]] = {
    "another timm model": ("vision_cfg", "timm_model_name", "vit_base", "is timm's 'vit_base'"),
    "one without its pooling": (
        *("vision_cfg", "timm_model_name", "vit_base_patch16_siglip_gap_224"),
        "none of SigLIP's, which are vit_base_patch16_siglip_224",
    ),
    "no name": ("vision_cfg", "timm_model_name", ["x"], "its image tower is timm's"),
    "average pooling": ("vision_cfg", "timm_pool", "avg", "timm_pool='avg': it must be "),
    "projected images": ("vision_cfg", "timm_proj", "linear", "timm_proj='linear': it must be "),
    "another image size": ("vision_cfg", "image_size", 256, "image_size=256 is not that of vit_"),
    "masked texts": ("text_cfg", "no_causal_mask", False, "no_causal_mask=False: it must be "),
    "first token": ("text_cfg", "pool_type", "argmax", "pool_type='argmax': it must be "),
    "no bias": ("text_cfg", "proj_bias", False, "proj_bias=False: it must be "),
    "no projection": (
        "text_cfg",
        "proj_type",
        "none",
        "SigLIP so400m i18n: text_cfg.proj_type='none'",
    ),
    "other norms": ("text_cfg", "norm_kwargs", {"bias": False}, "norm_kwargs={'bias': False}"),
    "an invalid norm": ("text_cfg", "norm_kwargs", {"eps": "small"}, "layer_norm_eps 'small'"),
    "another cleaning": ("text_cfg", "tokenizer_kwargs", {"clean": "lower"}, "tokenizer_kwargs="),
    "another activation": ("text_cfg", "act_kwargs", {"inplace": True}, "act_kwargs="),
    "a transformers tower": (
        "text_cfg",
        "hf_model_name",
        "roberta",
        "its text tower is transformers' 'roberta'",
    ),
    "QuickGELU": (None, "quick_gelu", True, "quick_gelu=True: it must be "),
    "one module": (None, "custom_text", False, "custom_text=False: it must be "),
    "unequal vectors": (None, "embed_dim", 512, "vectors of texts have 512 numbers"),
}


@pytest.mark.parametrize(("part", "key", "value", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_siglip_is_refused_by_name(
    part: str | None, key: str, value: Any, message: str
) -> None:
    model_cfg = config("ViT-B-16-SigLIP")
    (model_cfg if part is None else model_cfg[part])[key] = value
    with pytest.raises(ModelError, match=message):
        openclip.architecture(model_cfg)


def test_a_checkpoint_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    model_cfg = config("ViT-B-16-SigLIP")
    model_cfg["vision_cfg"]["timm_pool"] = "avg"
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg}))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="timm_pool='avg': it must be 'map' for SigLIP"):
        resolve.find(str(tmp_path))


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    model_cfg = config("ViT-B-16-SigLIP")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg}))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"without their tokenizer \(timm/ViT-B-16-SigLIP\)"):
        resolve.find(str(tmp_path))


def test_pieces_beside_the_weights_are_their_tokenizer(tmp_path: Path) -> None:
    model_cfg = config("ViT-B-16-SigLIP")
    options = resolve._Options(None, None, None, None)
    tokenizer = resolve._tokenizer_of(pieces(tmp_path), options)
    found = tokenizer(openclip.architecture(model_cfg), "timm/ViT-B-16-SigLIP")
    assert found.vocabulary() == OurTokenizer.of(tmp_path, CONTEXT, pads=True).vocabulary()


@pytest.mark.parametrize("pads", [True, False])
def test_a_folder_without_a_tokenizer_is_told_what_one_is_made_of(
    pads: bool, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        OurTokenizer.of(tmp_path, CONTEXT, pads=pads)
    for name in ("tokenizer.json", "vocab.json and merges.txt", "vocab.txt"):
        assert name in str(caught.value)
    assert ("spiece.model" in str(caught.value)) == pads
