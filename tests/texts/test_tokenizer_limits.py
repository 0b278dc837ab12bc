"""A tokenizer of a stranger: panics, growth, and ids that the model has no embeddings for."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from score.checkpoints.architectures import CLIP_TOKENIZER
from score.errors import ModelError, RowError
from score.folder.architecture import Architecture
from score.folder.model_folder import EMBEDDED, read_json
from score.texts.tokenizer import Tokenizer
from tests.support.spending import spent

Change = Callable[[dict[str, Any]], object]

MODEL = Architecture.from_config(read_json(EMBEDDED / "config.json"))
CONTEXT = MODEL.text.context
SEQUENCE = {"Sequence": {"id": "A", "type_id": 0}}
SPECIAL = {"SpecialToken": {"id": "<s>", "type_id": 0}}
END = {"SpecialToken": {"id": "</s>", "type_id": 0}}
PAIR = [SEQUENCE, {"Sequence": {"id": "B", "type_id": 1}}]


def written(folder: Path, change: Change) -> Path:
    """A folder with the embedded model's tokenizer, changed."""
    content = json.loads((EMBEDDED / "tokenizer.json").read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def template(single: list[Any], ids: list[int]) -> Change:
    special = {
        "<s>": {"id": "<s>", "ids": ids, "tokens": ["<s>"] * len(ids)},
        "</s>": {"id": "</s>", "ids": [MODEL.text.end], "tokens": ["</s>"]},
    }
    kind = {"type": "TemplateProcessing", "pair": PAIR, "special_tokens": special}
    return lambda c: c.update(post_processor={**kind, "single": [*single, END]})


def normalizer(*steps: Any) -> Change:
    return lambda c: c.update(normalizer={"type": "Sequence", "normalizers": list(steps)})


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def charsmap(table: bytes) -> Change:
    return normalizer(
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}
    )


def trie(replacements: bytes) -> bytes:
    """A table without steps, and replacements of our choice."""
    return (4 * 256).to_bytes(4, "little") + bytes(4 * 256) + replacements


def split(expression: str) -> Change:
    pattern = {"Regex": expression}
    kind = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return lambda c: c.update(pre_tokenizer=kind)


BAD: dict[str, tuple[Change, str]] = {
    # panics, which are no `Exception`
    "a charsmap of nothing": (charsmap(b""), "charsmap) is damaged"),
    "a charsmap that aborts": (charsmap(b"\xff\xff\xff\xff"), "charsmap) is damaged"),
    "a charsmap that leads out": (charsmap(trie(b"a\0")[:-700] + b"\xff" * 700), "is damaged"),
    "a charsmap spelled otherwise": (charsmap(b"\xff\xff\xff\xff"), "charsmap) is damaged"),
    "a charsmap that is no base64": (
        normalizer({"type": "Precompiled", "precompiled_charsmap": "äö"}),
        "charsmap) is no base64",
    ),
    "a prefix longer than its merges": (
        lambda c: c["model"].update(continuing_subword_prefix="a" * 16),
        "cannot read the tokenizer",
    ),
    "pieces of no length": (
        lambda c: c.update(pre_tokenizer={"type": "FixedLength", "length": 0}),
        "the tokenizer fails on a text",
    ),
    "no unknown token": (
        lambda c: c.update(model={"type": "Unigram", "unk_id": None, "vocab": [["b", 0.0]]}),
        "the tokenizer fails on a text: Encountered an unknown token",
    ),
    # growth
    "a character becomes a book": (
        normalizer(replace({"String": "a"}, "b" * 10**6)),
        "may make a text 1,000,000 times as long",
    ),
    "whatever it is becomes a book": (
        normalizer(replace({"Regex": "."}, "b" * 10**6)),
        "may make a text 1,000,000 times as long",
    ),
    "ten become a thousand, and again": (
        normalizer(*[replace({"String": "a" * n}, "a" * n * 10) for n in (1, 2, 3)]),
        "may make a text 1,000 times as long",
    ),
    "the empty text is replaced": (
        normalizer(replace({"String": ""}, "bb")),
        "replaces the empty text",
    ),
    "a book before each text": (
        normalizer({"type": "Prepend", "prepend": "b" * 10**6}),
        "(Prepend) adds a long text",
    ),
    "steps without end": (normalizer(*[{"type": "NFC"}] * 65), "has 66 steps, over 64"),
    "a charsmap of books": (charsmap(trie(b"b" * 500 + b"\0")), "make a text 500 times as long"),
    # ids
    "a post-processor's foreign id": (
        template([SPECIAL, SEQUENCE], [MODEL.text.vocabulary]),
        f"adds the id {MODEL.text.vocabulary:,}, the model has embeddings",
    ),
    "a foreign id of Bert's": (
        lambda c: c.update(
            post_processor={"type": "BertProcessing", "sep": ["x", 4 * 10**9], "cls": ["y", 1]}
        ),
        "adds the id 4,000,000,000, the model has embeddings",
    ),
    "a foreign id within a sequence": (
        lambda c: c.update(
            post_processor={
                "type": "Sequence",
                "processors": [
                    {"type": "BertProcessing", "sep": ["x", 4 * 10**9], "cls": ["y", 1]}
                ],
            }
        ),
        "adds the id 4,000,000,000, the model has embeddings",
    ),
    "more specials than the context": (template([SPECIAL] * 200 + [SEQUENCE], [7]), "context is"),
    "each text twice": (template([SPECIAL, SEQUENCE, SEQUENCE], [7]), "context is"),
    "a foreign id in the vocabulary": (
        lambda c: c["model"]["vocab"].update(strange=2**32 - 1),
        "the tokenizer makes ids up to 4,294,967,295",
    ),
    # what is no tokenizer
    "a list": (lambda c: c.update(model=[1]), "cannot read the tokenizer"),
    "no model": (lambda c: c.pop("model"), "cannot read the tokenizer"),
    "an expression that is none": (split("(((("), "cannot read the tokenizer"),
    "deep inside": (
        lambda c: c.update(
            normalizer=json.loads('{"type": "Sequence", "normalizers": [' * 200 + "]}" * 200)
        ),
        "cannot read the tokenizer",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_tokenizer_that_cannot_be_is_refused_at_loading(name: str, tmp_path: Path) -> None:
    change, says = BAD[name]
    written(tmp_path, change)
    if "otherwise" in name:
        file = tmp_path / "tokenizer.json"
        file.write_text(
            file.read_text().replace("precompiled_charsmap", r"precompiled\u005fcharsmap")
        )
    with pytest.raises(ModelError) as caught:
        Tokenizer.of(tmp_path, CONTEXT).check(MODEL)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_embedded_tokenizer_and_nfkc_pass(tmp_path: Path) -> None:
    Tokenizer.of(EMBEDDED, CONTEXT).check(MODEL)
    steps = [{"type": "NFKC"}, replace({"String": " "}, "▁"), replace({"Regex": " {2,}"}, " ")]
    written(tmp_path, normalizer(*steps))
    Tokenizer.of(tmp_path, CONTEXT).check(MODEL)


def with_dropout(folder: Path) -> Path:
    """The embedded tokenizer as one that is trained, which leaves out half of the merges."""
    content = json.loads((EMBEDDED / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.5
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_dropout_is_for_training(tmp_path: Path) -> None:
    plain = Tokenizer.of(EMBEDDED, 77)
    dropping = Tokenizer.of(with_dropout(tmp_path), 77)
    texts = ["a photograph of wonderful umbrellas"] * 20
    assert dropping.encode(texts, "end") == plain.encode(texts, "end")
    assert json.loads(dropping.to_json())["model"]["dropout"] is None


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["CLIPTokenizer", "PreTrainedTokenizerFast"])
def test_dropout_is_as_the_reference_has_it(kind: str, tmp_path: Path) -> None:
    """Its CLIPTokenizer has none; where it would, nothing can be compared with it."""
    from score.package.reference import _Transformers

    with_dropout(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    text = "a photograph of wonderful umbrellas"
    if kind == "CLIPTokenizer":
        (ours,) = Tokenizer.of(tmp_path, 77).encode([text], "end")
        assert _Transformers(tmp_path, 77).ids(text) == ours
        return
    with pytest.raises(ModelError, match="has dropout, by which transformers makes other ids"):
        _Transformers(tmp_path, 77)


def test_a_text_that_makes_it_panic_is_one_row_s_error(tmp_path: Path) -> None:
    """Onig gives up after ten million steps, and tokenizers panics then."""
    tokenizer = Tokenizer.of(written(tmp_path, split(r"(x+x+)+y")), CONTEXT)
    first, panicked, last = tokenizer.encode(["a cat", "x" * 5_000, "a dog"], "end")
    assert isinstance(panicked, RowError)
    assert "the model's tokenizer fails on it" in panicked.message
    assert panicked.code == "bad_type"
    assert isinstance(first, list)
    assert isinstance(last, list)


def test_a_text_is_cut_beyond_the_context() -> None:
    text = "photograph " * 3_000
    (ids,) = Tokenizer.of(CLIP_TOKENIZER, 4_096).encode([text], "error")
    assert isinstance(ids, list)
    assert len(ids) == 3_002


def test_a_key_press_is_no_panic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("score.texts.tokenizer.tokenizer_files.read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Tokenizer.of(EMBEDDED, CONTEXT)


FILES: list[tuple[str, bytes]] = [
    ("tokenizer.json", b'{"a": "' + b"a" * 2**27 + b'"}'),
    ("tokenizer_config.json", b'{"a": "' + b"a" * 2**23 + b'"}'),
    (
        "special_tokens_map.json",
        json.dumps({"extra_special_tokens": [f"{n}" for n in range(300_000)]}).encode(),
    ),
    ("tokenizer_config.json", json.dumps({str(n): "" for n in range(200_000)}).encode()),
    ("tokenizer_config.json", b'{"added_tokens_decoder": {"' + b"9" * 5_000 + b'": {}}}'),
    ("tokenizer_config.json", b'{"bos_token": {"content": [1]}}'),
    ("added_tokens.json", b'{"a": 1e400}'),
    ("added_tokens.json", b'{"a": -1}'),
]


@pytest.mark.process
def test_files_of_a_tokenizer_cost_what_they_are_worth(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(len(FILES))]
    for folder, (name, content) in zip(folders, FILES, strict=True):
        folder.mkdir()
        (folder / "tokenizer.json").write_bytes((EMBEDDED / "tokenizer.json").read_bytes())
        (folder / name).write_bytes(content)
    for name in ("vocab.json", "merges.txt"):  # four gigabytes that take no room on the disk
        folders.append(tmp_path / name.partition(".")[0])
        folders[-1].mkdir()
        for file in ("vocab.json", "merges.txt"):
            (folders[-1] / file).write_text("{}")
        os.truncate(folders[-1] / name, 2**32)
    costs = spent([("score.texts.tokenizer:Tokenizer.of", folder, CONTEXT) for folder in folders])
    for cost, folder in zip(costs, folders, strict=True):
        assert cost.said.startswith("ModelError: "), folder
        assert len(cost.said) < 600, folder
        assert cost.mebibytes < 400, folder
        assert cost.seconds < 30, folder
    assert all("is larger than 8,388,608 bytes" in cost.said for cost in costs[-2:])
