"""Chinese CLIP: equality with transformers' own, on checkpoints in the published layout.

Weights are random, of full width and reduced depth. Token ids and pixels must agree to the last
bit, vectors within `TOLERANCE`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
)

from score.checkpoints import random_checkpoint
from score.checkpoints.architectures import CHINESE_ARCHITECTURES
from score.contract.params import Params
from score.contract.rows import Row
from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.folder.architecture import Architecture
from score.model import text_tower
from score.package.build import package as build
from score.settings import Settings
from score.texts import wordpiece
from score.texts.tokenizer import Tokenizer
from tests.support.references import assert_same_ids, assert_same_vectors, photographs

TOLERANCE = 1e-5
CONTEXT = 52
VOCABULARY = 21_128
EXACT = Settings(device="cpu", precision="fp32", verify="off")
FP32 = Settings(device="cpu", precision="fp32")

CAPTIONS = [
    line.strip()
    for line in Path("benchmarks/captions_web.csv").read_text(encoding="utf-8").splitlines()
]
ODD = """\
一只猫和一只狗的照片|杰尼龟、妙蛙种子。|中文English混排123|㐀㐁𠀀|Ein Bild von Äpfeln, größer!
Σίσυφος ΟΔΥΣΣΕΥΣ|İstanbul'da ışık|猫の写真。カタカナ|фото собаки й ё|한국어 사진|हिन्दी में|ไทย|קרוב
a  double   space|\ttab | leading|!!!|...|[SEP]|a [SEP] b|[CLS] x|[UNK]|[PAD]|[MASK]|[sep]|##s|s##s
½ Ⅷ ¨|café|🍎🍏 emoji|don't|\u200b zero|\xa0nbsp|\ufeffBOM|\u2028line|\x1fctl|\ufffd|a\u0301|
ÉCOLE naïve|ß ſ ﬁ"""
LONG = "一张很长的描述，关于花园里的一只猫。" * 30
WORD = "antidisestablishmentarianism" * 5  # over the 100 characters of a word that are looked up
SCRIPTS = re.split("[|\n]", ODD)
MIXED = [f"{odd} {caption}" for odd in SCRIPTS for caption in CAPTIONS[:12]]
TEXTS = [*CAPTIONS, *MIXED, *SCRIPTS, LONG, WORD, ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as it is published: base's width, of two layers."""
    folder = tmp_path_factory.mktemp("chinese")
    torch.manual_seed(0)
    model = ChineseCLIPModel(
        ChineseCLIPConfig(
            text_config={"num_hidden_layers": 3, "vocab_size": VOCABULARY, "bos_token_id": None},
            vision_config={"num_hidden_layers": 2, "patch_size": 16},
        )
    )
    for name, parameter in model.named_parameters():
        if "norm" in name.lower() or name.endswith("bias") or "token_type" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    # transformers zeroes the row of [PAD] in new models; RoBERTa's, hence the published ones', is
    # not zero.
    model.text_model.embeddings.word_embeddings.weight.data[0].normal_()
    model.save_pretrained(folder)
    processor = ChineseCLIPImageProcessorPil(
        size={"height": 224, "width": 224}, do_center_crop=False
    )
    processor.save_pretrained(folder)
    pieces = random_checkpoint.bert_pieces(VOCABULARY)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> ChineseCLIPModel:
    return ChineseCLIPModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokenize(folder: Path) -> Callable[[Sequence[str]], list[list[int]]]:
    tokenizer = BertTokenizer.from_pretrained(folder)
    return lambda texts: [
        tokenizer([text], truncation=True, max_length=CONTEXT)["input_ids"][0] for text in texts
    ]


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
    model: ChineseCLIPModel,
    tokenize: Callable[[Sequence[str]], list[list[int]]],
    images: Sequence[Path],
) -> None:
    """Those of texts that share a row, too: nothing of one text shows in another."""
    texts = ["一只猫", LONG, "", "Two RED apples.", "a [SEP] b", *SCRIPTS[:20]]
    processor = ChineseCLIPImageProcessorPil(
        size={"height": 224, "width": 224}, do_center_crop=False
    )
    pixels = processor([Image.open(file) for file in images], return_tensors="pt")["pixel_values"]
    texts = [text for text in texts if text]
    with torch.inference_mode():
        wanted = [
            model.get_text_features(input_ids=torch.tensor([ids])).pooler_output[0]
            for ids in tokenize(texts)
        ]
        wanted += list(model.get_image_features(pixel_values=pixels).pooler_output)
    reference = (vector.numpy() for vector in wanted)
    assert_same_vectors(ours, texts, images, reference, TOLERANCE)


def test_a_long_text_is_cut_to_the_context_of_training(ours: Embedder) -> None:
    (ids,) = parts_of(ours).tokenizer.encode([LONG], "end")
    assert isinstance(ids, list)
    assert (len(ids), ids[0], ids[-1]) == (CONTEXT, 101, 102)
    (record,) = ours.embed([Row(text=LONG)], Params(truncate="error"))
    assert record.error is not None
    assert "the model's context is 52" in record.error.message


@pytest.fixture(scope="module")
def package(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(str(folder), tmp_path_factory.mktemp("package") / "p")


@pytest.mark.slow
@pytest.mark.reference
def test_a_package_has_the_ids_and_the_vectors_of_its_checkpoint(
    package: Path, ours: Embedder
) -> None:
    packaged = Embedder.load(package, FP32)
    assert parts_of(packaged).tokenizer.encode(TEXTS, "end") == parts_of(ours).tokenizer.encode(
        TEXTS, "end"
    )
    (record,), (wanted,) = packaged.embed([Row(text="猫")]), ours.embed([Row(text="猫")])
    np.testing.assert_array_equal(record.text_features, wanted.text_features)
    card = (package / "README.md").read_text(encoding="utf-8")
    assert "up to 52 tokens of 21,128; pooled at the first" in card


@pytest.mark.slow
@pytest.mark.reference
def test_the_padding_tokens_row_is_packaged_as_it_came(package: Path, folder: Path) -> None:
    name = "text_model.embeddings.word_embeddings.weight"
    written, came = (load_file(path / "model.safetensors") for path in (package / "model", folder))
    assert came[name][0].abs().max() > 0
    assert torch.equal(written[name], came[name])


@pytest.mark.slow
@pytest.mark.reference
def test_transformers_reads_the_packages_model(
    package: Path, tokenize: Callable[[Sequence[str]], list[list[int]]]
) -> None:
    ids = BertTokenizer.from_pretrained(package / "model")
    for text, wanted in zip(TEXTS, tokenize(TEXTS), strict=True):
        assert ids([text], truncation=True, max_length=CONTEXT)["input_ids"][0] == wanted


def _keeps_case(model: Path) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (model / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_a_tokenizer_that_keeps_case_is_refused(package: Path, tmp_path: Path) -> None:
    shutil.copytree(package / "model", tmp_path / "model")
    _keeps_case(tmp_path / "model")
    with pytest.raises(ModelError, match=r"the token ids of .* are not the reference's"):
        Embedder.load(tmp_path / "model", FP32)


def _last_pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    def pooled(
        self: Any, x: torch.Tensor, _: torch.Tensor, owners: torch.Tensor, ends: torch.Tensor
    ) -> torch.Tensor:
        mask = text_tower._mask(text_tower._same(owners), x.dtype)
        vector: torch.Tensor = self._tower.pooled(x, ends, mask)
        return vector

    monkeypatch.setattr(text_tower._FirstTokens, "__call__", pooled)


def _causal(monkeypatch: pytest.MonkeyPatch) -> None:
    same = text_tower._same
    monkeypatch.setattr(text_tower, "_same", lambda owners: same(owners).tril())


def _untyped(monkeypatch: pytest.MonkeyPatch) -> None:
    def positions(take: Any, embeddings: str) -> torch.Tensor:
        taken: torch.Tensor = take(f"{embeddings}.position_embeddings.weight", torch.float32)
        return taken

    monkeypatch.setattr(text_tower, "_typed_positions", positions)


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "pooled at the last token": _last_pooled,
    "a causal mask": _causal,
    "no types of tokens": _untyped,
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_text_tower_is_refused(
    package: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    with pytest.raises(ModelError, match=r"the vector of .* is not the reference's"):
        Embedder.load(package, FP32)


@pytest.mark.parametrize("name", CHINESE_ARCHITECTURES)
def test_a_configuration_is_read_back(name: str) -> None:
    architecture = CHINESE_ARCHITECTURES[name]
    assert Architecture.from_config(architecture.config()) == architecture
    theirs = ChineseCLIPConfig(**architecture.config())
    assert theirs.text_config.num_hidden_layers == architecture.text.tower.layers
    assert theirs.text_config.max_position_embeddings == 512


def test_the_defaults_are_transformers() -> None:
    made, theirs = Architecture.from_config({"model_type": "chinese_clip"}), ChineseCLIPConfig()
    for ours, other in ((made.text, theirs.text_config), (made.vision, theirs.vision_config)):
        assert ours.tower.width == other.hidden_size
        assert ours.tower.layers == other.num_hidden_layers
        assert ours.tower.activation == other.hidden_act
        assert ours.tower.epsilon == other.layer_norm_eps
    assert (made.text.vocabulary, made.text.types) == (30_522, 2)


def test_positions_of_another_kind_are_refused() -> None:
    config = {"model_type": "chinese_clip", "text_config": {"position_embedding_type": "relative"}}
    with pytest.raises(ModelError, match="position_embedding_type is not absolute"):
        Architecture.from_config(config)


def test_a_text_needs_a_token_before_it(tmp_path: Path) -> None:
    content = json.loads(random_checkpoint.bert_vocabulary(VOCABULARY))
    content["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="puts no token before a text, where it is pooled"):
        Tokenizer.of(tmp_path, CONTEXT).check(CHINESE_ARCHITECTURES["chinese-ViT-B-16"])


def test_a_flag_that_is_none_is_refused() -> None:
    with pytest.raises(ModelError, match="do_lower_case is neither true nor false"):
        wordpiece.word_pieces({"[UNK]": 0}, {"do_lower_case": "yes"})


def test_its_texts_are_not_cleaned_as_clips_are(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--cleaning openclip is not for a Chinese CLIP's texts"):
        build(str(folder), tmp_path / "p", cleaning="openclip")
