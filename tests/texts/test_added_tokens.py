"""Tokens that JSON files add to a vocabulary give the ids that transformers gives."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from transformers import AutoTokenizer

from score.checkpoints import hub, random_checkpoint
from score.core.embedder import Embedder, parts_of
from score.errors import ModelError
from score.model.probes import Probes
from score.package import probe_set
from score.package.build import package
from score.settings import Settings
from score.texts.tokenizer import Tokenizer
from tests.model.test_reference import CONTEXT, TEXTS, Reference, relative_error

pytestmark = pytest.mark.reference

FP32 = Settings(device="cpu", precision="fp32")
Json = dict[str, Any]
SIZE = 49408  # of CLIP's vocabulary

NEW = ["<dog>", "<Cat>", "  gap", "né", "#!#", "photo of", "<x y>"]


def token(content: str, **flags: bool) -> Json:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"content": content, **plain, **flags}


def typed(content: str, **flags: bool) -> Json:
    """As `tokenizer_config.json` spells a token that it names."""
    return {**token(content, **flags), "__type": "AddedToken"}


SPECIAL = {
    "49406": token("<|startoftext|>", special=True),
    "49407": token("<|endoftext|>", special=True),
}


def decoder(*tokens: Json) -> Json:
    return {**SPECIAL, **{str(SIZE + place): found for place, found in enumerate(tokens)}}


def flags() -> Iterator[tuple[str, Json]]:
    for name in ("single_word", "lstrip", "rstrip", "normalized", "special"):
        tokens = [token(content, **{name: True}) for content in NEW]
        yield name, {"tokenizer_config.json": {"added_tokens_decoder": decoder(*tokens)}}


# Name → JSON files beside the vocabulary.
FILES: dict[str, Json] = {
    "nothing": {},
    **dict(flags()),
    "an empty decoder": {"tokenizer_config.json": {"added_tokens_decoder": {}}},
    "a decoder without CLIP's own": {
        "tokenizer_config.json": {"added_tokens_decoder": {str(SIZE): token("<dog>")}}
    },
    "a decoder and older files": {
        "tokenizer_config.json": {"added_tokens_decoder": decoder(token("<dog>"))},
        "added_tokens.json": {"<ignored>": SIZE + 1},
        "special_tokens_map.json": {"pad_token": "ignored"},
    },
    "ids out of order": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                str(SIZE + 1): token("<b>"),
                **SPECIAL,
                str(SIZE): token("<a>", lstrip=True),
            }
        }
    },
    "a token of the vocabulary": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {**SPECIAL, "1929": token("dog</w>"), "0": token("!")}
        }
    },
    "added_tokens.json": {"added_tokens.json": {"<dog>": SIZE, "<Cat>": SIZE + 1}},
    "added_tokens.json, some special": {
        "added_tokens.json": {"<Dog>": SIZE, "<Cat>": SIZE + 1, "<Pad>": SIZE + 2},
        "special_tokens_map.json": {"pad_token": "<Pad>", "additional_special_tokens": ["<Cat>"]},
    },
    "added_tokens.json, special in the configuration": {
        "added_tokens.json": {"<Dog>": SIZE, "<Cat>": SIZE + 1, "<Pad>": SIZE + 2},
        "tokenizer_config.json": {
            "pad_token": typed("<Pad>", normalized=True),
            "additional_special_tokens": ["<Cat>"],
        },
    },
    "as transformers 4 saved OpenAI's": {
        "special_tokens_map.json": {
            "bos_token": token("<|startoftext|>", normalized=True),
            "eos_token": token("<|endoftext|>", normalized=True),
            "unk_token": token("<|endoftext|>", normalized=True),
            "pad_token": "<|endoftext|>",
        },
        "tokenizer_config.json": {
            "bos_token": typed("<|startoftext|>", normalized=True),
            "eos_token": typed("<|endoftext|>", normalized=True),
            "unk_token": typed("<|endoftext|>", normalized=True),
            "pad_token": "<|endoftext|>",
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": 77,
            "special_tokens_map_file": "./special_tokens_map.json",
            "tokenizer_class": "CLIPTokenizer",
        },
    },
    "padded with !, as Stable Diffusion 2": {"tokenizer_config.json": {"pad_token": "!"}},
    "padded with ! in the map": {"special_tokens_map.json": {"pad_token": "!"}},
    "no padding token": {"tokenizer_config.json": {"pad_token": None}},
    "another begin and end": {
        "tokenizer_config.json": {"bos_token": "<s>", "eos_token": typed("</s>", special=True)}
    },
    "begin and end swapped in the map": {
        "special_tokens_map.json": {"bos_token": "<|endoftext|>", "eos_token": "<|startoftext|>"}
    },
    "additional special tokens": {
        "tokenizer_config.json": {"additional_special_tokens": ["<Dog>", typed("<cat>")]}
    },
    "extra special tokens": {"tokenizer_config.json": {"extra_special_tokens": ["<Dog>", "dog"]}},
    "both spellings": {
        "tokenizer_config.json": {
            "extra_special_tokens": ["<Dog>"],
            "additional_special_tokens": ["<Cat>"],
        }
    },
    "both files": {
        "tokenizer_config.json": {"additional_special_tokens": ["<Dog>"]},
        "special_tokens_map.json": {"additional_special_tokens": ["<Cat>"]},
    },
    "extra special tokens in the map": {
        "tokenizer_config.json": {"extra_special_tokens": ["<Dog>"]},
        "special_tokens_map.json": {"extra_special_tokens": ["<Cat>", "<Dog>"]},
    },
    "special tokens with names": {
        "tokenizer_config.json": {
            "extra_special_tokens": {"image_token": "<Image>"},
            "dog_token": "<Dog>",
            "cat_token": typed("<Cat>", lstrip=True),
        }
    },
    "settings that change nothing": {
        "tokenizer_config.json": {
            "do_lower_case": False,
            "add_prefix_space": True,
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": True,
            "padding_side": "left",
            "model_max_length": 10,
            "tokenizer_class": "CLIPTokenizerFast",
        }
    },
}
SPELLED = [
    "<dog>", "<Dog>", "<DOG>", "<Cat>", "<cat>", "<Pad>", "<Image>", "<a>", "<b>", "<s>", "</s>",
    "dog", "né", "#!#", "photo of", "<x y>", "!", "dog</w>", "<ignored>",
]  # fmt: skip
SPOKEN = [
    *(f"a {each} of {each.upper()}, x{each}y  {each}  {each}{each} !" for each in SPELLED),
    "a  gap in  GAP", "Ne\u0301 photo  of a #tag", "\n<dog>\n", "  gap", "<dog> " * 100,
]  # fmt: skip


SOME = [*TEXTS[::7], *SPOKEN]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's `vocab.json` and `merges.txt`."""
    folder = tmp_path_factory.mktemp("tables")
    model = json.loads(random_checkpoint.clip_vocabulary())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]))
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    return folder


def with_files(tables: Path, folder: Path, files: Json) -> Path:
    shutil.copytree(tables, folder)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def ours(folder: Path) -> list[object]:
    return list(Tokenizer.of(folder, CONTEXT).encode(SOME, "end"))


def theirs(folder: Path) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids: list[list[int]] = tokenizer(SOME, truncation=True, max_length=CONTEXT)["input_ids"]
    return ids


@pytest.mark.parametrize("name", FILES)
def test_ids_beside_vocabulary_and_merges(name: str, tables: Path, tmp_path: Path) -> None:
    folder = with_files(tables, tmp_path / "c", FILES[name])
    for text, mine, reference in zip(SOME, ours(folder), theirs(folder), strict=True):
        assert mine == reference, repr(text[:80])


@pytest.mark.parametrize("name", FILES)
def test_ids_beside_a_tokenizer_json(name: str, tables: Path, tmp_path: Path) -> None:
    """The file has CLIP's own tokens; those beside it are added, as transformers does."""
    folder = with_files(tables, tmp_path / "c", FILES[name])
    (folder / "tokenizer.json").write_text(random_checkpoint.clip_vocabulary())
    if "begin and end" in name:  # tokenizer.json says with which tokens a text begins and ends
        assert ours(folder) != theirs(folder)
        return
    assert ours(folder) == theirs(folder)


def test_the_files_do_change_ids(tables: Path, tmp_path: Path) -> None:
    """What the tests above compare is not all the same."""
    plain = ours(with_files(tables, tmp_path / "plain", {}))
    for name in ("normalized", "added_tokens.json", "padded with ! in the map", "both spellings"):
        assert ours(with_files(tables, tmp_path / name, FILES[name])) != plain, name


# -- refused ---------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[Json, str]] = {
    "a gap before an id": (
        {"added_tokens.json": {"<dog>": SIZE + 5}},
        r"'<dog>' is listed with the id 49,413, and transformers gives it 49,408",
    ),
    "an id of another token": (
        {"tokenizer_config.json": {"added_tokens_decoder": {**SPECIAL, "3": token("!")}}},
        r"'!' is listed with the id 3, and transformers gives it 0",
    ),
    "special tokens that are split": (
        {"tokenizer_config.json": {"split_special_tokens": True}},
        "split_special_tokens=True is not supported",
    ),
    "cut at the beginning": (
        {"tokenizer_config.json": {"truncation_side": "left"}},
        "truncation_side='left' is not supported",
    ),
    "another class": (
        {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}},
        "says GPT2Tokenizer, which needs a tokenizer.json",
    ),
    "nothing to begin with": ({"tokenizer_config.json": {"bos_token": ""}}, "has no ''"),
    "a list for a decoder": (
        {"tokenizer_config.json": {"added_tokens_decoder": [1]}},
        "unusable added tokens",
    ),
    "a number for a token": (
        {"tokenizer_config.json": {"added_tokens_decoder": {"1": 2}}},
        "unusable added tokens",
    ),
    "a word for an id": ({"added_tokens.json": {"<dog>": "first"}}, "unusable added tokens"),
    "numbers for special tokens": (
        {"tokenizer_config.json": {"extra_special_tokens": [3]}},
        "unusable added tokens",
    ),
    "a list for a file": ({"added_tokens.json": [1]}, "must hold a JSON object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused(name: str, tables: Path, tmp_path: Path) -> None:
    files, says = REFUSED[name]
    folder = with_files(tables, tmp_path / "c", files)
    with pytest.raises(ModelError, match=says):
        Tokenizer.of(folder, CONTEXT)


def test_files_that_disagree_are_refused(tmp_path: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_str(random_checkpoint.clip_vocabulary())
    tokenizer.add_tokens(["<dog>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": SPECIAL}))
    with pytest.raises(ModelError, match=r"adds the token '<dog>', which .* leaves out"):
        Tokenizer.of(tmp_path, CONTEXT)


def test_thousands_of_tokens_are_read_in_a_moment(tables: Path, tmp_path: Path) -> None:
    begun = time.process_time()
    unused = [f"<unused{number}>" for number in range(16_000)]
    files = {
        "special_tokens_map.json": {"extra_special_tokens": unused},
        "tokenizer_config.json": {"extra_special_tokens": [f"{text}s" for text in unused]},
    }
    texts = Tokenizer.of(with_files(tables, tmp_path / "c", files), CONTEXT)
    assert len(texts.vocabulary()) == SIZE + 32_000
    assert time.process_time() - begun < 10  # comparing each with each takes longer
    files["special_tokens_map.json"] = {"extra_special_tokens": [*unused] * 2}
    with pytest.raises(ModelError, match="lists 32,000 values; at most 16,384 are read"):
        Tokenizer.of(with_files(tables, tmp_path / "d", files), CONTEXT)


# -- packages --------------------------------------------------------------------------------------


def folder_with(tokens: int, folder: Path, **changes: Any) -> Path:
    """A tiny checkpoint with rows for added tokens, its tokenizer in two tables."""
    text = replace(random_checkpoint.TINY.text, vocabulary=SIZE + tokens)
    random_checkpoint.write(folder, replace(random_checkpoint.TINY, text=text), seed=5)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]))
    content = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(content | changes))
    return folder


ADDED = decoder(
    token("<Dog>", lstrip=True),
    token("<Cat>", normalized=True),
    token("<own>", single_word=True, special=True),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("added") / "c"
    return folder_with(3, place, added_tokens_decoder=ADDED, pad_token="!")


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(folder, tmp_path_factory.mktemp("made") / "p")


def test_a_package_has_the_added_tokens(folder: Path, made: Path) -> None:
    texts = parts_of(Embedder.load(made, FP32)).tokenizer
    assert texts.encode(SOME, "end") == theirs(folder)
    assert Tokenizer.of(folder, CONTEXT).encode(SOME, "end") == theirs(folder)
    # transformers reads the package as it does its source.
    assert theirs(made / "model") == theirs(folder)


def test_each_added_token_has_a_probe(made: Path) -> None:
    probes = Probes.read(made / "model")
    assert probes
    texts = [probe.text for probe in probes.texts]
    assert texts[: len(probe_set.TEXTS)] == list(probe_set.TEXTS)
    assert texts[len(probe_set.TEXTS) :] == [
        probe_set.text_with(token) for token in ("!", "<Dog>", "<Cat>", "<own>")
    ]


def test_probes_tell_an_added_token_that_is_lost(made: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made / "model", tmp_path / "model"))
    content = json.loads((copy / "tokenizer.json").read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<own>"]
    (copy / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"the token ids of 'a <own> of"):
        Embedder.load(copy, FP32)


def test_vectors_of_texts_with_added_tokens(folder: Path) -> None:
    """A plain folder, its tokenizer in tables. Its configuration pools at the largest id."""
    content = json.loads((folder / "config.json").read_text())
    content["text_config"]["eos_token_id"] = 2
    other = folder.with_name("largest")
    shutil.copytree(folder, other)
    (other / "config.json").write_text(json.dumps(content))
    for place in (folder, other):
        reference, embedder = Reference(place), Embedder.load(place, FP32)
        ours = [embedder.embed_text(text) for text in SPOKEN]
        theirs = [reference.texts([text])[0] for text in SPOKEN]
        assert relative_error(np.stack(ours), np.stack(theirs)) < 1e-5


def test_ids_past_the_embeddings_are_refused(tmp_path: Path) -> None:
    folder = folder_with(2, tmp_path / "c", added_tokens_decoder=ADDED)
    with pytest.raises(ModelError, match=r"ids up to 49,410, .* for 49,410: '<own>' has none"):
        Embedder.load(folder, FP32)
    with pytest.raises(ModelError, match="'<own>' has none"):
        package(folder, tmp_path / "p")


def test_few_dozens_of_tokens_are_probed(tmp_path: Path) -> None:
    tokens = [token(f"<{number}>") for number in range(50)]
    folder = folder_with(50, tmp_path / "c", added_tokens_decoder=decoder(*tokens))
    probes = Probes.read(package(folder, tmp_path / "p") / "model")
    assert probes
    assert len(probes.texts) == len(probe_set.TEXTS) + 32


def test_the_hub_gives_the_files() -> None:
    for name in ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"):
        assert name in hub._BESIDE
