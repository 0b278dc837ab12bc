"""SigLIP and SigLIP 2: equality with transformers' own, on checkpoints in the published layout.

Weights are random, of full width and reduced depth; vocabularies are trained here, as small as the
tests' texts allow. Token ids and pixels must agree to the last bit, vectors within `TOLERANCE`.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipTokenizer,
)

from score.checkpoints import random_checkpoint
from score.checkpoints.architectures import SIGLIP_ARCHITECTURES
from score.contract.labels import Labels
from score.contract.params import Params
from score.contract.rows import Row
from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.evaluation.retrieval import retrieval
from score.evaluation.zeroshot import zeroshot
from score.folder.architecture import Architecture
from score.folder.model_folder import ModelFolder
from score.images.preprocess import Preprocessor
from score.jobs.image_folder_reader import ClassFolders
from score.model import text_tower
from score.model.zeroshot import probabilities
from score.package.build import package as build
from score.package.reference import check_installed
from score.settings import Settings
from score.texts.padding import Padding
from score.texts.tokenizer import Tokenizer as OurTokenizer
from score.type_aliases import Matrix
from tests.support import sentencepiece_models
from tests.support.references import assert_same_ids, assert_same_vectors, photographs, row

TOLERANCE = 1e-5
CONTEXT = 64
EXACT = Settings(device="cpu", precision="fp32", verify="off")

CAPTIONS = [
    line.strip()
    for line in Path("benchmarks/captions_web.csv").read_text(encoding="utf-8").splitlines()
]
ODD = """\
Ein Bild von Äpfeln, größer!|Σίσυφος ΟΔΥΣΣΕΥΣ|İstanbul'da ışık|猫の写真。|фото собаки|ΑΣ ΑΣ.|ß ſ
a  double   space|\ttab\tand nothing | leading|trailing |!!!|...|▁under|a▁b|</s>|a </s> b|a</s>
<unk> x|x<unk>y|<pad> z|½ ﬁ Ⅷ ¨|café|🍎🍏 emoji|{} braces|don't|UPPER lower|\u200b zero|\xa0nbsp
\ufeffBOM|ﷺ|١٢٣|हिन्दी में|ไทย|한국어 사진|קרוב לחלון|\u2028line|\x1fctl"""
LONG = "a long description of a picture of a cat and of a dog in a garden " * 20
SCRIPTS = re.split("[|\n]", ODD)
# Characters that combine: compatibility characters with a mark, decomposed Vietnamese, Hangul and
# Greek.
COMBINED = [
    *(
        "½\u0301",
        "…\u0301",
        "ﬁ\u0301",
        "№\u0332",
        "²\u0332 km",
        "a™\u0332 b",
        "㎏\u0332",
        "‥\u06d6",
    ),
    *(unicodedata.normalize("NFD", text) for text in ("Tiếng Việt", "한국어 사진", "ᾄδω", "ḗ ǻ")),
    *("ｶﾞ ﾊﾟ", "1️⃣ ™️", "</s> ½\u0301 x", "a <unk>²\u0332", "น้ำ ½\u0301"),
]
MIXED = [f"{odd} {caption}" for odd in SCRIPTS for caption in CAPTIONS[:12]]
TEXTS = [*CAPTIONS, *MIXED, *SCRIPTS, *COMBINED, LONG, ""]


def pieces(folder: Path) -> Path:
    """The files of SigLIP's tokenizer, as its checkpoints have them."""
    texts = (text.lower() for text in [*CAPTIONS, *SCRIPTS] if text)
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    vocabulary = sentencepiece_models.trained(
        texts, vocab_size=2000, character_coverage=0.99, **ids
    )
    (folder / "spiece.model").write_bytes(vocabulary)
    special = {"lstrip": True, "rstrip": True, "normalized": False, "special": True}
    config = {
        "added_tokens_decoder": {
            str(id): {"content": text, "single_word": False, **special}
            for id, text in ((1, "</s>"), (2, "<unk>"))
        },
        "do_lower_case": True,
        "eos_token": "</s>",
        "model_input_names": ["input_ids"],
        "model_max_length": CONTEXT,
        "pad_token": "</s>",
        "tokenizer_class": "SiglipTokenizer",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def byte_pairs(folder: Path) -> Path:
    """The files of SigLIP 2's tokenizer, as its checkpoints have them: Gemma's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    specials += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator([*CAPTIONS, *SCRIPTS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "add_bos_token": False,
        "add_eos_token": True,
        **{f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")},
        "model_input_names": ["input_ids"],
        "model_max_length": CONTEXT,
        "padding_side": "right",
        "tokenizer_class": "GemmaTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


KINDS: dict[str, tuple[Callable[[Path], Path], Any]] = {
    "SigLIP": (pieces, SiglipTokenizer),
    "SigLIP 2": (byte_pairs, Siglip2Tokenizer),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as `save_pretrained` writes it: base's width, one layer deep."""
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    model = SiglipModel(
        SiglipConfig(
            text_config={"num_hidden_layers": 2, "vocab_size": 4096},
            vision_config={"num_hidden_layers": 2, "patch_size": 32},
        )
    )
    model.logit_scale.data.fill_(np.log(5.0))
    model.logit_bias.data.fill_(-1.5)
    for name, parameter in model.named_parameters():
        if "norm" in name or (name.endswith("bias") and name != "logit_bias"):
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 224, "width": 224}).save_pretrained(folder)
    return KINDS[kind][0](folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> SiglipModel:
    return SiglipModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokenize(folder: Path, kind: str) -> Callable[[Sequence[str]], list[list[int]]]:
    tokenizer = KINDS[kind][1].from_pretrained(folder)

    def ids(texts: Sequence[str]) -> list[list[int]]:
        options = {"padding": "max_length", "truncation": True, "max_length": CONTEXT}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a text that has an end token already
            return [tokenizer([text], **options)["input_ids"][0] for text in texts]

    return ids


@pytest.fixture(scope="module")
def ours(folder: Path) -> Embedder:
    return Embedder.load(folder, EXACT)


@pytest.fixture(scope="module")
def images() -> list[Path]:
    return photographs()


@pytest.mark.reference
def test_token_ids_of_many_scripts_are_the_references(
    ours: Embedder, tokenize: Callable[[Sequence[str]], list[list[int]]]
) -> None:
    assert_same_ids(ours, TEXTS, tokenize(TEXTS))


@pytest.mark.reference
def test_vectors_are_the_references(
    ours: Embedder,
    model: SiglipModel,
    tokenize: Callable[[Sequence[str]], list[list[int]]],
    images: Sequence[Path],
) -> None:
    texts = ["a cat", LONG, "!", "Two RED apples, on a table."]
    processor = SiglipImageProcessorPil()
    pixels = processor([Image.open(file) for file in images], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        wanted = model.get_text_features(input_ids=torch.tensor(tokenize(texts))).pooler_output
        wanted_images = model.get_image_features(pixel_values=pixels).pooler_output
    reference = [*wanted.numpy(), *wanted_images.numpy()]
    assert_same_vectors(ours, texts, images, reference, TOLERANCE)


@pytest.mark.reference
def test_each_label_has_its_own_probability(
    ours: Embedder,
    model: SiglipModel,
    tokenize: Callable[[Sequence[str]], list[list[int]]],
    images: Sequence[Path],
) -> None:
    names = ("a cat", "a dog", "an apple")
    pixels = SiglipImageProcessorPil()([Image.open(images[0])], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        ids = torch.tensor(tokenize(names))
        logits = model(input_ids=ids, pixel_values=pixels).logits_per_image[0]
    params = Params(labels=Labels(names, tuple((name,) for name in names)))
    (record,) = ours.embed([row(images[0])], params)
    assert record.labels is not None
    assert record.probs is not None
    found = dict(zip(record.labels, record.probs, strict=True))
    for name, wanted in zip(names, torch.sigmoid(logits).tolist(), strict=True):
        assert found[name] == pytest.approx(wanted, rel=1e-4)
    assert sum(record.probs) != pytest.approx(1)


@pytest.mark.reference
def test_evaluation_ranks_as_the_references_logits_do(
    ours: Embedder,
    model: SiglipModel,
    tokenize: Callable[[Sequence[str]], list[list[int]]],
    images: Sequence[Path],
    tmp_path: Path,
) -> None:
    names = ("a cat", "a dog", "an apple")
    pixels = SiglipImageProcessorPil()([Image.open(file) for file in images], return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(tokenize(names)), **pixels).logits_per_image
    right = torch.arange(len(names))
    table = tmp_path / "captions.csv"
    for name, image in zip(names, images, strict=True):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(image, tmp_path / "data" / name)
    rows = (f"data/{name}/{image.name},{name}" for name, image in zip(names, images, strict=True))
    table.write_text("\n".join(["image,text", *rows]) + "\n")
    found = zeroshot(ours, ClassFolders.open(tmp_path / "data"), names, ["{}"]).metrics
    assert found["acc1"] == pytest.approx((logits.argmax(1) == right).float().mean().item())
    recalled = retrieval(ours, table).metrics
    assert recalled["text_retrieval_recall@1"] == pytest.approx(found["acc1"])
    by_text = (logits.argmax(0) == right).float().mean().item()
    assert recalled["image_retrieval_recall@1"] == pytest.approx(by_text)


def test_a_sigmoid_is_of_the_scaled_cosine_and_the_bias() -> None:
    image, labels = np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32)
    probs = probabilities(3 * image, labels, 10.0, -5.0)
    np.testing.assert_allclose(probs, [[1 / (1 + np.exp(-5)), 1 / (1 + np.exp(5))]], rtol=1e-6)
    assert probabilities(image, labels, np.inf, -5.0)[0, 0] == 1


def test_a_text_in_company_has_the_vector_it_has_alone(ours: Embedder) -> None:
    texts = ["a cat", LONG, "x", "two dogs"]
    together = [record.text_features for record in ours.embed([Row(text=text) for text in texts])]
    for text, vector in zip(texts, together, strict=True):
        (alone,) = ours.embed([Row(text=text)])
        np.testing.assert_allclose(alone.text_features, vector, rtol=1e-4, atol=1e-5)


def test_a_long_text_can_be_refused(ours: Embedder) -> None:
    (record,) = ours.embed([Row(text=LONG)], Params(truncate="error"))
    assert record.error is not None
    assert "the model's context is 64" in record.error.message


@pytest.fixture(scope="module")
def package(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(str(folder), tmp_path_factory.mktemp("package") / "p")


@pytest.mark.slow
@pytest.mark.reference
def test_a_package_has_the_ids_and_the_vectors_of_its_checkpoint(
    package: Path, ours: Embedder, folder: Path
) -> None:
    packaged = Embedder.load(package, Settings(device="cpu", precision="fp32"))
    texts = TEXTS[-80:]
    assert parts_of(packaged).tokenizer.encode(texts, "end") == parts_of(ours).tokenizer.encode(
        texts, "end"
    )
    (record,), (wanted,) = packaged.embed([Row(text="a cat")]), ours.embed([Row(text="a cat")])
    np.testing.assert_array_equal(record.text_features, wanted.text_features)
    card = (package / "README.md").read_text(encoding="utf-8")
    assert "each label's by itself" in card
    assert "they do not sum to one, so `confidence` may leave out all labels" in card
    assert "always padded to 64, pooled at the last" in card


def _changed(model: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((model / name).read_text())
    change(content)
    (model / name).write_text(json.dumps(content))


def _keeps_case(model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    gemmas = tokenizer["model"]["type"] == "BPE"
    _changed(
        model,
        "tokenizer_config.json",
        lambda config: config.update(
            {"tokenizer_class": "PreTrainedTokenizerFast"}
            if gemmas
            else {"text_cleaning": "transformers"}
        ),
    )
    if gemmas:
        tokenizer["normalizer"] = {
            "type": "Replace",
            "pattern": {"String": " "},
            "content": "▁",
        }
        (model / "tokenizer.json").write_text(json.dumps(tokenizer))


def _bilinear(model: Path) -> None:
    _changed(model, "preprocessor_config.json", lambda config: config.update(resample=2))


def _no_bias(model: Path) -> None:
    file = model / "model.safetensors"
    weights = load_file(file)
    del weights["logit_bias"]
    save_file(weights, file)


def _other(name: str, value: float) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        weights[name] += value
        save_file(weights, model / "model.safetensors")

    return change


def _other_padding(model: Path) -> None:
    _changed(model, "tokenizer_config.json", lambda config: config.update(pad_token="<unk>"))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "case is kept": (_keeps_case, "the token ids of .* are not the reference's"),
    "bilinear resize": (_bilinear, "the pixels of .* are not the reference's"),
    "no bias": (_no_bias, "logit_bias"),
    "a bias of zero": (_other("logit_bias", 1.5), "the probabilities of labels are not"),
    "another scale": (_other("logit_scale", 0.1), "the probabilities of labels are not"),
    "another pad token": (_other_padding, "the token ids of .* are not the reference's"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "message"), FAULTS.values(), ids=FAULTS)
def test_a_package_that_differs_is_refused(
    package: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    changed = tmp_path / "p"
    shutil.copytree(package / "model", changed / "model")
    damage(changed / "model")
    with pytest.raises(ModelError, match=message):
        Embedder.load(changed / "model", Settings(device="cpu", precision="fp32"))


@pytest.fixture
def first_pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts pooled at their first token, as a class token would be."""

    def pooled(self: Any, x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        vector: torch.Tensor = self._tower.pooled(x[:, : self._context], slice(0, 1))
        return vector

    monkeypatch.setattr(text_tower._LastToken, "__call__", pooled)


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding hidden from a text's tokens, as most models want it."""

    def pooled(self: Any, x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        t = self._context
        hidden = torch.zeros(len(x), t, t)
        hidden[:, :, t // 2 : -1] = -torch.inf
        vector: torch.Tensor = self._tower.pooled(x[:, :t], slice(-1, None), hidden)
        return vector

    monkeypatch.setattr(text_tower._LastToken, "__call__", pooled)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_softmax_in_place_of_sigmoid_is_refused(
    package: Path, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def softmax(images: Matrix, labels: Matrix, scale: float, bias: float | None) -> Matrix:
        return probabilities(images, labels, scale)

    settings = Settings(device="cpu", precision=precision)
    Embedder.load(package, settings)
    monkeypatch.setattr("score.model.zeroshot.probabilities", softmax)
    with pytest.raises(ModelError, match="the probabilities of labels are not the reference's"):
        Embedder.load(package, settings)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["first_pooled", "masked"])
def test_a_wrong_pooling_or_mask_shows_in_the_vectors(
    package: Path, fault: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(fault)
    with pytest.raises(ModelError, match=r"the vector of .* is not the reference's"):
        Embedder.load(package, Settings(device="cpu", precision="fp32"))


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """so400m's widths, one layer deep, as `random_checkpoint` writes it."""
    whole = SIGLIP_ARCHITECTURES["ViT-SO400M-14-SigLIP-224"]
    vision, text = whole.vision, whole.text
    shallow = replace(
        whole,
        vision=replace(vision, tower=replace(vision.tower, layers=1)),
        text=replace(text, tower=replace(text.tower, layers=1)),
    )
    folder = random_checkpoint.write(tmp_path_factory.mktemp("random") / "c", shallow)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.reference
def test_so400m_has_the_references_vectors(random: Path, images: Sequence[Path]) -> None:
    ours = Embedder.load(random, EXACT)
    model = SiglipModel.from_pretrained(random).eval()
    tokenizer, opened = parts_of(ours).tokenizer, ModelFolder.open(random)
    (ids,) = tokenizer.encode(["a photo"], "end")
    pixels = SiglipImageProcessorPil()([Image.open(images[0])], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        text = model.get_text_features(input_ids=torch.tensor([ids])).pooler_output[0].numpy()
        image = model.get_image_features(pixel_values=pixels).pooler_output[0].numpy()
    assert Preprocessor.from_config(opened.preprocessor).size == (224, 224)
    first, second = ours.embed([Row(text="a photo"), row(images[0])])
    np.testing.assert_allclose(first.text_features, text, atol=TOLERANCE * np.abs(text).max())
    np.testing.assert_allclose(second.image_features, image, atol=TOLERANCE * np.abs(image).max())


@pytest.mark.parametrize("name", SIGLIP_ARCHITECTURES)
def test_a_configuration_is_read_back(name: str) -> None:
    architecture = SIGLIP_ARCHITECTURES[name]
    assert Architecture.from_config(architecture.config()) == architecture
    theirs = SiglipConfig(**architecture.config())
    assert theirs.vision_config.num_hidden_layers == architecture.vision.tower.layers
    assert theirs.text_config.projection_size == architecture.dimension


def test_the_defaults_are_transformers() -> None:
    assert (
        Architecture.from_config({"model_type": "siglip"})
        == SIGLIP_ARCHITECTURES["ViT-B-16-SigLIP-224"]
    )


REFUSED = {
    "NaFlex": ({"model_type": "siglip2"}, "NaFlex: images of any shape"),
    "no head": (
        {"model_type": "siglip", "vision_config": {"vision_use_head": False}},
        "vision_use_head is off",
    ),
    "unequal vectors": (
        {"model_type": "siglip", "text_config": {"projection_size": 512}},
        "vectors of texts have 512 numbers, those of images 768",
    ),
}


@pytest.mark.parametrize(("config", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_supported_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Architecture.from_config(config)


def test_padding_needs_a_token_and_a_side(tmp_path: Path) -> None:
    folder, config = byte_pairs(tmp_path), "tokenizer_config.json"
    _changed(folder, config, lambda content: content.update(padding_side="top"))
    with pytest.raises(ModelError, match="padding_side 'top' is not left or right"):
        OurTokenizer.of(folder, CONTEXT, pads=True)
    (folder / config).write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(ModelError, match="names no pad_token"):
        OurTokenizer.of(folder, CONTEXT, pads=True)
    stated = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None}
    stated |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    _changed(folder, "tokenizer.json", lambda content: content.update(padding=stated))
    assert OurTokenizer.of(folder, CONTEXT, pads=True).padding == Padding("<pad>", 0, "left")
    _changed(folder, "tokenizer.json", lambda content: content["padding"].update(pad_token="<no>"))
    with pytest.raises(ModelError, match="pad_token '<no>' is not in its vocabulary"):
        OurTokenizer.of(folder, CONTEXT, pads=True)


def test_padding_stands_on_the_side_that_a_tokenizer_names(tmp_path: Path) -> None:
    folder = byte_pairs(tmp_path)
    (right,) = OurTokenizer.of(folder, CONTEXT, pads=True).encode(["a cat"], "end")
    _changed(folder, "tokenizer_config.json", lambda config: config.pop("padding_side"))
    texts = OurTokenizer.of(folder, CONTEXT, pads=True)
    (left,) = texts.encode(["a cat"], "end")
    assert texts.padding == Padding("<pad>", 0, "left")
    assert isinstance(right, list)
    assert isinstance(left, list)
    assert (right[0], left[-1]) == (left[left.index(right[0])], 1)
    assert sorted(left) == sorted(right)
    assert left[0] == 0 == right[-1]


@pytest.mark.slow
@pytest.mark.reference
def test_a_package_can_be_packaged_again(package: Path, tmp_path: Path) -> None:
    again = build(package, tmp_path / "p")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"):
        assert (again / "model" / name).read_bytes() == (package / "model" / name).read_bytes()


@pytest.mark.parametrize("library", ["sentencepiece", "google.protobuf"])
def test_a_library_that_the_proof_lacks_is_named(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    whole = SIGLIP_ARCHITECTURES["ViT-B-16-SigLIP-224"]
    source = random_checkpoint.source(replace(whole, text=replace(whole.text, vocabulary=1000)))
    check_installed(source)
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(
        ModelError, match=rf"by a library that is missing: .*{library}.*pip install"
    ):
        check_installed(replace(source, tokenizer_folder=tmp_path))
